--- One HTTP transfer over the core's engine, and waiting for it. Knows nothing of boxes, keys,
--- retries.
local async = require "lbox.async"

local M = {}

---@class lbox.Transfer
---@field req table  the core's request: status, header, next, body, done, failure
---@field id integer
---@field started number
---@field watcher lbox.async.Op|false  hears of its news
local Transfer = {}
Transfer.__index = Transfer

--- Starts a transfer; the options are those of the core's engine:request.
---@param options table
---@return lbox.Transfer
function M.send(options)
  local req = async.engine():request(options)
  return setmetatable({ req = req, id = req:id(), started = async.now(), watcher = false }, Transfer)
end

--- From now on news of the transfer resolves `op`, with true. Who watched before is told there is some.
---@param op lbox.async.Op
---@param ready (fun(req: table): boolean)|nil  only news after which this holds
function Transfer:watch(op, ready)
  local before = self.watcher
  self.watcher = op
  async.source(self.id, function()
    if not ready or ready(self.req) then
      op:resolve(true)
    end
  end)
  if before then
    before:resolve(true)
  end
end

--- Nobody watches any more, unless another does.
function Transfer:unwatch(op)
  if self.watcher == op then
    self.watcher = false
    async.source(self.id, nil)
  end
end

--- Waits until `ready(req)`, at most to the absolute time `limit` (ms; nil: no limit). Between two
--- waits nothing but the transfer's owner holds it, so an abandoned one is collected and ends.
---@param ready fun(req: table): boolean
---@param limit number|nil
---@param progress (fun(sent: integer, total: integer))|nil  told of a body made of parts, in between
---@return boolean in_time
function Transfer:wait(ready, limit, progress)
  if progress then
    return self:wait_sending(ready, limit, progress)
  elseif ready(self.req) then
    return true
  end
  local op = async.op()
  self:watch(op, ready)
  local timer = limit and async.at(limit, function()
    op:resolve(false)
  end)
  local ok, in_time = pcall(async.wait, op)
  self:unwatch(op)
  if timer then
    timer:cancel()
  end
  if not ok then
    error(in_time, 0)
  end
  return in_time
end

--- The same, and tells `progress` now and then how much of the request was sent, and how much it is.
function Transfer:wait_sending(ready, limit, progress)
  local told = -1
  local function is_news(req)
    return ready(req) or req:sent_bytes() > told
  end
  while true do
    local in_time = self:wait(is_news, limit)
    local sent, total = self.req:sent_bytes()
    if sent > told then
      told = sent
      progress(sent, total)
    end
    if ready(self.req) then
      return true
    elseif not in_time or (limit and async.now() >= limit) then
      return false
    end
  end
end

--- Waits until anything happened: bytes came or the transfer ended. Returns false at the limit.
---@param limit number|nil
---@return boolean in_time
function Transfer:wait_change(limit)
  local first = true
  return self:wait(function(req)
    -- What is here already was looked at before; only news counts.
    if first then
      first = false
      return req:done()
    end
    return true
  end, limit)
end

--- Whether any byte of the request may have left this machine. Ends a transfer that still runs.
function Transfer:was_sent()
  self.req:cancel()
  local kind, _, sent = self.req:failure()
  return kind == nil or sent
end

--- Ends the transfer; idempotent.
function Transfer:close()
  self.req:cancel()
end

return M
