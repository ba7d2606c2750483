--- Structured concurrency: tasks, scopes and one way to wait. It knows nothing of boxes or HTTP.
---
---   loop      the core's engine, timers, the queue of what runs next
---   scope     the tree of what is going on, and its cancel state
---   wait      parking a task, or turning the loop on the spot
---   task      tasks, and the end of scopes
---   inspect   what is going on
---   combinators, channel, semaphore, event, fd   what is built of these
local Fd = require "lbox.async.fd"
local Op = require "lbox.async.op"
local Scope = require "lbox.async.scope"
local channel = require "lbox.async.channel"
local combinators = require "lbox.async.combinators"
local core = require "lbox.core"
local event = require "lbox.async.event"
local inspect = require "lbox.async.inspect"
local rt = require "lbox.async.runtime"
local semaphore = require "lbox.async.semaphore"
local tasks = require "lbox.async.task"
local trace = require "lbox.async.trace"
local waits = require "lbox.async.wait"

local M = {
  run = combinators.run,
  spawn = combinators.spawn,
  spawn_in = combinators.spawn_in,
  scope = combinators.scope,
  gather = combinators.gather,
  race = combinators.race,
  map = combinators.map,
  sleep = combinators.sleep,
  timeout = combinators.timeout,
  shield = combinators.shield,
  clean_up = combinators.clean_up,
  CLEAN_UP_MS = combinators.CLEAN_UP_MS,
  channel = channel.new,
  semaphore = semaphore.new,
  event = event.new,

  op = Op.new,
  wait = waits.wait,
  checkpoint = waits.checkpoint,
  current = tasks.current,
  tasks = inspect.tasks,
  close = tasks.close,
  shut_down = tasks.shut_down,
  now = core.now,
  fd = Fd.new,
  note = trace.note,
  warn = rt.warn,
  traceback = trace.traceback,
  describe = trace.describe,
}

--- The core's engine of this Lua state.
function M.engine()
  return rt.get_loop().engine
end

--- Calls `fn` from the loop whenever the engine's `id` becomes ready; nil takes it off. With `background`
--- (both times) nobody waits for it: with nothing else left a wait is a deadlock.
function M.source(id, fn, background)
  rt.get_loop():source(id, fn, background)
end

local Timer = {}
Timer.__index = Timer

--- Takes the timer back; nothing happens when it ran already.
function Timer:cancel()
  self.loop:remove_timer(self)
end

local function fire(timer)
  timer.fn()
end

--- Calls `fn` from the loop at the absolute time `at` (ms, as `now`). `fn` is no task and must not
--- wait.
---@return { cancel: fun(self) }
function M.at(at, fn)
  local loop = rt.get_loop()
  local timer = setmetatable({
    at = at, fire = fire, slot = false, number = 0, fn = fn, loop = loop,
  }, Timer)
  loop:add_timer(timer)
  return timer
end

--- Calls `fn` in the next turn of the loop. `fn` is no task and must not wait.
function M.defer(fn)
  rt.get_loop():defer(fn)
end

--- Calls `fn(cancelled)` when the current scope is left, the latest first: `cancelled` is what its
--- waits raise if it was cancelled. `handle:remove()` takes it back.
function M.on_close(fn)
  return Scope.on_close(waits.current().scope, fn)
end

--- What the scopes around the caller carry under `name`, the innermost first.
---@param name string
---@param shielded boolean|nil  not what is outside of a shield
---@return any[]
function M.carried(name, shielded)
  return Scope.carried(waits.current().scope, name, shielded)
end

--- The scope the caller is in.
---@return lbox.async.Node
function M.current_scope()
  return waits.current().scope
end

--- What waits in the current scope raise since it was cancelled, or nil.
---@return lbox.Error|nil
function M.cancelled()
  return waits.current().scope.cancel_error or nil
end

--- One turn of the loop, waiting at most `max_wait` ms. Returns whether there is more to do now.
---@return boolean
function M.step(max_wait)
  return rt.get_loop():step(max_wait)
end

--- Whether nothing is going on that the loop would have to be turned for.
function M.idle()
  return not rt.loop or rt.loop:idle()
end

--- Number of tasks that have not ended.
function M.pending()
  return rt.live
end

--- Sets who hears of errors nobody takes: a function of one string.
function M.on_error(fn)
  rt.on_error = fn or false
end

--- Attaches a host's event loop, or detaches it (nil). `driver.wait(done)` runs the host until
--- `done()`, `driver.breathe()` for a moment, `driver.touch()` hears that the loop has something to
--- turn for, `driver.stop()` is called when it is detached.
function M.attach(driver)
  local loop = rt.get_loop()
  local old = loop.driver
  if old ~= driver then
    loop.driver = driver
    if old then
      old.stop()
    end
  end
end

return M
