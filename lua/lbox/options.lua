--- Checks of arguments. A silent typo costs money here, so unknown options are errors that name the
--- nearest known one.
local errors = require "lbox.errors"

local M = {}

local function keys_of(spec)
  local keys = {}
  for key in pairs(spec) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  return keys
end

--- A value as a message shows it: so that a string is not taken for a number.
---@param value any
---@return string
function M.shown(value)
  return type(value) == "string" and ("%q"):format(value) or tostring(value)
end
local quoted = M.shown

local function one_of(value, choices, what)
  for _, choice in ipairs(choices) do
    if value == choice then
      return
    end
  end
  local shown = {}
  for i, choice in ipairs(choices) do
    shown[i] = quoted(choice)
  end
  errors.raise("usage", ("%s must be %s, got %s"):format(what, table.concat(shown, " or "), quoted(value)))
end

--- Requires a list without holes.
---@param value any
---@param what string
---@param of string  "a list of strings"
function M.list(value, what, of)
  local n = type(value) == "table" and #value
  if not n then
    errors.raise("usage", ("%s must be %s, got %s"):format(what, of, type(value)))
  end
  for key in pairs(value) do
    if type(key) ~= "number" or key < 1 or key > n or key % 1 ~= 0 then
      errors.raise("usage", ("%s must be %s, got a table with the key %s"):format(what, of, quoted(key)))
    end
  end
  for i = 1, n do
    if value[i] == nil then
      errors.raise("usage", ("%s must be %s, but item %d is missing"):format(what, of, i))
    end
  end
end

--- Requires a list of strings without holes.
local function strings(value, what)
  M.list(value, what, "a list of strings")
  for i, item in ipairs(value) do
    if type(item) ~= "string" then
      errors.raise("usage", ("%s must be a list of strings, but item %d is a %s"):format(what, i, type(item)))
    end
  end
end

--- Requires an object of lbox; its `__name` is that of the function that makes it.
local function object(value, name, what)
  local mt = type(value) == "table" and getmetatable(value)
  if type(mt) ~= "table" or mt.__name ~= name then
    errors.raise("usage", ("%s must be what %s returns, got a %s"):format(what, name, type(value)))
  end
end

-- What an option may have to be beside a type of Lua. Each raises for a value that is not that.
local kinds = { strings = strings }

--- A string that is not blank.
function kinds.text(value, what)
  M.nonblank(value, what)
end

--- A whole number from 0 on.
function kinds.count(value, what)
  if type(value) ~= "number" or value < 0 or value % 1 ~= 0 then
    errors.raise("usage", ("%s must be a whole number from 0 on, got %s"):format(what, quoted(value)))
  end
end

--- Milliseconds from 0 on.
function kinds.ms(value, what)
  M.ms(value, what)
end

--- Requires a table of strings by name. A number would arrive as one.
function M.map(value, what)
  if type(value) ~= "table" then
    errors.raise("usage", ("%s must be a table of strings by name, got %s"):format(what, type(value)))
  end
  for key, item in pairs(value) do
    if type(key) ~= "string" or type(item) ~= "string" then
      errors.raise("usage", ("%s must be a table of strings by name, got %s = %s"):format(
        what, quoted(key), type(item)))
    end
  end
end

kinds.map = M.map

--- Requires that `value` is what a spec wants.
local function check_value(value, want, key, what)
  local check = kinds[want]
  if check then
    check(value, key)
  elseif type(want) == "table" then
    one_of(value, want, "option " .. key)
  elseif want:find("^lbox%.") then
    object(value, want, ("option %s of %s"):format(key, what))
  elseif want ~= "any" and type(value) ~= want then
    errors.raise("usage", ("option %s of %s must be a %s, got %s"):format(key, what, want, type(value)))
  end
end

--- Whether a spec wants an option to be there, and what it has to be.
local function wish(want)
  if type(want) == "string" and want:sub(-1) == "!" then
    return true, want:sub(1, -2)
  end
  return false, want
end

--- Checks an options table against `spec`: by name a type of Lua, "any", "text" (not blank), "count",
--- "ms", "strings", "map" (strings by name), a list of allowed values, or the `__name` of an object
--- ("lbox.budget"). With a "!" at its end the option is required. Without any required one, nil passes.
---@param opts table|nil
---@param spec table<string, string|any[]>
---@param what string  the call, for the error: "Box.create"
function M.check(opts, spec, what)
  if opts ~= nil and type(opts) ~= "table" then
    errors.raise("usage", ("%s takes a table of options, got %s"):format(what, type(opts)))
  end
  for key, value in pairs(opts or {}) do
    local _, want = wish(spec[key])
    if want == nil then
      local near = type(key) == "string" and errors.nearest(key, keys_of(spec))
      errors.raise("usage", ("unknown option %s%s"):format(quoted(key),
        near and (" (did you mean %q?)"):format(near) or ""), { option = key })
    end
    check_value(value, want, key, what)
  end
  for key, want in pairs(spec) do
    if wish(want) and (not opts or opts[key] == nil) then
      errors.raise("usage", ("%s needs the option %q"):format(what, key))
    end
  end
end

--- Requires a string that is not blank, with no NUL: an id, a name, a path.
---@return string
function M.nonblank(value, what)
  if type(value) ~= "string" then
    errors.raise("usage", ("%s must be a string, got %s"):format(what, type(value)))
  elseif not value:find("%S") then
    errors.raise("usage", what .. " must not be empty")
  elseif value:find("%z") then
    errors.raise("usage", what .. " must not contain a NUL byte")
  end
  return value
end

--- Requires something that can be called.
function M.callable(value, what)
  local mt = type(value) ~= "function" and getmetatable(value)
  if type(value) ~= "function" and not (type(mt) == "table" and mt.__call) then
    errors.raise("usage", ("%s must be a function, got %s"):format(what, type(value)))
  end
end

--- Requires a time in milliseconds: a number from 0 on.
---@return number
function M.ms(value, what)
  if type(value) ~= "number" or value ~= value or value < 0 then
    errors.raise("usage", ("%s must be a number of milliseconds from 0 on, got %s"):format(what, quoted(value)))
  end
  return value
end

--- The options of a call, checked; {} when there are none.
---@return table
function M.call(opts, spec, what)
  M.check(opts, spec, what)
  return opts or {}
end

return M
