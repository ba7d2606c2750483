--- Rides on a cqueues controller: one coroutine of it turns lbox whenever there is something to turn it
--- for. A call of lbox in another coroutine of the controller lets the others go on.
local async = require "lbox.async"
local errors = require "lbox.errors"

local M = {}

--- Attaches to a controller.
---@param controller table|nil  default: the one that runs
function M.attach(controller)
  local cqueues = require "cqueues"
  local condition = require "cqueues.condition"
  controller = controller or cqueues.running()
  if not controller then
    errors.raise("usage", "no controller of cqueues is running: call lbox.loop.use inside of it")
  end

  local news, rest = condition.new(), condition.new()
  local driving, stopped = false, false
  local pollable = {
    pollfd = async.engine():pollfd(),
    events = "r",
  }

  -- Whoever turns lbox may settle what another coroutine waits for.
  local function turn(max_wait)
    async.step(max_wait)
    news:signal()
    if async.idle() then
      rest:signal() -- `drive` may wait for what was the last, and came in another coroutine's turn
    end
  end

  local function drive()
    while not stopped and not async.idle() do
      cqueues.poll(pollable, rest)
      if not stopped then
        turn(0)
      end
    end
    driving = false
  end

  -- A coroutine that waits for nothing would keep the controller from its end.
  local function start()
    if not driving and not stopped then
      driving = true
      controller:wrap(drive)
    end
  end

  --- Suspends the running coroutine, if it is the controller's own, until `ready()`.
  local function park(ready)
    local running, is_own = cqueues.running()
    if running ~= controller or not is_own then
      return false
    end
    while not ready() do
      start()
      news:wait()
    end
    return true
  end

  async.attach {
    touch = function()
      start()
      rest:signal()
    end,
    park = park,
    wait = function(done)
      while not done() do
        if cqueues.running() then
          turn(nil) -- a controller cannot be run from inside: lbox is turned alone
        else
          start()
          assert(controller:step())
        end
      end
    end,
    breathe = function()
      turn(0)
    end,
    stop = function()
      stopped = true
      cqueues.cancel(pollable.pollfd)
      news:signal()
    end,
  }
  if not async.idle() then
    start()
  end
end

return M
