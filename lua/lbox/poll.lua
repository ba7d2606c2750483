--- Looking at what a server is making until it is made.
local async = require "lbox.async"
local errors = require "lbox.errors"

local M = {}

-- What is not made by then is not going to be.
local GIVE_UP_MS = 300000
-- How often it is looked at: soon at first, then ever more rarely.
local FIRST_MS, LAST_MS = 250, 2000

--- Looks until `look()` returns true. A look that fails is repeated. Raises `timeout` after 300 s, or when
--- the deadline comes before the next look.
---@param name string  what is made, for the error: "box b1"
---@param look fun(): boolean
---@param deadline lbox.Deadline
---@param facts table  fields of the error
function M.wait(name, look, deadline, facts)
  local started, pause = async.now(), FIRST_MS
  repeat
    local now = async.now()
    if now - started >= GIVE_UP_MS or (deadline.at and now + pause >= deadline.at) then
      errors.raise("timeout", ("%s was still being created after %.1f s"):format(
        name, (now - started) / 1000), facts)
    end
    async.sleep(pause)
    pause = math.min(pause * 1.5, LAST_MS)
    local ok, made = pcall(look)
    if not ok and not (errors.is(made, "api") or errors.is(made, "network")) then
      error(made, 0)
    end
  until ok and made
end

return M
