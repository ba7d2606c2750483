--- The one way to wait. In the coroutine of a task a wait parks the task. Everywhere else (outside
--- tasks, in a gsub or sort callback, while a module is loaded, in a user's own coroutine) it turns
--- the loop on the spot until its operation is settled, while other tasks go on. Such waits end
--- last-in first-out.
---
--- A strand is whoever can be in a scope: a task, the code outside tasks, a user's coroutine that
--- entered a scope of its own. `strand.scope` is the innermost scope it is in.
local core = require "lbox.core"
local errors = require "lbox.errors"
local rt = require "lbox.async.runtime"
local trace = require "lbox.async.trace"

local M = {}

-- What tasks yield and are resumed with; nobody else has them.
local YIELD, GO = {}, {}
M.YIELD, M.GO = YIELD, GO

-- How long a task may run before a checkpoint lets others in.
local SLICE_MS = 2

-- Each wait inside another takes about six levels of the C stack, of which Lua 5.4 has 200.
local MAX_NESTED = 20

local guest_count = 0

-- Key of the main coroutine among the guests: LuaJIT has no object for it.
local MAIN = {}

local running, yield = coroutine.running, coroutine.yield
local isyieldable = rawget(coroutine, "isyieldable")
local now = core.now

-- A coroutine without a scope of its own is in that of whoever resumed it: of the guests of this
-- strand that are resuming somebody now, the one that entered last.
local function innermost_guest(strand)
  local found
  for co, guest in pairs(rt.guests) do
    if guest.host == strand and co ~= MAIN and coroutine.status(co) == "normal"
      and (not found or guest.number > found.number) then
      found = guest
    end
  end
  return found
end

--- The strand that runs, and the running coroutine (nil: the main one).
function M.current()
  local strand = rt.strand or rt.open()
  local co, is_main = running()
  if co == strand.co then
    return strand, co
  elseif is_main then
    co = nil
    if strand.co == nil then
      return strand, nil
    end
  end
  local guest = rt.guests[co or MAIN]
  if not guest and next(rt.guests) then
    guest = innermost_guest(strand)
  end
  return guest or strand, co
end

--- The strand that is to enter a scope. A coroutine of the user's that does so becomes a strand of
--- its own: it may yield to the user's code in the middle of the scope.
function M.entering()
  local strand, co = M.current()
  if co ~= strand.co and rt.guests[co or MAIN] ~= strand then
    -- Without `co`: a weak table holds the strand by that very coroutine.
    strand = rt.new_strand(strand.scope, nil)
    guest_count = guest_count + 1
    strand.is_guest, strand.base = true, strand.scope
    strand.host, strand.number = rt.strand, guest_count
    rt.guests[co or MAIN] = strand
  end
  return strand
end

--- A strand left a scope and is in `outer` again.
function M.leaving(strand, outer)
  strand.scope = outer
  if strand.is_guest and outer == strand.base and rt.guests then
    local co, is_main = running()
    local key = not is_main and co or MAIN
    if rt.guests[key] == strand then
      rt.guests[key] = nil
    end
  end
end

-- ----------------------------------------------------------------- turning the loop on the spot

local function too_deep(nested, place)
  return errors.new("usage", ("%d calls wait inside each other where nothing can yield: the first "
    .. "at %s, the last at %s, and now %s"):format(#nested, nested[1], nested[#nested], place))
end

--- Runs `fn(arg)`, which turns the loop: what is called back meanwhile is in the root scope, not in
--- ours. Returns the error that ended it, if one did.
local function detached(co, place, fn, arg)
  local nested, strand, loop = rt.nested, rt.strand, rt.loop
  nested[#nested + 1] = place
  rt.strand = rt.new_strand(rt.root, co)
  local ok, err = pcall(fn, arg)
  nested[#nested] = nil
  if rt.loop ~= loop then
    return errors.new("cancelled", "lbox was closed while this waited")
  end
  rt.strand = strand
  strand.slice_at = false
  loop:rest()
  return not ok and err or nil
end

local function deadlock()
  errors.raise("usage", "nothing is left to wait for: every task waits for another, no timer and "
    .. "no transfer is open; waiting here: " .. table.concat(rt.nested, ", and inside of it: "))
end

local function turn_until(done)
  local loop = rt.loop
  if loop.driver then
    loop:host("wait", done)
  end
  while not done() do
    if loop.closed then
      return
    elseif loop:idle() then
      deadlock()
    end
    loop:turn(nil)
  end
end

local function turn_once(loop)
  if loop.driver then
    loop:host("breathe")
  else
    loop:turn(0)
  end
end

--- Waits until the operation is settled or `scope` cancelled: where the host can suspend the running
--- coroutine by that, else by turning the loop. Returns the error that ended it before, if one did.
local function block_here(co, op, scope)
  local loop = rt.loop
  local function over()
    return op.settled or loop.closed or (scope and scope.cancel_error ~= false) or false
  end
  local park = loop.driver and loop.driver.park
  if park and park(over) then
    return nil
  end
  local nested = rt.nested
  local place = trace.user_line(3)
  if #nested >= MAX_NESTED then
    return too_deep(nested, place)
  end
  return detached(co, place, turn_until, over)
end

-- ------------------------------------------------------------------------------- parking a task

--- Parks the running task until the scheduler resumes it. When somebody else resumes its coroutine,
--- that one gets an error object back, and so does the task, once the scheduler has it again.
local function park(task)
  task.parked_at = now()
  if yield(YIELD) == GO then
    return nil
  end
  local err = errors.new("usage",
    "the coroutine of a task was resumed by code outside lbox: only lbox may resume it")
  local op = task.waiting
  if op then
    op.waiter, task.waiting = false, false
    task.loop:wake(task)
  end
  while yield(err) ~= GO do
    -- whoever does it again gets the same answer
  end
  return err
end

local function give_up(op, err)
  op.waiter = false
  if op.on_cancel then
    op.on_cancel(op)
  end
  error(err, 0)
end

--- Waits for an operation: its results, or its error raised. If the scope is cancelled, the
--- operation is told (on_cancel) and the scope's `cancelled` is raised.
---@param op lbox.async.Op
---@return any ...
function M.wait(op)
  local strand, co = M.current()
  local scope = strand.scope
  if scope.cancel_error then
    give_up(op, scope.cancel_error)
  elseif not op.settled then
    if op.waiter then
      errors.raise("usage", "a task waits for this operation already")
    end
    local err
    if co == strand.co and strand.is_task and isyieldable() then
      op.waiter, strand.waiting = strand, op
      err = park(strand)
      strand.waiting = false
    else
      err = block_here(co, op, scope)
    end
    if not op.settled then
      give_up(op, err or scope.cancel_error)
    end
  end
  return op:result()
end

--- Waits for an operation whatever is cancelled: for ends that have to be waited for.
---@param op lbox.async.Op
function M.wait_through(op)
  local strand, co = M.current()
  while not op.settled do
    if co == strand.co and strand.is_task and isyieldable() then
      op.waiter = strand
      park(strand)
    else
      local err = block_here(co, op, nil)
      if err then
        error(err, 0)
      end
    end
  end
  return op:result()
end

--- Raises if the scope is cancelled, and lets others run once this strand had its slice.
function M.checkpoint()
  local strand, co = M.current()
  local scope = strand.scope
  if scope.cancel_error then
    error(scope.cancel_error, 0)
  end
  local time = now()
  if not strand.slice_at then
    strand.slice_at = time
    return
  elseif time - strand.slice_at < SLICE_MS then
    return
  end
  local err
  if co == strand.co and strand.is_task and isyieldable() then
    strand.loop.pressed = true
    strand.loop:wake(strand)
    err = park(strand)
  elseif #rt.nested < MAX_NESTED then
    err = detached(co, "a checkpoint", turn_once, rt.loop)
  end
  strand.slice_at = false
  if err or scope.cancel_error then
    error(err or scope.cancel_error, 0)
  end
end

return M
