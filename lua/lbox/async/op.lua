--- An operation: something one task can wait for. Whoever makes it resolves or rejects it once,
--- before or after the wait began; later tries are ignored. A wait costs this one table.
local M = {}

local unpack = rawget(table, "unpack") or rawget(_G, "unpack")

local Op = {}
Op.__index = Op
M.mt = Op

---@class lbox.async.Op
---@field settled boolean
---@field failed boolean     settled with an error
---@field n integer          number of results
---@field value any          the only result, the table of several, or the error
---@field on_cancel fun(op: lbox.async.Op)|false  called when a cancel took the wait away: nobody
---  will ask for the result, even if there is one by now
---@field waiter table|false  the parked task, see lbox.async.loop

--- A new operation.
---@param on_cancel fun(op: lbox.async.Op)|nil
---@return lbox.async.Op
function M.new(on_cancel)
  return setmetatable({
    settled = false, failed = false, n = 0, value = nil, waiter = false,
    on_cancel = on_cancel or false,
  }, Op)
end

local function settle(op)
  op.settled = true
  local waiter = op.waiter
  if waiter then
    op.waiter = false
    waiter.loop:wake(waiter)
  end
end

--- Settles with results.
function Op:resolve(...)
  if self.settled then
    return
  end
  local n = select("#", ...)
  self.n = n
  if n == 1 then
    self.value = ...
  elseif n > 1 then
    self.value = { ... }
  end
  settle(self)
end

--- Settles with an error.
function Op:reject(err)
  if not self.settled then
    self.failed, self.value = true, err
    settle(self)
  end
end

--- What it was settled with: the results, or the error raised.
function Op:result()
  if self.failed then
    error(self.value, 0)
  elseif self.n == 1 then
    return self.value
  elseif self.n > 1 then
    return unpack(self.value, 1, self.n)
  end
end

return M
