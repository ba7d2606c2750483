-- A server with one fault (peer.py), for faults that a real server does not give on demand.
local M = {}
M.__index = M

local function slurp(path)
  local file = io.open(path)
  local text = file and file:read("*a") or ""
  if file then
    file:close()
  end
  return text
end

--- Starts it: the modes are those of peer.py.
function M.start(mode, ...)
  local self = setmetatable({ out = os.tmpname(), log = os.tmpname() }, M)
  local words = { mode, self.log, ... }
  for i, word in ipairs(words) do
    words[i] = "'" .. tostring(word) .. "'"
  end
  local pipe = io.popen(("python3 spec/support/peer.py %s >%s 2>&1 </dev/null & echo $!"):format(
    table.concat(words, " "), self.out))
  self.pid = pipe:read("*l")
  pipe:close()
  local port
  for _ = 1, 100 do
    port = slurp(self.out):match("^(%d+)\n")
    if port then
      break
    end
    os.execute("sleep 0.05")
  end
  assert(port, "the peer did not start: " .. slurp(self.out))
  self.url = "http://127.0.0.1:" .. port
  return self
end

--- How many POSTs it carried out.
function M:count()
  return tonumber(slurp(self.log)) or 0
end

function M:stop()
  os.execute("kill " .. self.pid)
  os.remove(self.out)
  os.remove(self.log)
end

return M
