--- Streams: runs that are read chunk by chunk as they come. agent.lua and exec.lua say what an event
--- means; here is the reading, its deadlines, and every way a stream can end.
local async = require "lbox.async"
local errors = require "lbox.errors"
local runs = require "lbox.run"

local M = {}

-- A stream that is here already is read without a switch; others get their turn every so many chunks.
local CHECKPOINT_EVERY = 32
-- Text is joined now and then: a table of many small strings costs more than they do.
local JOIN_EVERY = 512

---@class lbox.Stream: lbox.Run
local methods = setmetatable({}, { __index = runs.methods })
M.mt = { __name = "lbox.Stream", __index = methods }

--- A stream over an open exchange.
---@param run table      made by runs.new with M.mt
---@param exchange lbox.http.Exchange
---@param reader { event: fun(stream, name, data): table|nil, ended: fun(stream, why: string|nil): table|nil }
---@param deadline number|nil
---@param idle_ms number|nil
function M.open(run, exchange, reader, deadline, idle_ms)
  run.exchange, run.reader, run.req = exchange, reader, exchange.req
  run.deadline = deadline
  run.idle_ms = idle_ms and idle_ms > 0 and idle_ms or nil
  run.texts, run.text_count, run.unread = {}, 0, CHECKPOINT_EVERY
  run.box.streams[run] = true
  run.handle = async.on_close(function(cancelled)
    run.handle = nil
    if cancelled then
      run:abandon()
    else
      run:close()
    end
  end)
  return run
end

--- Keeps text of the stream for `result` and `partial`.
function methods:keep(text)
  local n = self.text_count + 1
  self.texts[n] = text
  if n >= JOIN_EVERY then
    self.joined = self.joined or {}
    self.joined[#self.joined + 1] = table.concat(self.texts, "", 1, n)
    n = 0
  end
  self.text_count = n
end

--- The text so far.
function methods:partial()
  local rest = table.concat(self.texts or {}, "", 1, self.text_count or 0)
  return (self.joined and table.concat(self.joined) or "") .. rest
end

--- No more is read: lets go of the transfer and of the scope.
local function release(stream)
  if stream.released then
    return
  end
  stream.released = true
  stream.exchange:close()
  stream.box.streams[stream] = nil
  stream.cost.compute_ms = stream.cost.compute_ms > 0 and stream.cost.compute_ms
    or async.now() - stream.started
  if stream.handle then
    stream.handle:remove()
    stream.handle = nil
  end
end

--- The reader was cancelled or too late: the run is cancelled on the server too.
function methods:abandon()
  if self.released then
    return
  end
  self.result = self:partial()
  self:cancel()
  release(self)
end

--- Lets go of a stream that is not read to its end: the run goes on at the server.
function methods:close()
  if self.released then
    return
  end
  if self.status == "running" then
    self.status = "detached"
    self.result = self:partial()
  end
  release(self)
end

local function fail(stream, err)
  if stream.status == "running" then
    stream.status = "failed"
  end
  stream.result = stream:partial()
  release(stream)
  error(err, 0)
end

local function wait_more(stream)
  local until_ms = stream.deadline
  local idle_at = stream.idle_ms and async.now() + stream.idle_ms
  local idle = idle_at and (not until_ms or idle_at < until_ms)
  local ok, in_time = pcall(stream.exchange.wait_change, stream.exchange, idle and idle_at or until_ms)
  if ok and in_time then
    return
  end
  stream:abandon()
  if not ok then
    error(in_time, 0)
  end
  errors.raise("timeout", idle and ("the stream was silent for %g ms"):format(stream.idle_ms)
    or "the run did not end in time",
    { run_id = stream.server_id, box_id = stream.box.id, partial = stream:partial() })
end

--- The transfer is over and everything of it was read.
local function finish(stream)
  local failure = stream.exchange:failure()
  local why
  if failure then
    why = stream.box.client:network_error(failure, stream.exchange.url).message
  end
  local ok, err = pcall(stream.reader.ended, stream, why)
  if not ok then
    fail(stream, err)
  end
  release(stream)
end

--- The next chunk, or nil at the end. Raises when the stream did not end as it has to.
---@return table|nil chunk
function methods:next()
  if self.released then
    return nil
  end
  local req, event = self.req, self.reader.event
  while true do
    local name, data = req:next()
    if name then
      local ok, chunk = pcall(event, self, name, data)
      if not ok then
        fail(self, chunk)
      end
      self.unread = self.unread - 1
      if self.unread <= 0 then
        self.unread = CHECKPOINT_EVERY
        local unbroken, cancelled = pcall(async.checkpoint)
        if not unbroken then
          self:abandon()
          error(cancelled, 0)
        end
      end
      if chunk then
        return chunk
      end
    elseif req:done() then
      finish(self)
      return nil
    else
      wait_more(self)
    end
  end
end

--- An iterator: `for chunk in stream:chunks() do`. Leaving the loop early closes the stream in Lua 5.4.
function methods:chunks()
  return self.next, self, nil, setmetatable({}, { __close = function() self:close() end })
end

return M
