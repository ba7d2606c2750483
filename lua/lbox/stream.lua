--- A run that can be read while it goes on. What is here for agents and commands alike: reading,
--- time, ending. What the events mean is in agent_stream.lua and exec_stream.lua.
local async = require "lbox.async"
local core = require "lbox.core"
local errors = require "lbox.errors"
local namespace = require "lbox.namespace"
local runs = require "lbox.run"

local M = {}

local concat, now = table.concat, core.now

-- Chunks that are already here are handed out without a switch of tasks; every so many of them the
-- task looks whether it is cancelled or had its slice.
local CHECK_EVERY = 64

-- Pieces of text are joined every so many, so that long streams do not keep a long list.
local JOIN_EVERY = 256
-- As much text as a stream keeps for its result, give or take those pieces.
local MAX_TEXT = 64 * 1024 * 1024

-- How long a run that is over may take to close its stream.
local LINGER_MS = 2000

-- What is said of a run that cannot be cancelled.
M.UNNAMED = "a run may go on in box %s: it was cancelled before the server named it"

---@class lbox.Stream: lbox.Run
---@field truncated boolean    `result` is not all of the text: there was more than 64 MiB
---@field _req table|nil       the core's request; nil once the stream ended
---@field _read function       the request's `next`: looked up once, called for every event
---@field _transfer lbox.Transfer
---@field _translate function  these six are the kind's
---@field _at_end function
---@field _as_result function
---@field _ended function|nil
---@field _name_of function|nil
---@field _named function|nil
---@field _settling boolean|nil  the server is asked about a stream that broke off
---@field _aborted lbox.async.Task|nil  cancels the run
---@field _deadline lbox.Deadline
---@field _idle number         ms of silence allowed, 0: any
---@field _over boolean        the server said how it ended, what follows is only `stats`
---@field _error any           what reading raised; raised again
---@field _known { run_id: string|nil }  outlives the stream
---@field _joined string[]     text so far, and in _parts what came after that

---@class lbox.stream.Kind
---@field translate fun(self: lbox.Stream, event: string, data: string?, text: string?): table|nil
---  an event as the core's request:next() gives it, as a chunk
---@field at_end fun(self: lbox.Stream): table|nil  the body ended: raises, or gives a last chunk
---@field text fun(text: string): string  the text so far as a result
---@field ended fun(self: lbox.Stream)|nil  the stream ended, and has its status
---@field name_of (fun(event: string, data: string|nil): string|nil)|nil  what the server calls the run,
---  if this event tells; nil: runs of this kind have no names
---@field named fun(self: lbox.Stream, run_id: string)|nil  takes the name

-- ------------------------------------------------------------------------------------- text

--- Adds to the text of the stream.
function M.keep(self, text)
  if self.truncated then
    return
  end
  local parts = self._parts
  local n = self._part_count + 1
  self._part_count = n
  parts[n] = text
  if n >= JOIN_EVERY then
    local joined = self._joined
    local piece = concat(parts, "", 1, n)
    joined[#joined + 1] = piece
    self._part_count, self._size = 0, self._size + #piece
    if self._size > MAX_TEXT then
      self.truncated = true
    end
  end
end

--- All text so far.
function M.text(self)
  return concat(self._joined) .. concat(self._parts, "", 1, self._part_count)
end

--- Makes `text` all there is, if it says anything: what an agent gives as its output counts, not
--- what it said on the way.
function M.replace_text(self, text)
  if text and text ~= "" then
    self._joined, self._part_count, self._size, self.truncated = { text }, 0, #text, false
  end
end

-- ----------------------------------------------------------------------------------- ending

--- What the server calls the run, read from a transfer that nobody reads any more, also in a cancelled
--- scope; nil if it is not told until `limit`.
---@param transfer lbox.Transfer
---@param name_of fun(event: string, data: string|nil): string|nil
---@param limit number
---@return string|nil
local function name(transfer, name_of, limit)
  local found
  pcall(async.shield, function()
    transfer:wait(function(req)
      local event, data
      repeat
        event, data = req:next()
        found = event and name_of(event, data)
      until found or not event
      return found ~= nil or req:done()
    end)
  end, math.max(0, limit - now()))
  return found
end

--- The stream is over with this status. Its transfer is left to the caller.
local function end_reading(self, status)
  self._req = nil
  self._link.streams[self] = nil
  self._closer:remove()
  if self.status == "running" then
    self.status = status
  end
  if self.cost.compute_ms == 0 then
    self.cost.compute_ms = now() - self._started
  end
  if self._ended then
    self:_ended()
  end
end

--- Ends the transfer; the stream is over with this status.
local function finish(self, status)
  if self._req then
    end_reading(self, status)
    self._transfer:close()
  end
end
M.finish = finish

--- Ends the stream with an error, which every later read raises again.
function M.fail(self, status, kind, message, fields)
  fields = fields or {}
  fields.run_id = self._run_id
  fields.box_id = self._link.id
  fields.partial = M.text(self)
  finish(self, status)
  fields.cost = self.cost
  self._error = errors.new(kind, message, fields)
  error(self._error, 0)
end

--- Ends a transfer that nobody reads any more, and the run, whose name may still be on its way: also in a
--- cancelled scope, for CLEAN_UP_MS at most.
---@param link lbox.Link
---@param transfer lbox.Transfer
---@param name_of function|nil  nil: such runs have no names, and end with the transfer
---@param run_id string|nil
---@param cancel_run (fun(link: lbox.Link, run_id: string, ms: number): boolean)|nil  runs.abandon
---@return string|nil run_id
---@return boolean confirmed
function M.end_run(link, transfer, name_of, run_id, cancel_run)
  local give_up_at = now() + async.CLEAN_UP_MS
  if not run_id and name_of then
    run_id = name(transfer, name_of, give_up_at)
    if not run_id and (not transfer.req:done() or transfer.req:failure()) then
      async.warn(M.UNNAMED:format(link.id))
    end
  end
  transfer:close()
  if not run_id then
    return nil, false
  end
  return run_id, (cancel_run or runs.abandon)(link, run_id, math.max(0, give_up_at - now()))
end

--- The same for a stream that was ended.
local function end_run(self, cancel_run)
  local run_id, confirmed = M.end_run(self._link, self._transfer, self._name_of, self._run_id, cancel_run)
  if run_id and not self._run_id then
    self:_named(run_id)
  end
  return confirmed
end

--- Ends the stream. Returns whether the run has to be cancelled.
local function end_cancelled(self)
  if not self._req then
    return false
  elseif self._over or self.status ~= "running" then
    finish(self)
    return false
  end
  end_reading(self, "cancelled")
  return true
end

--- Ends the stream and the run: nobody waits for it any more.
local function cancel(self)
  return end_cancelled(self) and end_run(self)
end
M.cancel = cancel

--- The same; the run is cancelled beside the caller.
local function cancel_beside(self)
  if end_cancelled(self) then
    async.clean_up(function() end_run(self) end)
  end
end

--- Nobody reads the stream any more: by an error, or in a cancelled scope, the run is cancelled, else it goes
--- on without us.
---@param self lbox.Stream
---@param err any|nil
function M.leave(self, err)
  if err ~= nil or async.cancelled() then
    -- Outside of tasks nobody would wait for what runs beside.
    local stop = async.current() and cancel_beside or cancel
    stop(self)
    return
  end
  local req = self._req
  while req and not self._run_id and self._name_of do -- what is here may name the run
    local event, data = self._read(req)
    if not event then
      break
    end
    local run_id = self._name_of(event, data)
    if run_id then
      self._named(self, run_id)
    end
  end
  finish(self, "detached")
end

--- Cancels the run for somebody who does not read it, unless all of its answer is here: every later read
--- then raises `err`, which learns what is known of the run. Returns at once.
---@param self lbox.Stream
---@param err lbox.Error
function M.abort(self, err)
  self._aborted = self._aborted or async.clean_up(function()
    if self._req and not self._over and (self._settling or not self._req:done()) then
      err.run_id, err.box_id, err.partial, err.cost = self._run_id, self._link.id, M.text(self), self.cost
      self._error = err
      cancel(self)
    end
  end, self._closer.scope)
end

--- The scope that opened the stream is left: by a cancel or an error the run is cancelled, else it
--- goes on without us. The scope holds the stream weakly; of one that was collected it knows the run.
local function tie_to_scope(self)
  local weak = setmetatable({ stream = self }, { __mode = "v" })
  local link, known = self._link, self._known
  return async.on_close(function(cancelled)
    local stream = weak.stream
    if stream and cancelled then
      cancel_beside(stream)
    elseif stream then
      finish(stream, "detached")
    elseif cancelled and known.run_id then
      async.clean_up(function() runs.abandon(link, known.run_id) end)
    end
  end)
end

-- ---------------------------------------------------------------------------------- reading

--- A deadline passed: the run is cancelled, also at the server.
local function expire(self, idle)
  if self._over then
    finish(self)
    return
  end
  local message
  if idle then
    message = ("the stream was silent for %.14g ms"):format(self._idle)
  else
    message = ("the run did not end within %.14g ms"):format(self._deadline.ms)
  end
  if not self._run_id then
    message = message .. "; it may go on in the box"
  end
  if self._run_id or not self._name_of then
    cancel(self)
  else
    cancel_beside(self) -- the caller has waited long enough
  end
  M.fail(self, "cancelled", "timeout", message, { retryable = true })
end

M.expire = expire

--- Until when a read may wait (ms; nil: as long as it takes), and whether it is silence that ends then.
local function wait_limit(self)
  local at, idle = self._deadline.at, false
  local silence = self._over and LINGER_MS or self._idle
  if silence > 0 and (not at or now() + silence < at) then
    at, idle = now() + silence, true
  end
  return at, idle
end

local function begin_reading(self)
  if self._reading then
    errors.raise("usage", "the stream is being read by another task: a stream has one reader")
  end
  self._reading = true
end

--- Waits for more of the body.
local function wait_more(self)
  local at, idle = wait_limit(self)
  begin_reading(self)
  local ok, in_time = pcall(self._transfer.wait_change, self._transfer, at)
  self._reading = false
  if not ok then
    cancel(self)
    error(in_time, 0)
  elseif not in_time and self._req then
    expire(self, idle)
  end
end

--- Whether this task may go on reading what is here already.
local function check(self)
  local ok, err = pcall(async.checkpoint)
  if not ok then
    cancel(self)
    error(err, 0)
  end
end

--- What a stream gives that has ended.
local function after_end(self)
  if self._error then
    if self._aborted then
      pcall(self._aborted.await, self._aborted)
    end
    error(self._error, 0)
  end
  return nil
end

--- The next chunk, nil at the end. With `nothing`, that instead of a wait.
local function next_chunk(self, _, nothing)
  local req = self._req
  if not req then
    return after_end(self)
  end
  local read, deadline, left = self._read, self._deadline.at, self._left
  repeat
    if deadline and now() >= deadline then
      expire(self, false)
      break
    end
    local event, data, text = read(req)
    if event then
      left = left - 1
      if left == 0 then
        left = CHECK_EVERY
        check(self)
      end
      self._left = left
      local chunk = self._translate(self, event, data, text)
      if chunk then
        return chunk
      end
    elseif not req:done() then
      if nothing then
        return nothing
      end
      wait_more(self)
    elseif self._over then
      finish(self)
    else
      return self._at_end(self)
    end
  until not self._req
  return after_end(self)
end

--- The next chunk if it is here, nil at the end, `nothing` when a wait would be needed.
---@param self lbox.Stream
---@param nothing table
function M.take(self, nothing)
  return next_chunk(self, nil, nothing)
end

--- Waits until there is news of one of several streams, of each of which `take` gave nothing. A time limit of
--- one raises as a read of it would.
---@param streams lbox.Stream[]
function M.wait_any(streams)
  local op = async.op()
  local limit, expiring, by_silence
  for i, self in ipairs(streams) do
    local ok, err = pcall(begin_reading, self)
    if not ok then
      for k = 1, i - 1 do
        streams[k]._reading = false
        streams[k]._transfer:unwatch(op)
      end
      error(err, 0)
    end
    self._transfer:watch(op)
    local at, idle = wait_limit(self)
    if at and (not limit or at < limit) then
      limit, expiring, by_silence = at, self, idle
    end
  end
  local timer = limit and async.at(limit, function() op:resolve(false) end)
  local ok, in_time = pcall(async.wait, op)
  if timer then
    timer:cancel()
  end
  for _, self in ipairs(streams) do
    self._reading = false
    self._transfer:unwatch(op)
    if not ok then
      cancel_beside(self)
    end
  end
  if not ok then
    error(in_time, 0)
  elseif not in_time and expiring._req then
    expire(expiring, by_silence)
  end
end

-- ---------------------------------------------------------------------------------- methods

---@class lbox.Stream
local methods = { wait = runs.methods.wait, logs = runs.methods.logs }

--- The next chunk, nil at the end. Waits for it. Raises what ended the stream before its time, and
--- `usage` when another task is reading it.
---@return table|nil
function methods:next()
  return next_chunk(self)
end

--- `for chunk in stream:chunks() do`. Leaving the loop early closes the stream on Lua 5.4; on
--- LuaJIT call `stream:close()`.
---@return fun(): table|nil
function methods:chunks()
  return next_chunk, self, nil, self
end

--- Stops reading. A run that is not over goes on without us: status `detached`. In a cancelled scope it is
--- cancelled.
function methods:close()
  M.leave(self)
end

--- Cancels the run: an agent's at the server, a command's by closing the transfer.
---@return boolean confirmed  whether the server said so
function methods:cancel()
  if self._over then
    finish(self)
  end
  if not self._req then
    return runs.methods.cancel(self)
  end
  if self.status == "running" then
    self._error = errors.new("cancelled", "the run was cancelled", {
      run_id = self._run_id, box_id = self._link.id, partial = M.text(self) })
  end
  return end_cancelled(self) and end_run(self, runs.post_cancel)
end

local function fields(self, key)
  if key == "result" then
    return self._as_result(M.text(self))
  end
end

local metatable = namespace.metatable("stream", methods, fields)

--- Leaving a `for` or a `<close>` block: an error cancels the run, anything else detaches from it.
function metatable.__close(self, err)
  M.leave(self, err)
end

---@class lbox.stream.Options
---@field link lbox.Link
---@field type "agent"|"command"|"code"
---@field kind lbox.stream.Kind
---@field spec lbox.client.Spec
---@field send (fun(spec: lbox.client.Spec): lbox.Transfer)|nil  instead of the link's
---@field deadline lbox.Deadline
---@field idle_timeout number|nil  ms; nil: the client's timeout

--- Sends the request and returns the stream of its answer.
---@param opts lbox.stream.Options
---@return lbox.Stream
function M.open(opts)
  local link = opts.link
  local self = runs.fields(link, opts.type)
  self._translate, self._at_end, self._as_result = opts.kind.translate, opts.kind.at_end, opts.kind.text
  self._ended, self._name_of, self._named = opts.kind.ended, opts.kind.name_of, opts.kind.named
  self._deadline = opts.deadline
  self._idle = opts.idle_timeout or link.client.settings.timeout
  self._parts, self._part_count, self._joined, self._size = {}, 0, {}, 0
  self._left, self.truncated, self._known = CHECK_EVERY, false, {}
  self._over, self._reading = false, false
  opts.spec.deadline = opts.deadline
  opts.spec.idle = self._idle
  self._transfer = opts.send and opts.send(opts.spec) or link:send(opts.spec)
  self._req = self._transfer.req
  self._read = self._req.next
  setmetatable(self, metatable)
  link.streams[self] = true
  self._closer = tie_to_scope(self)
  return self
end

return M
