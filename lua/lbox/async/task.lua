--- Tasks: coroutines owned by a scope, and the one way to wait.
---
--- A wait yields only in the task's own coroutine. Everywhere else (outside tasks, in a gsub callback,
--- in a user's generator) it turns the loop on the spot until its operation is done, while other tasks
--- go on.
local Op = require "lbox.async.op"
local Scope = require "lbox.async.scope"
local errors = require "lbox.errors"
local loops = require "lbox.async.loop"

local M = {}

-- What tasks yield and are resumed with; nobody else has them.
local YIELD, GO = {}, {}

-- How long a task may run before a checkpoint lets others in.
local SLICE_MS = 2

-- Waits that turn the loop inside each other use the C stack, which ends at about 200 levels.
local MAX_NESTED = 40

---@class lbox.async.Task
---@field status "running"|"done"|"failed"|"cancelled"
---@field name string
local Task = {}
Task.__index = Task

-- Code outside every task waits in the root scope, which reports errors instead of raising them.
local Outside = {}
Outside.__index = Outside

-- Called when a state's loop has been made: where a host's event loop is attached. Set by loop/init.lua.
M.on_start = nil

local state -- { loop, root, outside, current, live, nested }

local function get_state()
  local loop = loops.get()
  if not state or state.loop ~= loop then
    local outside = setmetatable({}, Outside)
    local root = Scope.new(nil, outside, "report")
    outside.inner = root
    state = { loop = loop, root = root, outside = outside, live = 0, nested = {}, driver = nil }
    if M.on_start then
      M.on_start()
    end
  end
  return state
end
M.state = get_state

--- The running task, or nil outside of every task.
function M.current()
  return state and state.current
end

local function context()
  local s = get_state()
  return s.current or s.outside
end
M.context = context

-- The last error that was seen raised, with the places it passed: strings carry no traceback.
local seen = {}

--- Notes where an error was raised; for one that comes up through several tasks, all the places.
local function note_traceback(err)
  local text = debug.traceback("", 2):gsub("^\n", "")
  if seen.err ~= err or seen.err == nil then
    seen = { err = err, text = text }
  else
    seen.text = seen.text .. "\nawaited by:\n" .. text
  end
  if errors.is(err) then
    err.traceback = seen.text
  end
  return err
end

--- The traceback of the error that was raised last, when it is `err`.
function M.traceback(err)
  if errors.is(err) and err.traceback then
    return err.traceback
  end
  return seen.err == err and seen.text or nil
end

--- An error as text with its traceback, for a host that takes nothing else.
function M.describe(err)
  local text = type(err) == "string" and err or tostring(err)
  local traceback = M.traceback(err)
  return traceback and text .. "\n" .. traceback or text
end

-- ---------------------------------------------------------------------------------- waiting

--- The line that called into lbox, as "file:line".
local function here()
  for level = 3, 20 do
    local info = debug.getinfo(level, "Sl")
    if not info then
      break
    elseif info.currentline > 0 and not info.source:find("lbox[./]async") then
      return info.short_src .. ":" .. info.currentline
    end
  end
  return "?"
end

--- Turns the loop until `done()`, on the spot.
local function turn_until(s, done)
  local nested = s.nested
  if #nested >= MAX_NESTED then
    errors.raise("usage", ("calls that cannot yield wait inside each other too deep (%d): the first at %s, "
      .. "the last at %s"):format(#nested, nested[1], here()))
  end
  nested[#nested + 1] = here()
  local current, resumed_at = s.current, s.current and s.current.resumed_at
  s.current = nil
  local ok, err = pcall(function()
    if s.driver and #nested == 1 then
      s.driver.wait(done)
    end
    while not done() do
      if s.loop:idle() then
        errors.raise("usage", "nothing is left to wait for: every task waits for another")
      end
      s.loop:turn(nil)
    end
  end)
  s.current = current
  if current then
    current.resumed_at = resumed_at
  end
  nested[#nested] = nil
  if not ok then
    error(err, 0)
  end
end

local function can_yield(task)
  return task and coroutine.running() == task.co and coroutine.isyieldable()
end

--- Blocks until the operation is settled; `interruptible` waits also end when the scope is cancelled.
local function block(ctx, op, interruptible)
  local s = state
  local task = s.current
  ctx.interrupted = nil
  ctx.waiting = interruptible and op or nil
  if can_yield(task) then
    op.waiter = task.wake
    if coroutine.yield(YIELD) ~= GO then
      errors.raise("usage", "a task was resumed by code outside lbox: coroutines of tasks are lbox's own")
    end
  else
    -- A wait inside this one may use the same context: its own interruption must stay its own.
    local interrupted = false
    op.interrupt = function() interrupted = true end
    turn_until(s, function()
      return op.settled or interrupted or (interruptible and ctx.inner:cancelled() ~= nil)
    end)
  end
  ctx.waiting = nil
end

--- Waits for an operation: its results, or its error raised. When the scope is cancelled first, the
--- operation is told (on_cancel) and the scope's `cancelled` is raised.
---@param op lbox.async.Op
function M.wait(op)
  local ctx = context()
  local err = ctx.inner:cancelled()
  if not op.settled and not err then
    block(ctx, op, true)
    err = ctx.inner:cancelled()
  end
  if op.settled then
    return op:result()
  end
  op.waiter = nil
  if op.on_cancel then
    op.on_cancel(op)
  end
  error(err, 0)
end

--- Waits for an operation whatever is cancelled: for ends that have to be waited for.
function M.wait_through(op)
  local ctx = context()
  while not op.settled do
    block(ctx, op, false)
  end
  return op:result()
end

--- Raises if the scope is cancelled, and lets others run when this task had its slice.
function M.checkpoint()
  local ctx = context()
  local err = ctx.inner:cancelled()
  if err then
    error(err, 0)
  end
  local s = state
  local task = s.current
  local now = s.loop.now()
  if now - (ctx.resumed_at or 0) < SLICE_MS then
    return
  end
  if can_yield(task) then
    s.loop:defer(task.wake_fn)
    if coroutine.yield(YIELD) ~= GO then
      errors.raise("usage", "a task was resumed by code outside lbox: coroutines of tasks are lbox's own")
    end
  elseif #s.nested < MAX_NESTED then
    local current = s.current
    s.current = nil
    s.nested[#s.nested + 1] = "checkpoint"
    local ok, why = pcall(s.loop.turn, s.loop, 0)
    s.nested[#s.nested] = nil
    s.current = current
    ctx.resumed_at = s.loop.now()
    if not ok then
      error(why, 0)
    end
  end
  err = ctx.inner:cancelled()
  if err then
    error(err, 0)
  end
end

function Outside.interrupt()
  -- Whoever blocks outside tasks looks at the scope after every turn.
  state.loop.engine:wake(true)
end

function Task:interrupt()
  local op = self.waiting
  if op and not op.settled and self.inner:cancelled() then
    self.waiting = nil
    op.waiter = nil
    if op.interrupt then
      op.interrupt()
    else
      self.wake()
    end
  end
end

-- ------------------------------------------------------------------------------------ tasks

local function resume(task)
  local s = state
  local previous = s.current
  s.current = task
  task.resumed_at = s.loop.now()
  local ok, token = coroutine.resume(task.co, GO)
  s.current = previous
  if coroutine.status(task.co) ~= "dead" then
    if token ~= YIELD then
      task:finish(false, errors.new("usage",
        "a task yielded to lbox: use coroutine.yield only in coroutines of your own"))
    end
  elseif not ok then
    task:finish(false, token)
  end
end

--- Waits until the scope's tasks ended, whatever is cancelled meanwhile.
local function join(scope)
  while scope.count > 0 do
    scope.empty = Op.new()
    M.wait_through(scope.empty)
    scope.empty = nil
  end
end

local function pack(...)
  return { n = select("#", ...), ... }
end
local unpack = table.unpack or unpack

--- Runs `fn` in `scope` to its end: the body, then its tasks. Returns ok and the results, or the error.
local function run_scope(ctx, scope, fn, ...)
  local outer = ctx.inner
  ctx.inner = scope
  local args = pack(...)
  local results = pack(xpcall(function() return fn(unpack(args, 1, args.n)) end, note_traceback))
  if not results[1] then
    local err = results[2]
    -- The cancel of this scope is not an error of its own: what caused it is.
    if err ~= scope.cancel_error or not scope.failed then
      if not scope.failed then
        scope.failure, scope.failed = err, true
      end
      if not scope:cancelled() then
        scope:cancel(errors.new("cancelled", "cancelled because the task around failed", { cause = err }))
      end
    end
  end
  join(scope)
  scope:leave()
  ctx.inner = outer
  if scope.failed then
    return false, scope.failure
  end
  return unpack(results, 1, results.n)
end
M.run_scope = run_scope

--- Starts a task that runs `fn(...)`, owned by `scope`.
---@return lbox.async.Task
function M.start(scope, name, fn, ...)
  local s = get_state()
  if scope.left then
    errors.raise("usage", "the scope is already left: a task cannot be spawned into it")
  end
  local args = pack(...)
  local task = setmetatable({ status = "running", name = name, owner = scope, awaiters = {} }, Task)
  task.scope = Scope.new(scope, task)
  task.inner = task.scope
  task.co = coroutine.create(function()
    task:finish(run_scope(task, task.scope, fn, unpack(args, 1, args.n)))
  end)
  task.wake_fn = function() resume(task) end
  task.wake = function() s.loop:defer(task.wake_fn) end
  scope:add(task)
  s.live = s.live + 1
  task.wake()
  return task
end

--- The task ended. Its awaiters hear of it before its scope does, so that they get the very error.
function Task:finish(ok, ...)
  if self.status ~= "running" then
    return
  end
  local s = state
  self.results = pack(...)
  local err = ...
  if ok then
    self.status = "done"
  elseif err == self.scope:cancelled() then
    self.status = "cancelled"
  else
    self.status = "failed"
  end
  s.live = s.live - 1
  for _, op in ipairs(self.awaiters) do
    if ok then
      op:resolve(...)
    else
      op:reject(err)
    end
  end
  local owner = self.owner
  owner.inner[self.scope] = nil
  if self.status == "failed" then
    if owner.on_error ~= "report" then
      owner:fail(err)
    elseif #self.awaiters == 0 then
      M.report(err)
    end
  end
  owner:remove(self)
end

--- Waits for the task: its results, or its error raised.
function Task:await()
  if self.status == "running" then
    local op = Op.new()
    self.awaiters[#self.awaiters + 1] = op
    return M.wait(op)
  elseif self.status == "done" then
    return unpack(self.results, 1, self.results.n)
  end
  error(self.results[1], 0)
end

--- Cancels the task and everything it spawned. It has ended when `await` returns or raises.
---@param reason string|nil
function Task:cancel(reason)
  if self.status == "running" then
    self.scope:cancel(reason or "cancelled")
  end
end

--- Hands an error nobody takes to the host, as a string.
function M.report(err)
  local s = get_state()
  local text = M.describe(err)
  if s.on_error then
    s.on_error(text)
  else
    io.stderr:write("lbox: error in a task: ", text, "\n")
  end
end

--- Ends everything: cancels all tasks, gives them `grace` ms to clean up, and drops the loop.
function M.close(grace)
  if not state then
    return
  end
  local s = state
  s.root:cancel("lbox is closing")
  local deadline = s.loop.now() + (grace or 0)
  while s.live > 0 and s.loop.now() < deadline do
    s.loop:turn(deadline - s.loop.now())
  end
  if s.driver then
    s.driver.stop()
  end
  state = nil
  loops.drop()
end

return M
