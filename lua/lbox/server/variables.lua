--- The variables that every box made from now on gets in its environment.
local errors = require "lbox.errors"
local settings = require "lbox.server.settings"

---@class lbox.server.Variables
local Variables = {}
Variables.__index = Variables

---@param store lbox.server.Store
---@return lbox.server.Variables
function Variables.new(store)
  return setmetatable({ store = store }, Variables)
end

---@return table<string, string>
function Variables:all()
  local vars = {}
  for _, row in ipairs(self.store:rows("SELECT name, value FROM variables")) do
    vars[row.name] = row.value
  end
  return vars
end

local function check(vars)
  for name in pairs(vars) do
    if settings.BLOCKED_ENV[name] then
      errors.raise("api", ("env_vars: %s cannot be set"):format(name), { status_code = 400 })
    end
  end
  settings.env(vars, "env_vars")
end

--- Makes these all the variables there are.
---@param vars table<string, string>
function Variables:replace(vars)
  check(vars)
  self.store:transaction(function()
    self.store:write("DELETE FROM variables")
    for name, value in pairs(vars) do
      self.store:write("INSERT INTO variables (name, value) VALUES (?, ?)", name, value)
    end
  end)
end

---@param name string
---@param value string
function Variables:set(name, value)
  local vars = self:all()
  vars[name] = value
  check(vars)
  self.store:write("INSERT OR REPLACE INTO variables (name, value) VALUES (?, ?)", name, value)
end

--- Takes one away; raises 404 when there is none of that name.
---@param name string
function Variables:remove(name)
  if self:all()[name] == nil then
    errors.raise("api", ("there is no variable %q"):format(name), { status_code = 404 })
  end
  self.store:write("DELETE FROM variables WHERE name = ?", name)
end

return Variables
