--- Operations that wait for the same thing: first come, first served. One that is cancelled leaves the
--- queue, so that nothing is given to somebody who has gone.
local Op = require "lbox.async.op"

local M = {}

local Waiters = {}
Waiters.__index = Waiters

---@class lbox.async.Waiters
---@field first lbox.async.Op|false
---@field last lbox.async.Op|false

---@return lbox.async.Waiters
function M.new()
  return setmetatable({ first = false, last = false }, Waiters)
end

local function leave(op)
  local queue = op.queue
  if not queue then
    return
  end
  op.queue = false
  if op.ahead then
    op.ahead.behind = op.behind
  else
    queue.first = op.behind
  end
  if op.behind then
    op.behind.ahead = op.ahead
  else
    queue.last = op.ahead
  end
end

--- A new operation at the end of the queue. `item` is what it brings along.
---@return lbox.async.Op
function Waiters:join(item)
  local op = Op.new(leave)
  op.queue, op.item, op.ahead, op.behind = self, item, self.last, false
  if self.last then
    self.last.behind = op
  else
    self.first = op
  end
  self.last = op
  return op
end

--- Takes one out that does not wait any longer, for the caller to settle.
---@param op lbox.async.Op
function Waiters.drop(_, op)
  leave(op)
end

--- Takes the first one out, for the caller to settle; nil when nobody waits.
---@return lbox.async.Op|nil
function Waiters:pop()
  local op = self.first
  if op then
    leave(op)
    return op
  end
end

return M
