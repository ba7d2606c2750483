--- What is built of scopes and tasks: scope, gather, map, timeout, shield, sleep.
local Op = require "lbox.async.op"
local Scope = require "lbox.async.scope"
local errors = require "lbox.errors"
local options = require "lbox.options"
local tasks = require "lbox.async.task"

local M = {}

local unpack = table.unpack or unpack

local DEFAULT_CONCURRENCY = 16
local DEFAULT_SHIELD_MS = 5000

local function check_callable(fn, what)
  local mt = type(fn) ~= "function" and getmetatable(fn)
  if type(fn) ~= "function" and not (type(mt) == "table" and mt.__call) then
    errors.raise("usage", ("%s must be a function, got %s"):format(what, type(fn)))
  end
end

--- Runs `fn` in `scope`; results, or the error raised.
local function finish(ok, ...)
  if not ok then
    error((...), 0)
  end
  return ...
end

local function enter(scope, fn, ...)
  return finish(tasks.run_scope(scope.context, scope, fn, ...))
end

local function new_scope(on_error)
  local ctx = tasks.context()
  return Scope.new(ctx.inner, ctx, on_error)
end

--- Starts a task owned by the current scope.
---@param fn fun(...): ...
---@return lbox.async.Task
function M.spawn(fn, ...)
  check_callable(fn, "what to spawn")
  return tasks.start(tasks.context().inner, nil, fn, ...)
end

function Scope:spawn(fn, ...)
  check_callable(fn, "what to spawn")
  return tasks.start(self, nil, fn, ...)
end

local SCOPE_OPTIONS = { on_error = { "cancel", "wait" }, name = "string" }

--- Runs `fn(scope)` and waits for every task of the scope. The first error cancels the rest and is
--- raised; with `on_error = "wait"` the others finish first.
---@param fn fun(scope: lbox.async.Scope): ...
---@param opts { on_error: "cancel"|"wait"|nil }|nil
---@return any ...  what `fn` returned
function M.scope(fn, opts)
  check_callable(fn, "the body of a scope")
  options.check(opts, SCOPE_OPTIONS, "scope")
  local scope = new_scope(opts and opts.on_error)
  return enter(scope, fn, scope)
end

--- Runs functions side by side; the first result of each, or the first error.
---@param ... fun(): any
---@return any ...
function M.gather(...)
  local fns, n = { ... }, select("#", ...)
  for i = 1, n do
    check_callable(fns[i], "argument " .. i .. " of gather")
  end
  local results = {}
  enter(new_scope(), function()
    for i = 1, n do
      M.spawn(function()
        results[i] = fns[i]()
      end)
    end
  end)
  return unpack(results, 1, n)
end

local MAP_OPTIONS = { concurrency = "number", on_error = { "cancel", "collect" } }

--- Calls `fn(item, index)` for every item, at most `concurrency` at a time.
---@param list any[]
---@param fn fun(item: any, index: integer): any
---@param opts { concurrency: integer|nil, on_error: "cancel"|"collect"|nil }|nil
---@return table results  indexed like `list`, with n = #list
---@return table|nil errors  with "collect": what the failing items raised, indexed like `list`
function M.map(list, fn, opts)
  if type(list) ~= "table" then
    errors.raise("usage", "the list to map must be a table, got " .. type(list))
  end
  check_callable(fn, "the function of map")
  options.check(opts, MAP_OPTIONS, "map")
  opts = opts or {}
  local limit = opts.concurrency or DEFAULT_CONCURRENCY
  if limit < 1 or limit ~= math.floor(limit) then
    errors.raise("usage", "concurrency must be a whole number from 1 on, got " .. tostring(limit))
  end
  local n = #list
  local results, failures = { n = n }, {}
  local next_index = 1
  local collect = opts.on_error == "collect"

  local function one(index)
    results[index] = fn(list[index], index)
  end

  local function worker()
    while next_index <= n do
      local index = next_index
      next_index = index + 1
      if not collect then
        one(index)
      else
        local ok, err = pcall(one, index)
        if not ok then
          -- The cancel of the fan-out itself is not the failure of an item.
          if err == tasks.context().inner:cancelled() then
            error(err, 0)
          end
          failures[index] = err
        end
      end
    end
  end

  enter(new_scope(), function()
    for _ = 1, math.min(limit, n) do
      M.spawn(worker)
    end
  end)
  if collect then
    return results, failures
  end
  return results
end

--- Waits `ms` milliseconds.
---@param ms number
function M.sleep(ms)
  options.ms(ms, "the time to sleep")
  local loop = tasks.state().loop
  local timer
  local op = Op.new(function()
    timer:cancel()
  end)
  timer = loop:at(loop.now() + ms, function()
    op:resolve()
  end)
  return tasks.wait(op)
end

--- Runs `fn(...)`; when it has not ended after `ms`, what it waits for is cancelled and an error of kind
--- `timeout` raised.
---@param ms number
---@param fn fun(...): ...
function M.timeout(ms, fn, ...)
  options.ms(ms, "the time limit")
  check_callable(fn, "what to run with a time limit")
  local scope = new_scope()
  local loop = tasks.state().loop
  local expired
  local timer = loop:at(loop.now() + ms, function()
    expired = errors.new("cancelled", ("cancelled by a time limit of %g ms"):format(ms))
    scope:cancel(expired)
  end)
  local function done(ok, ...)
    timer:cancel()
    if not ok and expired ~= nil and (...) == expired then
      errors.raise("timeout", ("no end within %g ms"):format(ms), { retryable = true })
    end
    return finish(ok, ...)
  end
  return done(tasks.run_scope(scope.context, scope, fn, ...))
end

--- Runs clean-up that a cancel from outside may not interrupt, for at most `ms` (5000).
---@param fn fun(): ...
---@param ms number|nil
function M.shield(fn, ms)
  check_callable(fn, "what to shield")
  ms = ms or DEFAULT_SHIELD_MS
  options.ms(ms, "the time of a shield")
  local scope = new_scope()
  scope.shield = true
  local loop = tasks.state().loop
  local timer = loop:at(loop.now() + ms, function()
    scope:cancel(errors.new("timeout", ("clean-up did not end within %g ms"):format(ms)))
  end)
  local function done(...)
    timer:cancel()
    return finish(...)
  end
  return done(tasks.run_scope(scope.context, scope, fn))
end

--- Runs `fn(...)` as the main task, and the loop until it and its tasks ended.
---@param fn fun(...): ...
---@return any ...
function M.run(fn, ...)
  check_callable(fn, "what to run")
  return tasks.start(tasks.context().inner, "main", fn, ...):await()
end

return M
