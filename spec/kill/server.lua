-- The server that is killed: one data directory and one port, of as many servers as it takes.
local async = require "lbox.async"
local posix = require "lbox.server.posix"
local sqlite = require "lbox.server.sqlite"
local support = require "spec.support.local"

local START_TIMEOUT_MS = 20000

local M = {}
M.__index = M

local function read_from(path, offset)
  local file = io.open(path, "rb")
  if not file then
    return ""
  end
  file:seek("set", offset)
  local text = file:read("a") or "" -- of a process that ended
  file:close()
  return text
end

--- A server that is not started yet.
---@param script string[]|nil  what to run by `lbox` before `serve` (a program with a bug in it)
function M.new(script)
  local dir = support.directory()
  return setmetatable({ dir = dir, data = dir .. "/data", log = dir .. "/log", script = script or {}, due = {} }, M)
end

--- Starts it and does not wait. The server has no descriptor of ours.
function M:launch()
  local argv = { support.program }
  table.move(self.script, 1, #self.script, 2, argv)
  for _, word in ipairs { "serve", "--data", self.data, "--listen", "127.0.0.1:" .. (self.port or 0) } do
    argv[#argv + 1] = word
  end
  local st = posix.lstat(self.log)
  self.said_before = st and st.size or 0
  local log = assert(posix.open(self.log, "append", 0x180))
  local env = { "PATH=" .. os.getenv("PATH"), "HOME=" .. self.dir, "LUA_PATH=" .. package.path }
  self.pid, self.pidfd = assert(posix.spawn { argv = argv, env = env, fds = { [1] = log, [2] = log } })
  posix.close(log)
end

--- What the server that runs, or ran last, has logged.
function M:said()
  return read_from(self.log, self.said_before)
end

--- Starts it and waits until it accepts connections.
function M:start()
  self:launch()
  local give_up_at = async.now() + START_TIMEOUT_MS
  while not self:said():find("ready\n", 1, true) do
    if posix.waitid(self.pidfd) or async.now() > give_up_at then
      error("the server did not start: " .. self:said(), 0)
    end
    async.sleep(2)
  end
  self.port = self:said():match("url http://127%.0%.0%.1:(%d+)")
  self.key = read_from(self.data .. "/key", 0):match("%S+")
end

--- Options that lead a client here.
function M:client(more)
  local opts = { base_url = "http://127.0.0.1:" .. self.port, api_key = self.key }
  for key, value in pairs(more or {}) do
    opts[key] = value
  end
  return opts
end

--- Sends a signal, and waits for the end; if it runs.
function M:kill(signal)
  if not self.pidfd then
    return
  end
  posix.kill(self.pid, signal or "KILL")
  local watch = async.fd(self.pidfd)
  watch:wait("r")
  watch:close()
  posix.waitid(self.pidfd)
  posix.close(self.pidfd)
  self.pidfd = nil
end

--- The id of a snapshot by its name.
function M:snapshot(name)
  local db <close> = sqlite.open(self.data .. "/lbox.db")
  return db:row("SELECT id FROM snapshots WHERE name = ?", name).id
end

--- How many descriptors it has open.
function M:descriptors()
  return #posix.listdir(("/proc/%d/fd"):format(self.pid))
end

--- Processes that belong to the data directory: sandboxes see it in what they have mounted, helpers of the server
--- are named by it. The server itself is none of them. Keys say when one began, for a pid may come again.
---@return table<string, string>  what each is
function M:processes()
  local found, own = {}, self.dir:match("[^/]+$")
  for _, pid in ipairs(posix.listdir("/proc") or {}) do
    if pid:find("^%d+$") and tonumber(pid) ~= self.pid and tonumber(pid) ~= posix.getpid() then
      local dir = "/proc/" .. pid
      local cmdline = read_from(dir .. "/cmdline", 0):gsub("%z", " ")
      if cmdline:find(own, 1, true) or read_from(dir .. "/mountinfo", 0):find(own, 1, true) then
        local state, began = read_from(dir .. "/stat", 0):match("^.*%) (%a)" .. (" %-?%d+"):rep(18) .. " (%d+)")
        if state and state ~= "Z" then
          found[pid .. " of " .. began] = cmdline
        end
      end
    end
  end
  return found
end

--- Ends it, and what it left running all the same, and removes everything.
function M:remove()
  self:kill("TERM")
  for process in pairs(self:processes()) do
    posix.kill(math.tointeger(process:match("^%d+")), "KILL")
  end
  os.execute("rm -rf " .. self.dir)
end

return M
