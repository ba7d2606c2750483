--- The event loop lbox rides on. Built in is its own, which polls while a call waits; in Neovim the
--- editor's is taken by itself. Any other loop drives lbox with four calls: pollfd, events,
--- timeout, step.
local async = require "lbox.async"
local errors = require "lbox.errors"

local M = {}

local ADAPTERS = { poll = "lbox.loop.poll", uv = "lbox.loop.uv", cqueues = "lbox.loop.cqueues" }

local DRIVER = { "wait", "breathe", "touch", "stop" }

--- A descriptor that is readable whenever `step` has something to do.
---@return integer
function M.pollfd()
  return async.engine():pollfd()
end

--- What to poll the descriptor for.
---@return "r"
function M.events()
  return "r"
end

--- Milliseconds until `step` has something to do even if the descriptor stays quiet; nil: no such
--- time.
---@return number|nil
function M.timeout()
  return async.engine():timeout()
end

--- Does what is due, waiting at most `max_wait` ms (0). Returns whether there is more to do now.
---@param max_wait number|nil
---@return boolean
function M.step(max_wait)
  return async.step(max_wait or 0)
end

--- Chooses the loop: "poll" (built in), "uv", "cqueues", or a table of four functions: `wait(done)` runs
--- the host's loop until `done()`, `breathe()` for a moment, `touch()` hears that there is something to
--- step for, `stop()` ends it. A fifth, `park(done)`, if there is one, suspends the running coroutine
--- until `done()`, or returns false where it cannot. Raises `usage` for anything else.
---@param loop "poll"|"uv"|"cqueues"|table
function M.use(loop)
  if type(loop) == "table" then
    for _, name in ipairs(DRIVER) do
      if type(loop[name]) ~= "function" then
        errors.raise("usage", ("a loop of your own needs the function %s"):format(name))
      end
    end
    async.attach(loop)
  elseif ADAPTERS[loop] then
    require(ADAPTERS[loop]).attach()
  else
    errors.raise("usage", ('no event loop %s: there are "poll", "uv" and "cqueues"'):format(
      type(loop) == "string" and ("%q"):format(loop) or tostring(loop)))
  end
end

return M
