--- A command that one can talk to while it runs, over a WebSocket (box-api.md §2.3): its input, its output, its
--- terminal.
local async = require "lbox.async"
local core = require "lbox.core"
local errors = require "lbox.errors"
local failure = require "lbox.failure"
local json = require "lbox.json"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local runs = require "lbox.run"

local M = {}

-- A frame holds this much input at the most.
local PIECE = 48 * 1024
-- A writer waits while more than this is unsent.
local HIGH_WATER = 256 * 1024
-- Output that waits for its reader; whoever waits for the end then waits for him.
local MAX_QUEUED = 1024 * 1024

-- What a piece of it costs beside its bytes.
local ITEM = 64

local SIGNALS = { "TERM", "KILL", "INT", "HUP", "TSTP", "QUIT", "USR1", "USR2" }
local SOURCES = { stdout = true, stderr = true }

---@class lbox.Session
---@field pid integer            of the command, in the box
---@field exec_id string
---@field exit_code integer|nil  nil while it runs
---@field _req table|nil         the core's request; nil once the session is over
---@field _transfer lbox.Transfer
---@field _error lbox.Error|nil  what ended it other than the command's end
---@field _waiting lbox.async.Op[]  hear of the next news
---@field _idle number           ms of silence allowed, 0: any
---@field _queue { first: integer, last: integer, [integer]: table }  output that was read and not taken
---@field _queued integer        bytes in it
---@field _taker boolean         somebody goes through the output
---@field _taken_by lbox.async.Task|false  and who that is
---@field _secrets string[]
---@field _writing boolean       a writer reads while it waits; who takes the output may come yet
---@field _reading boolean
local methods = {}

local function clear_queue(self)
  self._queue, self._queued = { first = 1, last = 0 }, 0
end

-- ------------------------------------------------------------------------------------- ending

--- Something happened: whoever waits looks again.
local function wake(self)
  local waiting = self._waiting
  self._waiting = {}
  for _, op in ipairs(waiting) do
    op:resolve(true)
  end
end

--- The connection is let go of.
local function finish(self)
  if not self._req then
    return
  end
  self._req = nil
  self._link.streams[self] = nil
  async.source(self._transfer.id, nil)
  self._closer:remove()
  self._transfer:close()
  wake(self)
end

--- Ends the session with an error, which every later wait raises.
local function fail(self, kind, message)
  self._error = self._error or errors.new(kind, failure.said(message, self._secrets), { box_id = self._link.id })
  finish(self)
end

--- Waits for news; false at the absolute time `limit`. A session that is silent for too long is over.
local function wait_news(self, limit)
  local op = async.op()
  self._waiting[#self._waiting + 1] = op
  local silence = self._idle > 0 and async.now() + self._idle or nil
  local at = silence and (not limit or silence < limit) and silence or limit
  local timer = at and async.at(at, function() op:resolve(false) end)
  local ok, in_time = pcall(async.wait, op)
  if timer then
    timer:cancel()
  end
  if not ok then
    error(in_time, 0)
  elseif not in_time and at == silence and self._req then
    fail(self, "timeout", ("the session was silent for %.14g ms"):format(self._idle))
  end
  return in_time or at == silence
end

-- ------------------------------------------------------------------------------------ reading

--- The next frame that is here: a table with a `type`, nil when there is none; or the connection is over.
local function next_frame(self)
  while self._req do
    local kind, bytes = self._req:next()
    if kind == "message" then
      local frame = json.decode(bytes)
      if type(frame) == "table" and type(frame.type) == "string" then
        return frame
      end
    elseif kind == "broken" then
      fail(self, "stream", "the server broke the rules of WebSocket before the command ended")
    elseif kind == "close" or self._req:done() then
      fail(self, "stream", "the connection ended before the command did")
    else
      return nil
    end
  end
end

local function message_of(frame)
  local text = type(frame.message) == "string" and frame.message or ""
  return text ~= "" and text or "the session failed and the server did not say why"
end

local function take_output(self, source, frame)
  local data = type(frame.data) == "string" and core.base64_decode(frame.data)
  if not data then
    fail(self, "stream", ("the server sent %s that is not base64"):format(source))
    return
  end
  local callback = self._callbacks[source]
  if callback then
    local ok, err = pcall(callback, data)
    if not ok then
      self._error = err == nil and errors.new("usage", ("the callback for %s raised nil"):format(source)) or err
      finish(self)
    end
  elseif self._taker or self._writing then
    local queue = self._queue
    queue.last = queue.last + 1
    queue[queue.last] = { source, data }
    self._queued = self._queued + #data + ITEM
  end
end

--- Takes a frame of a session that runs.
local function take(self, frame)
  if SOURCES[frame.type] then
    take_output(self, frame.type, frame)
  elseif frame.type == "exit" then
    if runs.is_exit_code(frame.code) then
      self.exit_code = frame.code
      finish(self)
    else
      fail(self, "stream", "the command ended, and the server did not say with what exit code")
    end
  elseif frame.type == "error" then
    fail(self, "run", message_of(frame))
  end
end

--- Reads what is here, or waits for news. One reads at a time; the others wait for what he leaves. Returns false at
--- the limit.
local function read_on(self, limit)
  if self._reading then
    return wait_news(self, limit)
  end
  self._reading = true
  local ok, in_time = pcall(function()
    async.checkpoint()
    local frame = next_frame(self)
    if frame then
      take(self, frame)
      return true
    end
    return not self._req or wait_news(self, limit)
  end)
  self._reading = false
  wake(self)
  if not ok then
    error(in_time, 0)
  end
  return in_time
end

--- The command's exit code. Waits for its end; output nobody asked for is dropped. Raises `timeout` after `timeout`
--- ms, `stream` when the session ended before the command did, `run` when the server reports an error.
---@param timeout number|nil  ms, nil and 0: no limit
---@return integer
function methods:wait(timeout)
  if timeout ~= nil then
    options.ms(timeout, "timeout")
  end
  local limit = timeout and timeout > 0 and async.now() + timeout or nil
  if self._taker and self._taken_by == (async.current() or false) then
    self._taker = false -- the loop over the output was left: who waits cannot take it
  end
  if not self._taker then
    clear_queue(self)
  end
  while self._req do
    local in_time
    if limit and async.now() >= limit then
      in_time = false
    elseif self._queued > MAX_QUEUED then
      in_time = wait_news(self, limit)
    else
      in_time = read_on(self, limit)
    end
    if not in_time and self._req then
      errors.raise("timeout", ("the command did not end within %.14g ms"):format(timeout),
        { box_id = self._link.id, retryable = true })
    end
  end
  if self.exit_code == nil then
    error(self._error, 0)
  end
  return self.exit_code
end

--- The next output: its source and bytes; nil at the end.
local function next_output(self)
  while true do
    local queue = self._queue
    local item = queue[queue.first]
    if item then
      queue[queue.first], queue.first = nil, queue.first + 1
      self._queued = self._queued - #item[2] - ITEM
      wake(self)
      return item[1], item[2]
    elseif not self._req then
      self._taker = false
      if self.exit_code == nil then
        error(self._error, 0)
      end
      return nil
    end
    read_on(self)
  end
end

-- Closes the loop over the output on Lua 5.4.
local Taker = {}

function Taker.__close(taker)
  local self = taker.session
  self._taker = false
  clear_queue(self)
  wake(self)
end

--- What the command says, for `for source, data in session:output() do`: "stdout" or "stderr" and bytes as they come,
--- until it has ended. With a terminal everything is stdout. Raises what `wait` would. What has a callback does not
--- come here.
---@return fun(): string|nil, string|nil
function methods:output()
  self._taker, self._taken_by = true, async.current() or false
  return next_output, self, nil, setmetatable({ session = self }, Taker)
end

-- ------------------------------------------------------------------------------------ writing

--- Waits until less is unsent. A command that answers is read meanwhile, or it would not read on.
local function wait_for_room(self)
  if self._reading or self._queued > MAX_QUEUED then
    wait_news(self)
    return
  end
  self._writing = true
  local ok, err = pcall(read_on, self)
  self._writing = false
  if not ok then
    error(err, 0)
  end
end

--- Sends a frame. False when the session is over; waits while much is unsent.
local function send(self, frame)
  local text = json.encode(frame)
  while self._req and not self._req:done() do
    if self._req:unsent() <= HIGH_WATER and self._req:send(text) then
      return true
    end
    wait_for_room(self)
  end
  return false
end

--- Writes to the command's input. Waits while much is unsent; what the command says meanwhile is kept for `output`, up
--- to 1 MiB: one that answers more to what it is told needs a task that reads beside the one that writes. False when
--- the command has ended.
---@param bytes string
---@return boolean
function methods:write(bytes)
  if type(bytes) ~= "string" then
    errors.raise("usage", "session:write takes a string, got " .. type(bytes))
  end
  for at = 1, #bytes, PIECE do
    if not send(self, { type = "stdin", data = core.base64_encode(bytes:sub(at, at + PIECE - 1)) }) then
      return false
    end
  end
  return self._req ~= nil
end

--- Ends the command's input.
---@return boolean  false when the command has ended
function methods:end_stdin()
  return send(self, { type = "stdin_close" })
end

local function check_size(value, what)
  if type(value) ~= "number" or value % 1 ~= 0 or value < 1 or value > 65535 then
    errors.raise("usage", ("%s must be a whole number from 1 to 65535, got %s"):format(what, options.shown(value)))
  end
end

--- Tells the command's terminal its size.
---@param rows integer
---@param cols integer
---@return boolean  false when the command has ended
function methods:resize(rows, cols)
  check_size(rows, "rows")
  check_size(cols, "cols")
  return send(self, { type = "resize", rows = rows, cols = cols })
end

--- Sends a signal to the command and all it started.
---@param signal string|nil  "TERM" when nil; "SIG" before it may be there
---@return boolean  false when the command has ended
function methods:kill(signal)
  if signal ~= nil and type(signal) ~= "string" then
    errors.raise("usage", "the signal must be a string, got " .. type(signal))
  end
  local name = (signal or "TERM"):match("^%s*(.-)%s*$"):upper():gsub("^SIG", "")
  for _, known in ipairs(SIGNALS) do
    if name == known then
      return send(self, { type = "signal", signal = name })
    end
  end
  local near = errors.nearest(name, SIGNALS)
  errors.raise("usage", ("signal %q cannot be sent%s: %s"):format(signal, near and (" (did you mean %q?)"):format(near)
    or "", "it must be one of " .. table.concat(SIGNALS, " ")))
end

--- Asks the command to end, and kills it when it has not after `grace_ms`.
---@param grace_ms number|nil  nil: the server's
---@return boolean  false when the command has ended
function methods:terminate(grace_ms)
  if grace_ms ~= nil then
    options.ms(grace_ms, "grace_ms")
  end
  return send(self, { type = "terminate", graceMs = grace_ms and grace_ms > 0 and grace_ms or nil })
end

--- Hangs up: the server kills what still runs.
function methods:close()
  if self._req then
    self._req:hang_up()
    fail(self, "stream", "the session was closed before its command ended")
  end
end

local metatable = namespace.metatable("session", methods)

function metatable.__close(self)
  self:close()
end

function metatable.__tostring(self)
  return ("lbox.Session (%s)"):format(self.exec_id or "not started")
end

-- ------------------------------------------------------------------------------------ opening

--- Waits until the command runs.
local function start(self, deadline)
  while true do
    local frame = next_frame(self)
    async.checkpoint()
    if self._req and deadline.at and async.now() >= deadline.at then
      fail(self, "timeout", ("the session did not start within %.14g ms"):format(deadline.ms))
    elseif frame and frame.type == "started" then
      if type(frame.pid) ~= "number" or frame.pid % 1 ~= 0 or frame.pid < 1 then
        fail(self, "stream", "the session was started without a usable pid")
        error(self._error, 0)
      end
      self.pid, self.exec_id = frame.pid, type(frame.execId) == "string" and frame.execId or ""
      return
    elseif frame and frame.type == "error" then
      fail(self, "run", message_of(frame))
    elseif frame and frame.type == "exit" then
      fail(self, "stream", "the command ended before the server said that it had started")
    elseif not frame and self._req then
      wait_news(self, deadline.at)
    end
    if not self._req then
      error(self._error, 0)
    end
  end
end

--- The scope that opened the session is left: it is hung up. The scope holds the session weakly.
local function tie_to_scope(self)
  local weak = setmetatable({ session = self }, { __mode = "v" })
  async.source(self._transfer.id, function()
    if weak.session then
      wake(weak.session)
    end
  end)
  return async.on_close(function()
    if weak.session then
      weak.session:close()
    end
  end)
end

---@class lbox.session.Options
---@field link lbox.Link
---@field spec lbox.client.Spec  of the handshake
---@field deadline lbox.Deadline  for handshake and start
---@field start table  the first frame
---@field idle_timeout number|nil  ms of silence allowed while it is waited for; nil: the client's timeout
---@field on_stdout fun(data: string)|nil
---@field on_stderr fun(data: string)|nil
---@field secrets table<any, string>|nil  what no message may show

--- Opens a session and waits until its command runs.
---@param opts lbox.session.Options
---@return lbox.Session
function M.open(opts)
  local link = opts.link
  local secrets = { link.client.settings.api_key }
  for _, value in pairs(opts.secrets or {}) do
    secrets[#secrets + 1] = value
  end
  opts.spec.deadline, opts.spec.secrets = opts.deadline, secrets
  local transfer = link:send(opts.spec)
  local self = setmetatable({
    _link = link, _transfer = transfer, _req = transfer.req, _waiting = {}, _taker = false,
    _secrets = secrets, _writing = false, _reading = false, _idle = opts.idle_timeout or link.client.settings.timeout,
    _callbacks = { stdout = opts.on_stdout, stderr = opts.on_stderr },
  }, metatable)
  clear_queue(self)
  link.streams[self] = true
  self._closer = tie_to_scope(self)
  self._req:send(json.encode(opts.start))
  local ok, err = pcall(start, self, opts.deadline)
  if not ok then
    finish(self)
    error(err, 0)
  end
  return self
end

return M
