--- Tasks: coroutines owned by a scope, each the scope of what it spawns itself. The body is called
--- with xpcall inside the task's own coroutine, so that clean-up may wait.
local Op = require "lbox.async.op"
local Scope = require "lbox.async.scope"
local core = require "lbox.core"
local errors = require "lbox.errors"
local rt = require "lbox.async.runtime"
local trace = require "lbox.async.trace"
local waits = require "lbox.async.wait"

local M = {}

local unpack = rawget(table, "unpack") or rawget(_G, "unpack")
local YIELD, GO = waits.YIELD, waits.GO
local create, resume_co, yield = coroutine.create, coroutine.resume, coroutine.yield
local close_co = rawget(coroutine, "close")
local note = trace.note

-- What can run without waiting runs on after the grace of a close, so long at most.
local OVERTIME_MS = 100

---@class lbox.async.Task: lbox.async.Node
---@field status "running"|"done"|"failed"|"cancelled"
---@field name string  given, or where its function stands
---@field co thread|false  false once it ended
---@field scope lbox.async.Node  the innermost scope it is in
---@field waiting lbox.async.Op|false  what it is parked for, unless that cannot be cancelled
local Task = {}

local Task_mt = { __name = "lbox.Task" }

-- Internal fields are never nil, so that only methods and the name come here.
function Task_mt.__index(task, key)
  if key == "name" then
    local info = type(task.fn) == "function" and debug.getinfo(task.fn, "S")
    return info and ("task at %s:%d"):format(info.short_src, info.linedefined) or "task"
  end
  return Task[key]
end

function Task_mt.__tostring(task)
  return ("%s (%s)"):format(task.name, task.status)
end

-- ------------------------------------------------------------------------------- ends of scopes

local leave

--- Waits until nothing is left inside, whatever is cancelled meanwhile. Where the wait itself is
--- not possible the scope fails and is cancelled; if that does not help either, the rest is given
--- up.
local function join(scope)
  local tried = false
  while scope.first do
    local child = scope.first
    while child and child.is_task do
      child = child.next
    end
    if child then
      -- Entered by a coroutine that yielded to the user's code in it and was never resumed.
      Scope.cancel(child, "the scope around was left")
      leave(child)
    else
      local op = Op.new()
      scope.joiners = scope.joiners or {}
      scope.joiners[#scope.joiners + 1] = op
      local ok, err = pcall(waits.wait_through, op)
      if not ok then
        Scope.fail(scope, err, "cancelled because its end cannot be waited for")
        if tried then
          return
        end
        Scope.cancel(scope, "cancelled because its end cannot be waited for")
        tried = true
      end
    end
  end
end

--- Everything inside ends, what was opened in it is closed.
function leave(scope)
  if scope.first then
    join(scope)
  end
  if scope.closer then
    Scope.run_closers(scope, note)
    join(scope)
  end
  scope.left = true
  if not scope.is_task then
    Scope.unlink(scope)
  end
end

local function conclude(strand, scope, outer, ok, ...)
  if not ok then
    local err = ...
    if err ~= scope.cancel_error then
      Scope.fail(scope, err, "cancelled because the code around it failed")
    elseif not scope.failed then
      scope.failed, scope.failure = true, err
    end
  end
  local unfinished = scope.first
  leave(scope)
  if unfinished and scope.cancel_error and not scope.failed then
    -- The end of a scope is a wait like any other: what was cancelled is not complete.
    scope.failed, scope.failure = true, scope.cancel_error
  end
  waits.leaving(strand, outer)
  if scope.failed then
    return false, scope.failure
  end
  return true, ...
end

--- Enters a new scope, made for the running strand, and runs `fn` in it to its end: the body, then
--- everything inside. Returns true and the results, or false and the error.
---@param scope lbox.async.Node
function M.run_scope(scope, fn, ...)
  local strand = scope.strand
  local outer = strand.scope
  strand.scope = scope
  return conclude(strand, scope, outer, xpcall(fn, note, ...))
end

--- A new scope inside the current one, for the running strand.
function M.new_scope(on_error, shield)
  local strand = waits.entering()
  return Scope.new(strand.scope, strand, on_error, shield)
end

-- ---------------------------------------------------------------------------------------- tasks

--- The task ended. Its awaiters hear of it before its owner does, so that they get the very error.
local function finish(task, ok, ...)
  local owner = task.parent
  local n = select("#", ...)
  task.n = n
  if n == 1 then
    task.value = ...
  elseif n > 1 then
    task.value = { ... }
  end
  if ok then
    task.status = "done"
  elseif task.value == task.cancel_error then
    task.status = "cancelled"
  else
    task.status = "failed"
  end
  task.co = false
  if task.loop == rt.loop then
    rt.live = rt.live - 1
  end
  local first, others = task.awaiter, task.awaiters
  task.awaiter, task.awaiters = false, false
  if first then
    first:resolve()
  end
  for _, op in ipairs(others or {}) do
    op:resolve()
  end
  if task.status == "failed" then
    if owner.on_error ~= "report" then
      Scope.fail(owner, task.value, "cancelled because another task failed")
    elseif not first and not others then
      rt.report(task.value)
    end
  end
  Scope.unlink(task)
end

local function body(task, fn, ...)
  yield(YIELD) -- the arguments stay here until the loop starts the task
  if task.cancel_error then
    -- Cancelled before it began: it does not begin.
    task.left = true
    finish(task, false, task.cancel_error)
  else
    finish(task, conclude(task, task, task, xpcall(fn, note, ...)))
  end
end

local function end_collapsed(task, err)
  finish(task, conclude(task, task, task, false, err))
end

local resume

--- The coroutine of a task is lost: it yielded to us what is not ours, or somebody closed it. What
--- is in the task is ended by another one.
local function collapse(task, ok, token)
  local lost = task.co
  local err
  if ok then
    err = errors.new("usage",
      "a task yielded to lbox: use coroutine.yield only in coroutines of your own",
      { traceback = trace.of(lost) })
    if close_co then
      close_co(lost)
    end
  else
    err = errors.new("usage",
      "the coroutine of a task was ended by code outside lbox: " .. tostring(token))
  end
  if task.waiting then
    local op = task.waiting
    op.waiter, task.waiting = false, false
    if op.on_cancel then
      pcall(op.on_cancel, op)
    end
  end
  task.co = create(end_collapsed)
  rt.strand, lost = task, rt.strand
  local _, next_token = resume_co(task.co, task, err)
  rt.strand = lost
  if next_token ~= YIELD and task.co then
    collapse(task, true, next_token)
  end
end

--- Lets a task run until it parks or ends. Only the loop calls this.
function resume(task)
  task.queued = false
  local co = task.co
  if not co then
    return
  end
  local previous = rt.strand
  rt.strand = task
  task.slice_at = false
  local ok, token = resume_co(co, GO)
  rt.strand = previous
  if token ~= YIELD and task.co then
    collapse(task, ok, token)
  end
end

--- Starts a task that runs `fn(...)`, owned by `owner`. It begins in the next turn of the loop.
---@param owner lbox.async.Node
---@param name string|nil
---@return lbox.async.Task
function M.start(owner, name, fn, ...)
  if owner.left then
    errors.raise("usage", "the scope is already left: no task can be spawned in it")
  end
  local loop = rt.loop
  local task = setmetatable({
    parent = false, first = false, last = false, next = false, prev = false, strand = false,
    cancel_error = false, failed = false, failure = false, on_error = "cancel", shield = false,
    left = false, is_task = true, joiners = false, closer = false, carries = false,
    status = "running", name = name, fn = fn, co = create(body), scope = false,
    waiting = false, queued = false, slice_at = false, loop = loop, resume = resume,
    parked_at = false, awaiter = false, awaiters = false, n = 0, value = false, is_guest = false,
  }, Task_mt)
  task.strand, task.scope = task, task
  Scope.link(task, owner)
  rt.live = rt.live + 1
  resume_co(task.co, task, fn, ...)
  loop:wake(task)
  return task
end

-- Somebody who waited for the task was cancelled.
local function forget_awaiter(op)
  local task = op.task
  if task.awaiter == op then
    task.awaiter = false
  end
  for i, other in ipairs(task.awaiters or {}) do
    if other == op then
      table.remove(task.awaiters, i)
      break
    end
  end
end

--- Waits for the task: its results, or its error raised.
---@return any ...
function Task:await()
  if self.status == "running" then
    if self == rt.strand then
      errors.raise("usage", "a task cannot await itself")
    end
    local op = Op.new(forget_awaiter)
    op.task = self
    if not self.awaiter then
      self.awaiter = op
    else
      self.awaiters = self.awaiters or {}
      self.awaiters[#self.awaiters + 1] = op
    end
    waits.wait(op)
  end
  if self.status ~= "done" then
    error(self.value, 0)
  elseif self.n == 1 then
    return self.value
  elseif self.n > 1 then
    return unpack(self.value, 1, self.n)
  end
end

--- Cancels the task and everything in it. It has ended when `await` returns or raises; a task that
--- has not begun does not begin.
---@param reason string|nil
function Task:cancel(reason)
  Scope.cancel(self, reason)
end

--- The running task, or nil outside of every task.
---@return lbox.async.Task|nil
function M.current()
  local strand = rt.strand
  return strand and strand.is_task and strand or nil
end

local function close_scope(scope)
  Scope.run_closers(scope, note)
  if scope.failed and scope == rt.root then
    rt.report(scope.failure)
  end
end

--- Ends everything from wherever it is called, also in a task, as when the host exits: whoever
--- calls it does not get to its own clean-up.
---@param grace number|nil  0
function M.shut_down(grace)
  if not rt.loop then
    return
  end
  local loop, root = rt.loop, rt.root
  local stop_at = core.now() + (grace or 0)
  Scope.cancel(root, "lbox is closing")
  -- What was opened outside tasks, and by whoever calls this, is closed by a task that the cancel does
  -- not reach.
  local scope = rt.strand.scope
  while scope do
    if scope.closer then
      M.start(root, "closing", close_scope, scope).cancel_error = false
    end
    scope = scope.parent
  end
  while root.first and not loop:idle() and not loop.closed do
    local left = stop_at - core.now()
    if left <= 0 and (loop.head > loop.tail or left < -OVERTIME_MS) then
      break
    end
    loop:turn(math.max(left, 0))
  end
  rt.drop()
end

--- Ends everything: cancels all tasks, gives them `grace` ms to clean up, and drops the loop. What
--- is used afterwards begins anew.
---@param grace number|nil  0
function M.close(grace)
  if M.current() then
    errors.raise("usage", "close is for the code outside tasks: a task would wait for its own end")
  end
  M.shut_down(grace)
end

return M
