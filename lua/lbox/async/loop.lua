--- The loop: the core's engine, timers, and the queue of what runs next. It knows nothing of tasks
--- but that they are queued with `wake`. One turn waits for something to happen and then runs what
--- is due.
local core = require "lbox.core"
local timers = require "lbox.async.timers"

local M = {}

-- What is queued when a round begins is run, and up to so many entries that come meanwhile: asking
-- the engine costs a system call. But not for longer than this, and not once a task gave way.
local EXTRA = 128
local EXTRA_MS = 1
-- With a host's loop attached a turn stops after this time: an editor has to stay smooth.
local HOST_SLICE_MS = 8

local now = core.now

local Loop = {}
Loop.__index = Loop

---@class lbox.async.Loop
---@field closed boolean
---@field driver table|nil  the host's event loop, see lbox.async.attach
---@field report fun(err: any)|nil  hears of errors of what the loop calls

function M.new()
  return setmetatable({
    engine = core.engine(),
    timers = timers.new(),
    sources = {},
    source_count = 0,
    fns = {}, -- the queue: fns[i](args[i]) for i from head to tail
    args = {},
    head = 1,
    tail = 0,
    pressed = false, -- a task gave way to others
    turning = 0, -- turns inside each other that are under way
    awake = false, -- what the engine was told last
    closed = false,
  }, Loop)
end

--- Ends it and everything its engine does. Whoever waits for something of it waits for ever.
function Loop:close()
  if not self.closed then
    self.closed = true
    self.engine:close()
  end
end

--- Tells the engine, whose descriptor a host polls, what the loop waits for.
local function arm(loop)
  loop.engine:deadline(loop.timers:next_at()) -- said each time: the engine forgets one that passed
  local more = loop.head <= loop.tail
  if more ~= loop.awake then
    loop.engine:wake(more)
    loop.awake = more
  end
end

-- Something new has to be turned for. Inside a turn its end sees to that.
local function touch(loop)
  if loop.turning == 0 then
    arm(loop)
  end
  if loop.driver then
    loop.driver.touch()
  end
end

--- Calls `fn(arg)` in the next turn.
function Loop:defer(fn, arg)
  if self.closed then
    return
  end
  local tail = self.tail + 1
  self.tail = tail
  self.fns[tail], self.args[tail] = fn, arg
  if self.turning == 0 or self.driver then
    touch(self)
  end
end

--- Queues a parked task once: `task.resume(task)` is called in the next turn.
function Loop:wake(task)
  if not task.queued then
    task.queued = true
    self:defer(task.resume, task)
  end
end

--- Calls `fn` whenever the engine's `id` becomes ready; nil takes it off. What comes in the background
--- is nothing that the loop would be turned for.
function Loop:source(id, fn, background)
  if background then
    self.sources[id] = fn
    return
  end
  local had = self.sources[id] ~= nil
  self.sources[id] = fn
  if fn and not had then
    self.source_count = self.source_count + 1
    touch(self)
  elseif had and not fn then
    self.source_count = self.source_count - 1
    if self.source_count == 0 then
      touch(self) -- a host that waits for nothing more has to know it
    end
  end
end

--- Adds a timer: an entry with `at` (absolute ms) and `fire`.
function Loop:add_timer(entry)
  self.timers:add(entry)
  if self.turning == 0 or self.driver then
    touch(self)
  end
end

function Loop:remove_timer(entry)
  self.timers:remove(entry)
end

--- Whether nothing can ever happen again: nothing queued, no timer, no source.
function Loop:idle()
  return self.head > self.tail and self.source_count == 0 and not self.timers:next_at()
end

local function run_next(loop)
  local fns, args, head = loop.fns, loop.args, loop.head
  local fn, arg = fns[head], args[head]
  -- Taken out before it runs: a turn inside of it goes on with the rest.
  fns[head], args[head] = nil, nil
  loop.head = head + 1
  fn(arg)
end

--- Runs what is queued.
local function run_queue(loop)
  local started = now()
  loop.pressed = false
  for _ = loop.head, loop.tail do
    if loop.head > loop.tail then
      return
    end
    run_next(loop)
    if loop.driver and now() - started >= HOST_SLICE_MS then
      return
    end
  end
  for i = 1, EXTRA do
    if loop.pressed or loop.head > loop.tail or (i % 8 == 1 and now() - started > EXTRA_MS) then
      return
    end
    run_next(loop)
  end
end

local function run_due(loop)
  local engine, sources = loop.engine, loop.sources
  local id = engine:ready()
  while id do
    local fn = sources[id]
    if fn then
      fn()
    end
    id = not loop.closed and engine:ready() or nil
  end
  local next_at = loop.timers:next_at()
  if next_at then
    local time = now()
    if next_at <= time then
      loop.timers:run(time)
    end
  end
  run_queue(loop)
  if loop.head > loop.tail then
    loop.head, loop.tail = 1, 0
  end
end

--- Waits at most `max_wait` ms (nil: as long as it takes) for something to happen, then runs what
--- is due. Errors of what it calls are reported, not raised.
function Loop:turn(max_wait)
  self.turning = self.turning + 1
  if self.head <= self.tail then
    max_wait = 0
  elseif max_wait ~= 0 then
    arm(self)
  end
  self.engine:step(max_wait)
  local ok, err = pcall(run_due, self)
  self.turning = self.turning - 1
  if not ok and self.report then
    self.report(err)
  end
end

--- One turn for a host that polls the engine's descriptor. Returns whether there is more to do now.
---@return boolean
function Loop:step(max_wait)
  self:turn(max_wait)
  if self.closed then
    return false
  end
  arm(self)
  return self.head <= self.tail
end

--- Gives the host's own loop the floor: "wait" until a function says so, "breathe" for a moment.
--- What it calls back is no part of our turn.
function Loop:host(what, done)
  local turning = self.turning
  self.turning = 0
  arm(self)
  local ok, err = pcall(self.driver[what], done)
  self.turning = turning
  if not ok then
    error(err, 0)
  end
end

--- Whoever turned the loop stops: outside of turns the engine has to know what is still open.
function Loop:rest()
  if self.turning == 0 and not self.closed then
    arm(self)
  end
end

return M
