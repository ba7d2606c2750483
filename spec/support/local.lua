-- A local server of the specs' own: `lbox serve` on a data directory that goes with it. Uses only the
-- shell, so that specs on every Lua can have one.
local M = {}
M.__index = M

M.program = os.getenv("LBOX_PROGRAM") or "build/lbox"

local function slurp(path)
  local file = io.open(path)
  local text = file and file:read("*a") or ""
  if file then
    file:close()
  end
  return text
end

--- Runs a shell command; returns its output (both streams) and exit status.
function M.sh(command)
  local out = os.tmpname()
  local a, _, c = os.execute(("( %s ) >%s 2>&1 </dev/null"):format(command, out))
  local status = type(a) == "number" and math.floor(a / 256) or c
  local text = slurp(out)
  os.remove(out)
  return text, status
end

--- A directory that any user may enter.
function M.directory()
  return (M.sh("d=$(mktemp -d) && chmod 711 $d && echo $d"):gsub("%s+$", ""))
end

--- Starts a server. `prefix` is put before the command (to become another user, say), `args` behind it.
function M.start(opts)
  opts = opts or {}
  local self = setmetatable({ dir = opts.dir or M.directory(), log = os.tmpname() }, M)
  local pid = M.sh(("%s %s serve --data %s/data --listen 127.0.0.1:0 %s >%s 2>&1 </dev/null & echo $!"):format(
    opts.prefix or "", opts.program or M.program, self.dir, opts.args or "", self.log))
  self.pid = pid:match("%d+")
  for _ = 1, 200 do
    local said = slurp(self.log)
    self.url = said:match("url (http://%S+)")
    if said:match("\nready\n") then
      break
    end
    os.execute("sleep 0.05")
  end
  local key = self.dir .. "/data/key"
  self.key = slurp(key):match("%S+") or slurp("/proc/" .. self.pid .. "/root" .. key):match("%S+")
  assert(self.url and self.key, "the server did not start: " .. slurp(self.log))
  return self
end

--- Options that lead a client here.
function M:client(more)
  local opts = { base_url = self.url, api_key = self.key }
  for key, value in pairs(more or {}) do
    opts[key] = value
  end
  return opts
end

--- Ends the server with a signal (TERM) and waits until it has ended; whoever is its parent by then may
--- take long to notice.
function M:kill(signal)
  os.execute(("kill -%s %s 2>/dev/null; while [ -e /proc/%s/exe ]; do sleep 0.02; done"):format(
    signal or "TERM", self.pid, self.pid))
end

function M:said()
  return slurp(self.log)
end

--- Starts a server of an ordinary user, whoever runs the specs, in a new directory.
function M.start_as_user(opts)
  opts = opts or {}
  if not M.sh("id -u"):match("^0") then
    return M.start(opts)
  end
  local dir = opts.dir or M.directory()
  -- The program too has to be where that user gets at it.
  M.sh(("cp %s %s/lbox && chmod 755 %s/lbox && chown 12345:12345 %s"):format(M.program, dir, dir, dir))
  local server = M.start { dir = dir, args = opts.args, program = dir .. "/lbox",
    prefix = "setpriv --reuid 12345 --regid 12345 --clear-groups env HOME=" .. dir }
  return server
end

--- Asks for what the SDK has no call for, or sends what it would not; the body is JSON as it is. Returns
--- the status and the answer.
function M:ask(method, path, body)
  local file = self.dir .. "/body"
  local out = assert(io.open(file, "w"))
  out:write(body or "")
  out:close()
  local text = M.sh(("curl -s -X %s -w '\\n%%{http_code}' -H 'X-Box-Api-Key: %s' %s '%s%s'"):format(method, self.key,
    body and "-d @" .. file or "", self.url, path))
  local answer, status = text:match("^(.*)\n(%d+)%s*$")
  return tonumber(status), answer
end

--- Makes a skill in a directory of this machine.
---@param text string|nil  what it is about
function M.skill(dir, text)
  M.sh("mkdir -p " .. dir)
  local file = assert(io.open(dir .. "/SKILL.md", "w"))
  file:write(("---\nname: %s\ndescription: %s\n---\n\nDo it.\n"):format(dir:match("[^/]+$"), text or "Does it."))
  file:close()
end

--- Ends it and removes everything.
function M:stop()
  self:kill("TERM")
  os.execute("rm -rf " .. self.dir)
  os.remove(self.log)
end

return M
