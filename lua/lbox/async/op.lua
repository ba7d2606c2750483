--- An operation: something one task can wait for. Whoever makes it resolves or rejects it once; later
--- tries are ignored.
local Op = {}
Op.__index = Op

---@class lbox.async.Op
---@field settled boolean
---@field on_cancel fun(op: lbox.async.Op)|nil  called when the waiting task is cancelled
---@field waiter fun()|nil  called when it settles

--- A new operation.
---@param on_cancel fun(op: lbox.async.Op)|nil
---@return lbox.async.Op
function Op.new(on_cancel)
  return setmetatable({ settled = false, on_cancel = on_cancel }, Op)
end

local function settle(op)
  op.settled = true
  local waiter = op.waiter
  if waiter then
    op.waiter = nil
    waiter()
  end
end

--- Ends it with results.
function Op:resolve(...)
  if self.settled then
    return
  end
  self.n = select("#", ...)
  if self.n == 1 then
    self.value = ...
  elseif self.n > 1 then
    self.values = { ... }
  end
  settle(self)
end

--- Ends it with an error.
function Op:reject(err)
  if self.settled then
    return
  end
  self.failed = true
  self.value = err
  settle(self)
end

local unpack = table.unpack or unpack

--- The results of a settled operation, or its error raised.
function Op:result()
  if self.failed then
    error(self.value, 0)
  elseif self.n == 1 then
    return self.value
  elseif self.n > 1 then
    return unpack(self.values, 1, self.n)
  end
end

return Op
