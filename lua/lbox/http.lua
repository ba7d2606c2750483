--- One HTTP transfer over the core's engine, and waiting for it. Knows nothing of boxes, keys,
--- retries.
local async = require "lbox.async"

local M = {}

---@class lbox.Transfer
---@field req table  the core's request: status, header, next, body, done, failure
---@field id integer
local Transfer = {}
Transfer.__index = Transfer

--- Starts a transfer; the options are those of the core's engine:request.
---@param options table
---@return lbox.Transfer
function M.send(options)
  local req = async.engine():request(options)
  return setmetatable({ req = req, id = req:id(), started = async.now() }, Transfer)
end

--- Waits until `ready(req)`, at most to the absolute time `limit` (ms; nil: no limit). Between two
--- waits nothing but the transfer's owner holds it, so an abandoned one is collected and ends.
---@param ready fun(req: table): boolean
---@param limit number|nil
---@return boolean in_time
function Transfer:wait(ready, limit)
  local req = self.req
  if ready(req) then
    return true
  end
  local op = async.op()
  async.source(self.id, function()
    if ready(req) then
      op:resolve(true)
    end
  end)
  local timer = limit and async.at(limit, function()
    op:resolve(false)
  end)
  local ok, in_time = pcall(async.wait, op)
  async.source(self.id, nil)
  if timer then
    timer:cancel()
  end
  if not ok then
    error(in_time, 0)
  end
  return in_time
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
