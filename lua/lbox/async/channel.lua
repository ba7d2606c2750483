--- A channel: values from tasks to tasks, in the order they were sent, each to one receiver.
local errors = require "lbox.errors"
local waiters = require "lbox.async.waiters"
local waits = require "lbox.async.wait"

local M = {}

---@class lbox.async.Channel
---@field capacity number  values that are kept while nobody receives
---@field closed boolean
local Channel = {}

local Channel_mt = { __name = "lbox.Channel", __index = Channel }

--- A new channel. With capacity 0 a sender waits until its value is received.
---@param capacity number|nil  0; math.huge: a sender never waits
---@return lbox.async.Channel
function M.new(capacity)
  capacity = capacity or 0
  if type(capacity) ~= "number" or capacity < 0 or (capacity ~= math.floor(capacity) and capacity ~= math.huge) then
    errors.raise("usage", "the capacity of a channel is a whole number from 0 on, got " .. tostring(capacity))
  end
  return setmetatable({
    capacity = capacity, closed = false,
    values_kept = {}, head = 1, tail = 0, -- values_kept[head..tail]
    senders = waiters.new(), receivers = waiters.new(),
  }, Channel_mt)
end

local function check_open(channel)
  if channel.closed then
    errors.raise("usage", "the channel is closed: nothing can be sent")
  end
end

--- Sends a value; waits while the channel is full. A send that was cancelled has not happened.
---@param value any  not nil, which is what `receive` returns at the end
function Channel:send(value)
  if value == nil then
    errors.raise("usage", "nil cannot be sent: it is the end of a channel")
  end
  check_open(self)
  waits.checkpoint()
  check_open(self)
  local receiver = self.receivers:pop()
  if receiver then
    receiver:resolve(value)
  elseif self.tail - self.head + 1 < self.capacity then
    self.tail = self.tail + 1
    self.values_kept[self.tail] = value
  else
    waits.wait(self.senders:join(value))
  end
end

--- The oldest value kept or waiting to be sent; nil when there is none.
local function take(channel)
  local kept, value = channel.values_kept, nil
  if channel.head <= channel.tail then
    value = kept[channel.head]
    kept[channel.head] = nil
    channel.head = channel.head + 1
    if channel.head > channel.tail then
      channel.head, channel.tail = 1, 0
    end
  end
  local sender = channel.senders:pop()
  if sender then
    if value == nil then
      value = sender.item
    else
      channel.tail = channel.tail + 1
      kept[channel.tail] = sender.item
    end
    sender:resolve()
  end
  return value
end

--- The next value; waits until there is one. nil when the channel is closed and empty.
---@return any
function Channel:receive()
  waits.checkpoint()
  local value = take(self)
  if value == nil and not self.closed then
    value = waits.wait(self.receivers:join())
  end
  return value
end

--- Ends the channel: what was sent can be received, nothing more be sent. A sender that waits gets an
--- error. Idempotent.
function Channel:close()
  self.closed = true
  local op = self.receivers:pop()
  while op do
    op:resolve(nil)
    op = self.receivers:pop()
  end
  op = self.senders:pop()
  while op do
    op:reject(errors.new("usage", "the channel was closed while this waited to send"))
    op = self.senders:pop()
  end
end

local function next_value(channel)
  return channel:receive()
end

--- For a `for` loop: every value until the channel is closed and empty.
---@return fun(channel: lbox.async.Channel): any, lbox.async.Channel
function Channel:values()
  return next_value, self
end

return M
