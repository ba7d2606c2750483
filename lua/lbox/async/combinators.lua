--- What is built of scopes and tasks: run, spawn, scope, gather, race, map, sleep, timeout, shield.
local Op = require "lbox.async.op"
local Scope = require "lbox.async.scope"
local core = require "lbox.core"
local errors = require "lbox.errors"
local options = require "lbox.options"
local rt = require "lbox.async.runtime"
local tasks = require "lbox.async.task"
local waits = require "lbox.async.wait"

local M = {}

local unpack = rawget(table, "unpack") or rawget(_G, "unpack")
local now, check_callable = core.now, options.callable

local DEFAULT_CONCURRENCY = 16

-- How long clean-up may take, whatever is cancelled meanwhile.
M.CLEAN_UP_MS = 5000

local function finish(ok, ...)
  if not ok then
    error((...), 0)
  end
  return ...
end

--- Starts a task owned by the current scope; outside tasks and scopes by the root scope, whose
--- tasks run whenever the loop turns.
---@param fn fun(...): ...
---@return lbox.async.Task
function M.spawn(fn, ...)
  check_callable(fn, "what to spawn")
  return tasks.start(waits.current().scope, nil, fn, ...)
end

--- Starts a task owned by this scope.
---@param fn fun(...): ...
---@return lbox.async.Task
function Scope.mt:spawn(fn, ...)
  check_callable(fn, "what to spawn")
  return tasks.start(self, nil, fn, ...)
end

--- Cancels everything in the scope. `lbox.scope` then returns nothing when that is all that
--- happened.
---@param reason string|nil
function Scope.mt:cancel(reason)
  if not self.cancel_error then
    Scope.cancel(self, reason)
    self.stopped = self.cancel_error
  end
end

local function scope_end(scope, ok, ...)
  if not ok and scope.stopped and (...) == scope.stopped then
    return
  end
  return finish(ok, ...)
end

--- The scope, or the root scope when that one was left or its loop closed.
local function still_open(scope)
  local loop = rt.get_loop()
  return not scope.left and scope.strand.loop == loop and scope or rt.root
end

--- Starts a task owned by `scope`; by the root scope when nothing begins in that one any more.
---@param scope lbox.async.Node
---@param fn fun(...): ...
---@return lbox.async.Task
function M.spawn_in(scope, fn, ...)
  scope = still_open(scope)
  return tasks.start(scope.cancel_error and rt.root or scope, nil, fn, ...)
end

local SCOPE_OPTIONS = { on_error = { "cancel", "wait" }, carries = "table" }

--- Runs `fn(scope)` and waits for every task of the scope. The first error cancels the rest and is
--- raised; with `on_error = "wait"` the others finish first. `scope:spawn(fn, ...)` and
--- `scope:cancel(reason)` work for whoever has the scope, until it is left. `carries`: see carried.
---@param fn fun(scope: lbox.async.Scope): ...
---@param opts { on_error: "cancel"|"wait"|nil, carries: table<string, any>|nil }|nil
---@return any ...  what `fn` returned
function M.scope(fn, opts)
  check_callable(fn, "the body of a scope")
  options.check(opts, SCOPE_OPTIONS, "scope")
  local scope = tasks.new_scope(opts and opts.on_error)
  scope.carries = opts and opts.carries or false
  return scope_end(scope, tasks.run_scope(scope, fn, scope))
end

local function run_main(scope, fn, ...)
  return tasks.start(scope, "main", fn, ...):await()
end

--- Runs `fn(...)` as the main task, and the loop until it and its tasks ended. Raises what it or one of
--- them raised.
---@param fn fun(...): ...
---@return any ...  what `fn` returned
function M.run(fn, ...)
  check_callable(fn, "what to run")
  local scope = tasks.new_scope()
  return finish(tasks.run_scope(scope, run_main, scope, fn, ...))
end

local function gather_one(results, i, fn)
  results[i] = fn()
end

local function gather_all(scope, results, fns, n)
  for i = 1, n do
    tasks.start(scope, nil, gather_one, results, i, fns[i]).fn = fns[i]
  end
end

--- Runs functions side by side; the first result of each, or the first error.
---@param ... fun(): any
---@return any ...
function M.gather(...)
  local fns, n = { ... }, select("#", ...)
  for i = 1, n do
    check_callable(fns[i], ("argument %d of gather"):format(i))
  end
  local results = {}
  local scope = tasks.new_scope()
  finish(tasks.run_scope(scope, gather_all, scope, results, fns, n))
  return unpack(results, 1, n)
end

local function race_one(race, i, fn)
  local results = { n = 0 }
  local function keep(...)
    results.n = select("#", ...)
    for k = 1, results.n do
      results[k] = (select(k, ...))
    end
  end
  keep(fn())
  if not race.winner then
    race.winner, race.results = i, results
    race.scope:cancel("another won the race")
  end
end

local function race_all(scope, race, fns, n)
  race.scope = scope
  for i = 1, n do
    tasks.start(scope, nil, race_one, race, i, fns[i]).fn = fns[i]
  end
end

--- Runs functions side by side until the first ends, and cancels the others: its index and what it
--- returned, or its error. The others have ended when this returns.
---@param ... fun(): ...
---@return integer index
---@return any ...
function M.race(...)
  local fns, n = { ... }, select("#", ...)
  if n == 0 then
    errors.raise("usage", "race needs at least one function")
  end
  for i = 1, n do
    check_callable(fns[i], ("argument %d of race"):format(i))
  end
  local scope, race = tasks.new_scope(), {}
  scope_end(scope, tasks.run_scope(scope, race_all, scope, race, fns, n))
  return race.winner, unpack(race.results, 1, race.results.n)
end

local MAP_OPTIONS = {
  concurrency = "number", on_error = { "cancel", "collect" }, before = "function", carries = "table",
}

local function check_map(list, fn, opts)
  if type(list) ~= "table" then
    errors.raise("usage", "the list to map must be a table, got " .. type(list))
  end
  check_callable(fn, "the function of map")
  options.check(opts, MAP_OPTIONS, "map")
  local limit = opts and opts.concurrency or DEFAULT_CONCURRENCY
  if limit < 1 or (limit ~= math.floor(limit) and limit ~= math.huge) then
    errors.raise("usage", "concurrency must be a whole number from 1 on, got " .. tostring(limit))
  end
  return limit
end

local function call_item(job, i)
  if job.before then
    job.before()
  end
  return job.fn(job.list[i], i)
end

-- Each item has a scope of its own: what it opened or spawned ends before the next one begins.
local function map_worker(job)
  while job.next <= job.n do
    local i = job.next
    job.next = i + 1
    local scope = tasks.new_scope()
    local ok, result = tasks.run_scope(scope, call_item, job, i)
    local cancelled = waits.current().scope.cancel_error
    if ok then
      job.results[i] = result
    elseif job.errors and result ~= cancelled then
      job.errors[i] = result
    else
      error(result, 0)
    end
    if cancelled then
      error(cancelled, 0) -- an item may swallow it, the next one does not begin
    end
  end
end

local function map_all(scope, job, limit)
  for _ = 1, math.min(limit, job.n) do
    tasks.start(scope, nil, map_worker, job).fn = job.fn
  end
end

--- Calls `fn(item, index)` for every item, at most `concurrency` (16) at a time. The first error cancels
--- the rest and is raised, unless errors are collected. `before()` is called at the beginning of each item
--- and may raise in its place; `carries`: see carried.
---@param list any[]
---@param fn fun(item: any, index: integer): any
---@param opts { concurrency: integer|nil, on_error: "cancel"|"collect"|nil, before: fun()|nil,
---  carries: table<string, any>|nil }|nil
---@return table results  indexed like `list`, with n = #list
---@return table|nil errors  with "collect": what failing items raised, indexed like `list`
function M.map(list, fn, opts)
  local limit = check_map(list, fn, opts)
  local collect = opts and opts.on_error == "collect"
  local n = #list
  local job = {
    list = list, fn = fn, n = n, next = 1, results = { n = n }, errors = collect and {} or nil,
    before = opts and opts.before,
  }
  local scope = tasks.new_scope()
  scope.carries = opts and opts.carries or false
  finish(tasks.run_scope(scope, map_all, scope, job, limit))
  return job.results, job.errors
end

local function end_sleep(op)
  op:resolve()
end

local function stop_sleep(op)
  rt.loop:remove_timer(op)
end

--- Waits `ms` milliseconds. Raises `cancelled` when its scope is cancelled.
---@param ms number
function M.sleep(ms)
  options.ms(ms, "the time to sleep")
  -- The operation is its own timer: a sleep costs one table.
  local op = setmetatable({
    settled = false, failed = false, n = 0, value = nil, waiter = false, on_cancel = stop_sleep,
    at = now() + ms, fire = end_sleep, slot = false, number = 0,
  }, Op.mt)
  rt.get_loop():add_timer(op)
  return waits.wait(op)
end

local function expire(timer)
  Scope.cancel(timer.scope, timer.reason)
end

local function limited_end(loop, timer, message, ok, ...)
  loop:remove_timer(timer)
  if not ok and (...) == timer.reason then
    errors.raise("timeout", message, { retryable = true })
  end
  return finish(ok, ...)
end

local function limited(scope, ms, message, fn, ...)
  local loop = rt.loop
  local timer = {
    at = now() + ms, fire = expire, slot = false, number = 0, scope = scope,
    reason = errors.new("cancelled", ("cancelled by a time limit of %.14g ms"):format(ms)),
  }
  loop:add_timer(timer)
  return limited_end(loop, timer, message, tasks.run_scope(scope, fn, ...))
end

--- Runs `fn(...)`; when it has not ended after `ms`, what it waits for is cancelled and an error of
--- kind `timeout` is raised.
---@param ms number
---@param fn fun(...): ...
---@return any ...
function M.timeout(ms, fn, ...)
  options.ms(ms, "the time limit")
  check_callable(fn, "what to run with a time limit")
  return limited(tasks.new_scope(), ms, ("no end within %.14g ms"):format(ms), fn, ...)
end

--- Runs clean-up that a cancel from outside does not interrupt, for at most `ms` (5000); then it is
--- cancelled after all and kind `timeout` raised.
---@param fn fun(): ...
---@param ms number|nil
---@return any ...
function M.shield(fn, ms)
  check_callable(fn, "what to shield")
  ms = options.ms(ms == nil and M.CLEAN_UP_MS or ms, "the time of a shield")
  local message = ("clean-up did not end within %.14g ms"):format(ms)
  return limited(tasks.new_scope(nil, true), ms, message, fn)
end

--- Starts clean-up beside the caller: a task that no cancel reaches, for at most CLEAN_UP_MS. Its scope is
--- left after it. What it raises is dropped.
---@param fn fun()
---@param scope lbox.async.Node|nil  the current one; the root scope if it was left
---@return lbox.async.Task
function M.clean_up(fn, scope)
  scope = still_open(scope or waits.current().scope)
  local task = tasks.start(scope, "clean-up", pcall, M.timeout, M.CLEAN_UP_MS, fn)
  task.shield, task.cancel_error = true, false
  return task
end

return M
