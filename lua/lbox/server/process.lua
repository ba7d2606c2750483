--- A command in a box: its output as it comes and its end. It ends when its main process does; what it
--- left in the background keeps the pipes open and runs on.
local async = require "lbox.async"
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"

local M = {}

local PIECE = 64 * 1024
local STATUS_SIZE = 24
local EXITED, SIGNALED, FAILED, NO_CWD = 0, 1, 2, 3
local KILLED = 137

---@class lbox.server.Process
---@field keeper integer  its keeper's pid in the box
---@field result { exit_code: integer, cpu_ns: integer, memory_peak_bytes: integer }|nil
local Process = {}
Process.__index = Process

local function request(command)
  local parts = { string.pack("=s4I4", command.cwd, #command.argv) }
  for _, word in ipairs(command.argv) do
    parts[#parts + 1] = string.pack("=s4", word)
  end
  parts[#parts + 1] = string.pack("=I4", #command.env)
  for _, word in ipairs(command.env) do
    parts[#parts + 1] = string.pack("=s4", word)
  end
  return table.concat(parts)
end

local function check_words(words)
  for _, word in ipairs(words) do
    if word:find("\0", 1, true) then
      errors.raise("local", "a command must not contain a NUL byte", { errno = "EINVAL" })
    end
  end
end

--- Starts a command in `sandbox`.
---@param command { argv: string[], cwd: string, env: string[], merge: boolean|nil }
---@return lbox.server.Process
function M.start(sandbox, op, command)
  check_words(command.argv)
  check_words(command.env)
  check_words { command.cwd }
  local payload = posix.memfd(request(command))
  local null = posix.open("/dev/null", "read")
  local out_read, out_write = posix.pipe()
  local err_read, err_write
  if not command.merge then
    err_read, err_write = posix.pipe()
  end
  local status_read, status_write = posix.pipe()
  local ok, answer = pcall(sandbox.ask, sandbox, op, "",
    { payload, null, out_write, err_write or out_write, status_write })
  for _, fd in ipairs { payload, null, out_write, status_write } do
    posix.close(fd)
  end
  if err_write then
    posix.close(err_write)
  end
  if not ok then
    for _, fd in ipairs { out_read, status_read } do
      posix.close(fd)
    end
    if err_read then
      posix.close(err_read)
    end
    error(answer, 0)
  end
  local self = setmetatable({
    sandbox = sandbox,
    keeper = string.unpack("=i4", answer.fields),
    pipes = {},
    command = command,
  }, Process)
  for name, fd in pairs { stdout = out_read, stderr = err_read, status = status_read } do
    posix.set_nonblock(fd)
    self.pipes[name] = { fd = fd, watch = async.fd(fd) }
  end
  sandbox.processes[self] = true
  return self
end

local function close_pipe(self, name)
  local pipe = self.pipes[name]
  if pipe then
    self.pipes[name] = nil
    pipe.watch:close()
    posix.close(pipe.fd)
  end
end

--- Lets go of everything. Called at the end of every use.
function Process:close()
  for _, name in ipairs { "stdout", "stderr", "status" } do
    close_pipe(self, name)
  end
  self.sandbox.processes[self] = nil
end

local function take_status(self, bytes)
  if #bytes < STATUS_SIZE then
    self.result = { exit_code = KILLED, cpu_ns = 0, memory_peak_bytes = 0 }
    return
  end
  local kind, value, cpu_ns, memory = string.unpack("=I4i4I8I8", bytes)
  local result = { cpu_ns = cpu_ns, memory_peak_bytes = memory }
  if kind == EXITED then
    result.exit_code = value & 0xff
  elseif kind == SIGNALED then
    result.exit_code = 128 + (value & 0x7f)
  elseif kind == FAILED or kind == NO_CWD then
    result.not_started = kind == FAILED and "program" or "directory"
    result.exit_code = value == 2 and 127 or 126
    result.errno = value
  else
    result.exit_code = KILLED
  end
  self.result = result
end

--- What is in a pipe now: bytes, nil when there is nothing, false when it is over.
local function take(pipe)
  local bytes, _, errno = posix.read(pipe.fd, PIECE)
  if bytes == "" then
    return false
  elseif bytes then
    return bytes
  end
  return errno == "EAGAIN" and nil
end

--- Waits until one of the pipes has something.
local function wait_any(self)
  local op = async.op()
  for _, pipe in pairs(self.pipes) do
    async.source(pipe.watch.id, function() op:resolve() end)
    pipe.watch.watch:arm("r")
  end
  self.waiting = op
  local ok, err = pcall(async.wait, op)
  self.waiting = nil
  for _, pipe in pairs(self.pipes) do
    async.source(pipe.watch.id, nil)
  end
  if not ok then
    error(err, 0)
  end
end

--- The next piece of output: "stdout" or "stderr" and bytes. nil at the end: the main process is gone
--- and what it had written is delivered; `result` says how it went.
function Process:read()
  while true do
    for _, name in ipairs { "stdout", "stderr" } do
      local pipe = self.pipes[name]
      local bytes = pipe and take(pipe)
      if bytes then
        return name, bytes
      elseif bytes == false then
        close_pipe(self, name)
      end
    end
    if self.result then
      self:close()
      return nil
    end
    local status = self.pipes.status
    local bytes = status and take(status)
    if bytes or bytes == false or not status then
      take_status(self, bytes or "")
      close_pipe(self, "status") -- once more around: what was written before the end is in the pipes
    else
      wait_any(self)
    end
  end
end

--- The box ended under the command.
function Process:box_ended()
  self.result = self.result or { exit_code = KILLED, cpu_ns = 0, memory_peak_bytes = 0, stopped = true }
  if self.waiting then
    self.waiting:resolve()
  end
end

--- Kills the command and everything it started, in the background or not.
function Process:kill()
  self.sandbox:kill(self.keeper)
end

return M
