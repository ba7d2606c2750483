--- Processes of the host that the server starts: bubblewrap and helpers. None is trusted to be quick.
local async = require "lbox.async"
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"

local M = {}

local OUTPUT_MAX = 64 * 1024
local CHUNK = 16 * 1024
-- A process that was killed has ended by then, unless the disk keeps it.
local END_TIMEOUT_MS = 2000

---@class lbox.server.Child
---@field pid integer
---@field status { exit_code: integer|nil, signal: integer|nil, cpu_ns: integer,
---  memory_peak_bytes: integer }|nil  once it has ended
local Process = {}
Process.__index = Process

local function ended(process, status)
  process.status = status
  async.source(process.watch:id(), nil)
  process.watch:close()
  posix.close(process.pidfd)
  for _, fn in ipairs(process.on_end) do
    fn(status)
  end
end

--- Starts a program; `spec` is that of posix.spawn. Raises an error of kind `local` when it cannot.
---@return lbox.server.Child
function M.spawn(spec)
  local pid, pidfd, name = posix.spawn(spec)
  if not pid then
    errors.raise("local", ("cannot start %s: %s"):format(spec.argv[1], pidfd), { errno = name })
  end
  local process = setmetatable({ pid = pid, pidfd = pidfd, on_end = {} }, Process)
  process.watch = async.engine():watch(pidfd)
  async.source(process.watch:id(), function()
    local status = posix.waitid(pidfd)
    if status then
      ended(process, status)
    else
      process.watch:arm("r")
    end
  end)
  process.watch:arm("r")
  return process
end

--- Calls `fn(status)` when it has ended.
function Process:on_exit(fn)
  if self.status then
    fn(self.status)
  else
    self.on_end[#self.on_end + 1] = fn
  end
end

--- Waits for its end.
function Process:wait()
  if not self.status then
    local op = async.op()
    self:on_exit(function() op:resolve() end)
    async.wait(op)
  end
  return self.status
end

--- Kills it, unless it has ended.
function Process:kill()
  if not self.status then
    posix.kill(self.pid, "KILL")
  end
end

--- Reads what comes from a descriptor until its end, at most `max` bytes. The descriptor stays open.
---@return string
function M.collect(fd, max)
  local watched = async.fd(fd)
  local parts, size = {}, 0
  local ok, err = pcall(function()
    while size < max do
      watched:wait("r")
      local bytes = posix.read(fd, math.min(CHUNK, max - size))
      if not bytes or bytes == "" then
        return
      end
      parts[#parts + 1] = bytes
      size = size + #bytes
    end
  end)
  watched:close()
  if not ok then
    error(err, 0)
  end
  return table.concat(parts)
end

--- Runs a program to its end and returns how it ended and what it wrote (stdout and stderr, at most
--- 64 KiB). `spec` is that of posix.spawn with `timeout` in ms besides; a program that takes longer is
--- killed and an error of kind `timeout` raised. It does not outlive the server.
---@return table status, string output
function M.run(spec)
  local out_r, out_w = posix.pipe()
  local null = posix.open("/dev/null", "rw")
  if not (out_r and null) then
    errors.raise("local", "no descriptors left to start " .. spec.argv[1])
  end
  spec.fds, spec.dies_with_us = spec.fds or {}, true
  spec.fds[0], spec.fds[1], spec.fds[2] = null, out_w, out_w
  local started, process = pcall(M.spawn, spec)
  posix.close(out_w)
  posix.close(null)
  local ok, status, output = started, process, nil
  if started then
    ok, status, output = pcall(async.timeout, spec.timeout, function()
      local text = M.collect(out_r, OUTPUT_MAX)
      return process:wait(), text
    end)
    process:kill()
    if not ok then
      pcall(async.shield, function() process:wait() end, END_TIMEOUT_MS)
    end
  end
  posix.close(out_r)
  if not ok then
    error(status, 0)
  end
  return status, output
end

return M
