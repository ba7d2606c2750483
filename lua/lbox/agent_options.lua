--- The options of agents themselves: snake_case for the user, on the wire as each harness spells them
--- (box-api.md §1.5).
local M = {}

local CAMEL_CASE = { ["claude-code"] = true, opencode = true }

local function camel(key)
  return (key:gsub("_(%l)", string.upper))
end

--- The options on the wire; nil when there are none. Only the names at the top are spelled anew.
---@param given table|nil
---@param harness string|nil
---@return table|nil
function M.wire(given, harness)
  if not given or next(given) == nil then
    return nil
  end
  local wire = {}
  for key, value in pairs(given) do
    wire[CAMEL_CASE[harness] and type(key) == "string" and camel(key) or key] = value
  end
  return wire
end

return M
