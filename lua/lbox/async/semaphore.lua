--- A semaphore: so many permits, handed out in the order they are asked for.
local errors = require "lbox.errors"
local options = require "lbox.options"
local trace = require "lbox.async.trace"
local waiters = require "lbox.async.waiters"
local waits = require "lbox.async.wait"

local M = {}

---@class lbox.async.Semaphore
local Semaphore = {}

local Semaphore_mt = { __name = "lbox.Semaphore", __index = Semaphore }

--- A new semaphore.
---@param n integer  permits, from 1 on
---@return lbox.async.Semaphore
function M.new(n)
  if type(n) ~= "number" or n < 1 or n ~= math.floor(n) then
    errors.raise("usage", "a semaphore has a whole number of permits from 1 on, got " .. tostring(n))
  end
  return setmetatable({ free = n, permits = n, waiters = waiters.new() }, Semaphore_mt)
end

--- Takes a permit; waits until there is one.
function Semaphore:acquire()
  if self.free > 0 then
    waits.checkpoint()
  end
  -- The checkpoint may have let others in.
  if self.free > 0 then
    self.free = self.free - 1
  else
    waits.wait(self.waiters:join())
  end
end

--- Gives a permit back, to who has waited longest.
function Semaphore:release()
  if self.free == self.permits then
    errors.raise("usage", "a semaphore was released more often than acquired")
  end
  local op = self.waiters:pop()
  if op then
    op:resolve()
  else
    self.free = self.free + 1
  end
end

local function released(semaphore, ok, ...)
  semaphore:release()
  if not ok then
    error((...), 0)
  end
  return ...
end

--- Calls `fn(...)` with a permit, which is given back on every way out.
---@param fn fun(...): ...
---@return any ...  what `fn` returned
function Semaphore:with(fn, ...)
  options.callable(fn, "what to call with a permit")
  self:acquire()
  return released(self, xpcall(fn, trace.note, ...))
end

return M
