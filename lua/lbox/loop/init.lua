--- The event loop lbox rides on. Built in is its own poll loop; in Neovim the editor's is taken by
--- itself. Any other loop drives lbox with four calls: pollfd, events, timeout, step.
local async = require "lbox.async"
local errors = require "lbox.errors"
local tasks = require "lbox.async.task"

local M = {}

local ADAPTERS = { uv = "lbox.loop.uv" }

--- A descriptor that is readable whenever `step` has something to do.
---@return integer
function M.pollfd()
  return async.engine():pollfd()
end

--- What to poll the descriptor for.
function M.events()
  return "r"
end

--- Milliseconds until `step` has something to do even if the descriptor stays quiet; nil: none.
function M.timeout()
  return async.engine():timeout()
end

--- Does what is due, waiting at most `max_wait` ms (0). Returns whether there is more to do now.
function M.step(max_wait)
  return async.step(max_wait or 0)
end

--- Chooses the loop: "poll" (built in) or "uv".
---@param name string
function M.use(name)
  if name == "poll" then
    async.attach(nil)
    return
  end
  local module = ADAPTERS[name]
  if not module then
    errors.raise("usage", ('no event loop %q: there are "poll" and "uv"'):format(tostring(name)))
  end
  require(module).attach()
end

-- Neovim's own loop is the one to ride on there, from the first call that needs one.
tasks.on_start = function()
  local vim = rawget(_G, "vim")
  if vim and vim.schedule then
    M.use("uv")
  end
end

return M
