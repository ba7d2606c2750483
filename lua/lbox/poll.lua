--- Looking at what a server is making until it is made.
local async = require "lbox.async"
local errors = require "lbox.errors"

local M = {}

-- What is not made by then is not going to be.
local GIVE_UP_MS = 300000
-- How often it is looked at: soon at first, then ever more rarely.
local FIRST_MS, LAST_MS = 250, 2000

-- A server may not know at once what it has just begun; after so many looks it is gone.
local GONE_LOOKS = 3

--- Whether a look that failed says that no other will do better.
local function is_final(err, looks)
  if not (errors.is(err, "api") or errors.is(err, "network")) then
    return true
  elseif err.status_code == 404 then
    return looks >= GONE_LOOKS
  end
  return err.status_code ~= nil and err.status_code >= 400 and err.status_code < 500 and not err.retryable
end

--- Looks until `look()` returns true. A look that fails is repeated, unless the server refuses it. Raises `timeout`
--- after 300 s, or when the deadline comes before the next look.
---@param name string  what is made, for the error: "box b1"
---@param look fun(): boolean
---@param deadline lbox.Deadline
---@param facts table  fields of the error
function M.wait(name, look, deadline, facts)
  local started, pause, looks = async.now(), FIRST_MS, 0
  repeat
    local now = async.now()
    if now - started >= GIVE_UP_MS or (deadline.at and now + pause >= deadline.at) then
      errors.raise("timeout", ("%s was still being created after %.1f s"):format(
        name, (now - started) / 1000), facts)
    end
    async.sleep(pause)
    pause = math.min(pause * 1.5, LAST_MS)
    local ok, made = pcall(look)
    looks = looks + 1
    if not ok and is_final(made, looks) then
      error(made, 0)
    end
  until ok and made
end

return M
