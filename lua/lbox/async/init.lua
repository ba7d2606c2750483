--- Structured concurrency: tasks, scopes and waiting. It knows nothing of boxes or HTTP.
local Fd = require "lbox.async.fd"
local Op = require "lbox.async.op"
local combinators = require "lbox.async.combinators"
local core = require "lbox.core"
local tasks = require "lbox.async.task"

local M = {
  run = combinators.run,
  spawn = combinators.spawn,
  scope = combinators.scope,
  gather = combinators.gather,
  map = combinators.map,
  sleep = combinators.sleep,
  timeout = combinators.timeout,
  shield = combinators.shield,

  op = Op.new,
  wait = tasks.wait,
  checkpoint = tasks.checkpoint,
  current = tasks.current,
  traceback = tasks.traceback,
  describe = tasks.describe,
  close = tasks.close,
  now = core.now,
  fd = Fd.new,
}

--- The core's engine of this Lua state.
function M.engine()
  return tasks.state().loop.engine
end

--- Calls `fn` from the loop whenever the engine's `id` becomes ready; nil takes it off.
function M.source(id, fn)
  tasks.state().loop:source(id, fn)
end

--- Calls `fn` at the absolute time `at` (ms); `timer:cancel()` takes it back.
function M.at(at, fn)
  return tasks.state().loop:at(at, fn)
end

--- Calls `fn` in the next turn of the loop.
function M.defer(fn)
  tasks.state().loop:defer(fn)
end

--- Calls `fn` when the current scope is left; `handle:remove()` takes it back.
function M.on_close(fn)
  return tasks.context().inner:on_close(fn)
end

--- Whether the current scope is cancelled: the error its waits raise, or nil.
function M.cancelled()
  return tasks.context().inner:cancelled()
end

--- Turns the loop once, waiting at most `max_wait` ms. Returns whether there is more to do now.
function M.step(max_wait)
  return tasks.state().loop:turn(max_wait)
end

--- Whether nothing is going on: no task waits for anything that could come.
function M.idle()
  return tasks.state().loop:idle()
end

--- Number of tasks that have not ended.
function M.pending()
  return tasks.state().live
end

--- Sets who hears of errors nobody takes: a function of one string.
function M.on_error(fn)
  tasks.state().on_error = fn
end

--- Attaches a host's event loop: `driver.wait(done)` blocks the host until `done()`, `driver.touch()`
--- hears that the loop has something to turn for, `driver.stop()` detaches.
function M.attach(driver)
  local s = tasks.state()
  if s.driver then
    s.driver.stop()
  end
  s.driver = driver
  s.loop.hooks.touch = driver and driver.touch
end

return M
