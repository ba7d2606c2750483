--- An event: something that has happened or not, and that many can wait for.
local waiters = require "lbox.async.waiters"
local waits = require "lbox.async.wait"

local M = {}

---@class lbox.async.Event
local Event = {}

local Event_mt = { __name = "lbox.Event", __index = Event }

--- A new event that has not happened.
---@return lbox.async.Event
function M.new()
  return setmetatable({ happened = false, waiters = waiters.new() }, Event_mt)
end

--- It has happened: everybody who waits goes on.
function Event:set()
  self.happened = true
  local op = self.waiters:pop()
  while op do
    op:resolve()
    op = self.waiters:pop()
  end
end

--- It has not happened any more: who waits from now on, waits for the next time.
function Event:clear()
  self.happened = false
end

---@return boolean
function Event:is_set()
  return self.happened
end

--- Waits until it has happened.
function Event:wait()
  if self.happened then
    waits.checkpoint()
  else
    waits.wait(self.waiters:join())
  end
end

return M
