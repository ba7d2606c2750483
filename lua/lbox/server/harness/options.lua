--- Options of agents (`agent_options`, box-api.md §1.5), checked: what a harness does not know is refused, for taken
--- in silence it would be a lie.
local errors = require "lbox.errors"
local json = require "lbox.json"

local M = {}

local function refuse(message)
  errors.raise("api", message, { status_code = 400 })
end

local TYPES = {
  string = { "a string", function(v) return type(v) == "string" and not v:find("\0", 1, true) end },
  boolean = { "true or false", function(v) return type(v) == "boolean" end },
  count = { "a whole number from 1 on", function(v) return math.type(v) == "integer" and v > 0 end },
  amount = { "a number above 0", function(v) return type(v) == "number" and v > 0 end },
  object = { "an object", function(v) return type(v) == "table" and #v == 0 and not json.is_array(v) end },
  strings = { "a list of strings", function(v)
    for _, each in ipairs(type(v) == "table" and v or {}) do
      if type(each) ~= "string" or each:find("\0", 1, true) then
        return false
      end
    end
    return type(v) == "table" and (#v > 0 or json.is_array(v))
  end },
}

local function has(list, value)
  for _, each in ipairs(list) do
    if each == value then
      return true
    end
  end
  return false
end

local function check(name, value, want)
  if type(want) == "function" then
    return want(name, value)
  elseif type(want) == "table" then
    if not has(want, value) then
      refuse(("agent_options: %s must be one of %s"):format(name, table.concat(want, ", ")))
    end
  elseif not TYPES[want][2](value) then
    refuse(("agent_options: %s must be %s"):format(name, TYPES[want][1]))
  end
end

--- Raises 400 unless every option is known and right.
---@param given table|nil
---@param known table<string, string|string[]|fun(name: string, value: any)>
---@param harness string
function M.check(given, known, harness)
  for name, value in pairs(given or {}) do
    if known[name] == nil then
      local names = {}
      for each in pairs(known) do
        names[#names + 1] = each
      end
      table.sort(names)
      refuse(("agent_options: %s has no option %q: %s"):format(harness, tostring(name),
        names[1] and "there are " .. table.concat(names, ", ") or "it takes none"))
    end
    check(name, value, known[name])
  end
end

--- Raises 400 about one option.
function M.wrong(name, why)
  refuse(("agent_options: %s %s"):format(name, why))
end

return M
