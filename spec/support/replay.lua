-- Starts and stops the replay server beside this file. Runs on every Lua: it only uses the shell.
local M = {}
M.__index = M

local program = os.getenv("LBOX_PROGRAM") or "build/lbox"

local function slurp(path)
  local file = io.open(path)
  local text = file and file:read("*a") or ""
  if file then
    file:close()
  end
  return text
end

--- Starts a server that replays `events` text events.
function M.start(events)
  local out = os.tmpname()
  local pipe = io.popen(("%s spec/support/replay_server.lua %d >%s 2>&1 </dev/null & echo $!"):format(
    program, events, out))
  local pid = pipe:read("*l")
  pipe:close()
  local port
  for _ = 1, 100 do
    port = slurp(out):match("^(%d+)\n")
    if port then
      break
    end
    os.execute("sleep 0.05")
  end
  local said = slurp(out)
  os.remove(out)
  assert(port, "the replay server did not start: " .. said)
  return setmetatable({ pid = pid, url = "http://127.0.0.1:" .. port }, M)
end

function M:stop()
  os.execute("kill " .. self.pid)
end

return M
