--- A command in a box: its output as it comes and its end. It ends when its main process does; what it
--- left in the background keeps the pipes open and runs on.
local async = require "lbox.async"
local errors = require "lbox.errors"
local init_link = require "lbox.server.init_link"
local posix = require "lbox.server.posix"

local M = {}

local PIECE = 64 * 1024
local STATUS_FORMAT, STATUS_SIZE = "=I4i4I8I8", 24
local STARTED, EXITED, SIGNALED, FAILED, NO_CWD = 0, 1, 2, 3, 4
local KILLED = 137
local ENOENT = 2
local SIGNALS = { HUP = 1, INT = 2, QUIT = 3, KILL = 9, USR1 = 10, USR2 = 12, TERM = 15, TSTP = 20 }
-- A keeper that has not ended its command after this long was stopped by it.
local FORCE_AFTER_MS = 2000
-- More than a terminal holds of what was written to it.
local TTY_BUFFER = 256 * 1024
local CTRL_D = "\4"

---@class lbox.server.Process
---@field pid integer|nil  of the main process, in the box, once it runs
---@field ended lbox.async.Op  resolved when that is gone
---@field result { exit_code: integer, cpu_ns: integer, memory_peak_bytes: integer,
---  not_started: "program"|"directory"|nil, errno: integer|nil, stopped: boolean|nil }|nil
local Process = {}
Process.__index = Process

local function check_words(words)
  for _, word in ipairs(words) do
    if word:find("\0", 1, true) then
      errors.raise("local", "a command must not contain a NUL byte", { errno = "EINVAL" })
    end
  end
end

--- What lbox-init is to start, as it reads it.
local function encode(command)
  check_words(command.argv)
  check_words(command.env)
  check_words { command.cwd }
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

-- ---------------------------------------------------------------------------------------- start

--- Descriptors made one after another, so that all can be closed when one cannot be made.
local Fds = {}
Fds.__index = Fds

function Fds:add(fd, why, errno)
  if not fd then
    errors.raise("local", "no descriptors left for a command: " .. tostring(why), { errno = errno })
  end
  self[#self + 1] = fd
  return fd
end

function Fds:pipe()
  local from, to, errno = posix.pipe()
  self:add(from, to, errno)
  return from, self:add(to)
end

function Fds:close(keep)
  for _, fd in ipairs(self) do
    if not (keep and keep[fd]) then
      posix.close(fd)
    end
  end
end

local event

local function open_pipe(self, name, fd)
  posix.set_nonblock(fd)
  local pipe = { fd = fd, watch = async.engine():watch(fd), is_tty = self.tty ~= nil and name == "stdout" }
  async.source(pipe.watch:id(), function() event(self, name) end)
  self.pipes[name] = pipe
  return pipe
end

local function wake_writer(self)
  local op = self.writing
  if op then
    self.writing = nil
    op:resolve()
  end
end

local function close_pipe(self, name, keep_fd)
  local pipe = self.pipes[name]
  if pipe then
    self.pipes[name] = nil
    async.source(pipe.watch:id(), nil)
    pipe.watch:close()
    if not keep_fd then
      posix.close(pipe.fd)
    end
    if name == "stdin" then
      wake_writer(self)
    end
  end
end

--- Watches the pipes of a command that has begun, or ends it.
local function watch_pipes(self, fds)
  for name, fd in pairs(fds) do
    local ok, err = pcall(open_pipe, self, name, fd)
    if not ok then
      self.sandbox.link:tell(init_link.KILL, string.pack("=I4I4I4", self.keeper, SIGNALS.KILL, 0))
      for other, pipe_fd in pairs(fds) do
        if self.pipes[other] then
          close_pipe(self, other)
        else
          posix.close(pipe_fd)
        end
      end
      errors.raise("local", "the output of the command cannot be watched: " .. tostring(err))
    end
  end
end

--- The standard descriptors of a command, and our ends of them by name.
local function pipes_of(command, fds)
  local theirs, ours = {}, {}
  if command.stdin == true then
    theirs[1], ours.stdin = fds:pipe()
  else
    theirs[1] = fds:add(command.stdin and posix.memfd(command.stdin) or posix.open("/dev/null", "read"))
  end
  ours.stdout, theirs[2] = fds:pipe()
  theirs[3] = theirs[2]
  if not command.merge then
    ours.stderr, theirs[3] = fds:pipe()
  end
  return theirs, ours
end

--- The same of one that has a terminal, which is the box's own.
local function terminal_of(sandbox, tty, fds)
  local code, master = sandbox.link:ask(init_link.TERMINAL, string.pack("=I4I4", tty.rows, tty.columns))
  if code ~= 0 then
    local why, name = posix.strerror(code)
    errors.raise("local", "there is no terminal for the command: " .. why, { errno = name })
  end
  fds:add(master)
  local peer = fds:add(posix.tty_peer(master))
  return { peer, peer, peer }, { stdout = master, stdin = fds:add(posix.dup(master)) }
end

local function spawn(sandbox, command, fds)
  local payload = fds:add(posix.memfd(encode(command)))
  local theirs, ours
  if command.tty then
    theirs, ours = terminal_of(sandbox, command.tty, fds)
  else
    theirs, ours = pipes_of(command, fds)
  end
  local status
  ours.status, status = fds:pipe()
  local code, _, keeper = sandbox.link:ask(init_link.SPAWN, "", { payload, theirs[1], theirs[2], theirs[3], status })
  if code ~= 0 then
    local why, name = posix.strerror(code)
    if name == "EAGAIN" then
      why = "the box has as many processes as it may have; a pause ends them"
    end
    errors.raise("local", "the command cannot be started: " .. why, { errno = name })
  end
  return keeper, ours
end

--- Starts a command in `sandbox`. Whether it could be started shows at its end, in `result`.
---@param command { argv: string[], cwd: string, env: string[], merge: boolean|nil, stdin: string|true|nil,
---  tty: { rows: integer, columns: integer }|nil }  stdin: all of it, or true for what `write` is given; with a tty it
---  and the output are that
---@return lbox.server.Process
function M.start(sandbox, command)
  local fds = setmetatable({}, Fds)
  local ok, keeper, ours = pcall(spawn, sandbox, command, fds)
  if not ok then
    fds:close()
    error(keeper, 0)
  end
  local kept = {}
  for _, fd in pairs(ours) do
    kept[fd] = true
  end
  fds:close(kept)
  local self = setmetatable({
    sandbox = sandbox, keeper = keeper, program = command.argv[1], cwd = command.cwd, pipes = {}, status = "",
    tty = command.tty, ended = async.op(),
  }, Process)
  watch_pipes(self, ours)
  self.pipes.status.watch:arm("r")
  sandbox.processes[self] = true
  return self
end

-- ------------------------------------------------------------------------------------ the pipes

local function wake(self)
  local op = self.waiting
  if op then
    self.waiting = nil
    op:resolve()
  end
end

--- The main process is gone. What it wrote is in the pipes: that much is delivered, and no more.
local function finish(self, result)
  if self.result then
    return
  end
  -- Also when its keeper was quicker than the end of the box, or went first.
  result.stopped = result.stopped or (result.exit_code == KILLED and self.sandbox.closed) or nil
  self.result = result
  self.ended:resolve()
  close_pipe(self, "status")
  close_pipe(self, "stdin")
  if self.force then
    self.force:cancel()
  end
  if self.closed then
    self.sandbox.processes[self] = nil
  end
  for _, name in ipairs { "stdout", "stderr" } do
    local pipe = self.pipes[name]
    if pipe then
      pipe.left = pipe.is_tty and TTY_BUFFER or posix.available(pipe.fd) or 0
    end
  end
  wake(self)
end

local function take_record(self, bytes)
  local kind, value, cpu_ns, memory = string.unpack(STATUS_FORMAT, bytes)
  local result = { cpu_ns = cpu_ns, memory_peak_bytes = memory }
  if kind == STARTED then
    self.pid = value
    return wake(self)
  elseif kind == EXITED then
    result.exit_code = value & 0xff
  elseif kind == SIGNALED then
    result.exit_code = 128 + (value & 0x7f)
  elseif kind == FAILED or kind == NO_CWD then
    result.not_started = kind == FAILED and "program" or "directory"
    result.exit_code = value == ENOENT and 127 or 126
    result.errno = value
  else
    result.exit_code = KILLED
  end
  finish(self, result)
end

local function take_status(self)
  local pipe = self.pipes.status
  local bytes, _, name = posix.read(pipe.fd, 4 * STATUS_SIZE)
  if bytes == "" or (not bytes and name ~= "EAGAIN") then
    -- The keeper was killed, by the box's own programs or with the box.
    return finish(self, { exit_code = KILLED, cpu_ns = 0, memory_peak_bytes = 0 })
  end
  self.status = self.status .. (bytes or "")
  while #self.status >= STATUS_SIZE and not self.result do
    local record = self.status:sub(1, STATUS_SIZE)
    self.status = self.status:sub(STATUS_SIZE + 1)
    take_record(self, record)
  end
  if not self.result then
    pipe.watch:arm("r")
  end
end

function event(self, name)
  if name == "status" then
    take_status(self)
  elseif name == "stdin" then
    wake_writer(self)
  else
    wake(self)
  end
end

--- What is left in the pipe belongs to nobody: programs in the background may go on writing to it, so
--- lbox-init reads it on and throws it away.
local function let_go(self, name)
  local pipe = self.pipes[name]
  local bytes, _, why = posix.read(pipe.fd, 1)
  local is_over = bytes == "" or (not bytes and why ~= "EAGAIN")
  if is_over or pipe.is_tty or self.sandbox.closed then -- a terminal hangs up on them
    return close_pipe(self, name)
  end
  local link = self.sandbox.link
  close_pipe(self, name, true)
  link:tell(init_link.DISCARD, "", { pipe.fd })
end

--- What is in a pipe now: bytes, nil when there is nothing, false when it is over.
local function take(pipe)
  if pipe.left == 0 then
    return false
  end
  local bytes, _, name = posix.read(pipe.fd, math.min(PIECE, pipe.left or PIECE))
  if bytes and bytes ~= "" then
    pipe.left = pipe.left and pipe.left - #bytes
    return bytes
  elseif not bytes and name == "EAGAIN" and not pipe.left then
    return nil
  end
  return false
end

--- The next piece of output: "stdout" or "stderr" and bytes. nil at the end: the main process is gone
--- and what it had written is delivered; `result` says how it went. Others get their turn, however fast
--- the command writes.
function Process:read()
  async.checkpoint()
  while true do
    for _, name in ipairs { "stdout", "stderr" } do
      local pipe = self.pipes[name]
      local bytes = pipe and take(pipe)
      if bytes then
        return name, bytes
      elseif bytes == false then
        let_go(self, name)
      end
    end
    if self.result and not (self.pipes.stdout or self.pipes.stderr) then
      self.sandbox.processes[self] = nil
      return nil
    end
    if not self.result then
      self:wait_event()
    end
  end
end

--- Waits until the command runs, or has ended without.
function Process:wait_started()
  while not self.pid and not self.result do
    local op = async.op()
    self.waiting = op
    async.wait(op)
  end
end

--- Waits until a pipe has something or the command ended.
function Process:wait_event()
  local op = async.op()
  self.waiting = op
  for _, name in ipairs { "stdout", "stderr" } do
    local pipe = self.pipes[name]
    if pipe then
      pipe.watch:arm("r")
    end
  end
  async.wait(op)
end

--- Reads to the end: what was written to stdout and to stderr. nil, and the command goes on, when one of
--- them is more than `max` bytes.
---@param max integer
---@return { stdout: string, stderr: string }|nil
function Process:collect(max)
  local parts, sizes = { stdout = {}, stderr = {} }, { stdout = 0, stderr = 0 }
  for name, bytes in self.read, self do
    parts[name][#parts[name] + 1] = bytes
    sizes[name] = sizes[name] + #bytes
    if sizes[name] > max then
      return nil
    end
  end
  return { stdout = table.concat(parts.stdout), stderr = table.concat(parts.stderr) }
end

--- Reads to the end, drops the output and returns the result.
function Process:wait()
  repeat
    local piece = self:read()
  until not piece
  return self.result
end

-- ------------------------------------------------------------------------------------- its input

--- Waits until stdin takes bytes, or is gone.
local function wait_for_room(self, pipe)
  local op = async.op()
  self.writing = op
  pipe.watch:arm("w")
  async.wait(op)
end

--- Writes to stdin, and waits while the command does not read it. Nobody may be there to read any more: then it is
--- dropped.
---@param bytes string
function Process:write(bytes)
  local at = 1
  while at <= #bytes do
    local pipe = self.pipes.stdin
    if not pipe then
      return
    end
    local n, _, name = posix.write(pipe.fd, bytes, at)
    if n then
      at = at + n
    elseif name == "EAGAIN" then
      wait_for_room(self, pipe)
    else
      return close_pipe(self, "stdin")
    end
  end
end

--- Ends stdin; of a terminal, as its user does.
function Process:close_stdin()
  if self.tty then
    self:write(CTRL_D)
  else
    close_pipe(self, "stdin")
  end
end

--- Changes the size of its terminal.
---@param rows integer
---@param columns integer
function Process:resize(rows, columns)
  local pipe = self.pipes.stdout
  if self.tty and pipe then
    posix.tty_resize(pipe.fd, rows, columns)
  end
end

-- -------------------------------------------------------------------------------------- its end

--- Why a command that was not started (`result.not_started`) was not, as a shell says it.
---@return string
function Process:refusal()
  local result = self.result
  local why = posix.strerror(result.errno)
  if result.not_started == "directory" then
    return ("folder %q: %s"):format(self.cwd, result.errno == ENOENT and "no such directory" or why)
  end
  local searched = result.errno == ENOENT and not self.program:find("/", 1, true)
  return ("%s: %s"):format(self.program, searched and "command not found" or why)
end

--- The box ended under the command.
function Process:box_ended()
  finish(self, { exit_code = KILLED, cpu_ns = 0, memory_peak_bytes = 0, stopped = true })
end

--- Sends a signal (KILL) to the command and everything it started, in the background or not, double
--- forked or in sessions of their own. Does not wait.
---@param signal string|nil  a name without SIG
function Process:kill(signal)
  local number = SIGNALS[signal or "KILL"]
  if not number then
    errors.raise("usage", ("no signal %q"):format(signal))
  elseif self.result then
    return
  end
  local link, keeper = self.sandbox.link, self.keeper
  link:tell(init_link.KILL, string.pack("=I4I4I4", keeper, number, 0))
  if number == SIGNALS.KILL and not self.force then
    self.force = async.at(async.now() + FORCE_AFTER_MS, function()
      link:tell(init_link.KILL, string.pack("=I4I4I4", keeper, number, 1))
    end)
  end
end

--- Sends a signal like `kill`, and waits until lbox-init has: who sends one after the other is held up.
---@param signal string  a name without SIG
function Process:signal(signal)
  if signal == "KILL" then
    if not self.force then
      self:kill()
    end
  elseif not self.result then
    self.sandbox.link:ask(init_link.KILL, string.pack("=I4I4I4", self.keeper, SIGNALS[signal], 0))
  end
end

--- Lets go of everything; the command, if it still runs, runs on. Idempotent.
function Process:close()
  self.closed = true
  close_pipe(self, "stdin")
  close_pipe(self, "stdout")
  close_pipe(self, "stderr")
  if self.result or not self.force then
    close_pipe(self, "status")
    self.sandbox.processes[self] = nil
  end
end

return M
