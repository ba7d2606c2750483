--- The loop of one Lua state: the core's engine, timers, and the queue of what is to run next. It
--- knows nothing of tasks but that they are functions to call.
local core = require "lbox.core"
local timers = require "lbox.async.timers"

local M = {}

local Loop = {}
Loop.__index = Loop

-- The loop of this Lua state, made on first use and again after it was closed.
local current

--- The loop of this Lua state.
function M.get()
  if not current then
    current = setmetatable({
      engine = core.engine(),
      timers = timers.new(),
      sources = {},
      source_count = 0,
      queue = {},
      first = 1,
      last = 0,
      turning = 0,
      hooks = {},
    }, Loop)
  end
  return current
end

--- The loop if there is one already.
function M.peek()
  return current
end

--- Drops the loop and everything its engine does.
function M.drop()
  local loop = current
  current = nil
  if loop then
    loop.engine:close()
  end
end

function Loop.now()
  return core.now()
end

--- Something was added that the loop has to turn for: tells the host's adapter.
function Loop:touch()
  local touch = self.hooks.touch
  if touch then
    touch()
  end
end

--- Puts `fn` on the queue of what runs in the next turn.
function Loop:defer(fn)
  local last = self.last + 1
  self.last = last
  self.queue[last] = fn
  if self.turning == 0 then
    self.engine:wake(true)
  end
  self:touch()
end

--- Calls `fn` whenever the engine's `id` becomes ready; nil takes it off.
function Loop:source(id, fn)
  local had = self.sources[id] ~= nil
  self.sources[id] = fn
  if fn and not had then
    self.source_count = self.source_count + 1
    self:touch()
  elseif had and not fn then
    self.source_count = self.source_count - 1
  end
end

--- Runs `fn` at the absolute time `at` (ms).
function Loop:at(at, fn)
  local timer = self.timers:add(at, fn)
  if self.turning == 0 then
    self.engine:deadline(self.timers:next_at())
  end
  self:touch()
  return timer
end

--- Whether nothing can ever happen again: no timer, no source, nothing queued.
function Loop:idle()
  return self.first > self.last and self.source_count == 0 and not self.timers:next_at()
end

--- Waits at most `max_wait` ms (nil: until something happens), then runs what is due. Returns whether
--- there is more to run now.
function Loop:turn(max_wait)
  local engine = self.engine
  self.turning = self.turning + 1
  engine:deadline(self.timers:next_at())
  if self.first <= self.last then
    max_wait = 0
  end
  if engine:step(max_wait) then
    local id = engine:ready()
    while id do
      local fn = self.sources[id]
      if fn then
        fn()
      end
      id = engine:ready()
    end
  end
  local next_at = self.timers:next_at()
  if next_at and next_at <= core.now() then
    self.timers:run(core.now())
  end
  -- What is queued while these run waits for the next turn, so that no task starves the others.
  for _ = self.first, self.last do
    local first = self.first
    if first > self.last then
      break -- a nested turn was quicker
    end
    local fn = self.queue[first]
    self.queue[first] = nil
    self.first = first + 1
    fn()
  end
  if self.first > self.last then
    self.first, self.last = 1, 0
  end
  self.turning = self.turning - 1
  local more = self.first <= self.last
  if current == self then
    engine:deadline(self.timers:next_at())
    engine:wake(more)
  end
  return more
end

return M
