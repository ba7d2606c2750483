--- Checks decoded JSON against a JSON Schema: the part of draft 2020-12 that doc/schemas.md lists.
local json = require "lbox.json"
local regex = require "lbox.regex"

local M = {}

local function is_list(value)
  return #value > 0 or next(value) == nil
end

local TYPES = {
  string = function(v) return type(v) == "string" end,
  number = function(v) return type(v) == "number" end,
  integer = function(v) return type(v) == "number" and v % 1 == 0 end,
  boolean = function(v) return type(v) == "boolean" end,
  null = function(v) return v == nil or v == json.null end,
  array = function(v) return type(v) == "table" and is_list(v) end,
  object = function(v) return type(v) == "table" and #v == 0 end,
}

local function equal(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  end
  for key, value in pairs(a) do
    if not equal(value, b[key]) then
      return false
    end
  end
  for key in pairs(b) do
    if a[key] == nil then
      return false
    end
  end
  return true
end

local function shown(value)
  if value == nil or value == json.null then
    return "null"
  elseif type(value) == "table" then
    return is_list(value) and next(value) and "an array" or next(value) and "an object" or "{}"
  end
  local text = type(value) == "string" and ("%q"):format(value) or tostring(value)
  return #text > 60 and text:sub(1, 57) .. "..." or text
end

local function fail(path, expected, value)
  return false, {
    path = path,
    expected = expected,
    message = ("%s: expected %s, got %s"):format(path, expected, shown(value)),
  }
end

local function characters(text)
  return select(2, text:gsub("[^\128-\191]", ""))
end

-- While a value is checked nothing of it is changed: `gone` lists the { object, name } of every null that
-- counts as absent.
local check

local function type_names(want)
  return type(want) == "table" and table.concat(want, " or ") or want
end

local function check_type(node, value, path)
  local want = node.type
  if want == nil then
    return true
  end
  for _, name in ipairs(type(want) == "table" and want or { want }) do
    if TYPES[name] and TYPES[name](value) then
      return true
    end
  end
  return fail(path, type_names(want), value)
end

local function check_number(node, value, path)
  if node.minimum and value < node.minimum then
    return fail(path, ("at least %s"):format(tostring(node.minimum)), value)
  elseif node.maximum and value > node.maximum then
    return fail(path, ("at most %s"):format(tostring(node.maximum)), value)
  elseif node.exclusiveMinimum and value <= node.exclusiveMinimum then
    return fail(path, ("more than %s"):format(tostring(node.exclusiveMinimum)), value)
  elseif node.exclusiveMaximum and value >= node.exclusiveMaximum then
    return fail(path, ("less than %s"):format(tostring(node.exclusiveMaximum)), value)
  end
  return true
end

local function check_string(node, value, path)
  local length = (node.minLength or node.maxLength) and characters(value)
  if node.minLength and length < node.minLength then
    return fail(path, ("at least %d characters"):format(node.minLength), value)
  elseif node.maxLength and length > node.maxLength then
    return fail(path, ("at most %d characters"):format(node.maxLength), value)
  elseif node.pattern and not regex.matches(node.pattern, value) then
    return fail(path, ("text like %s"):format(node.pattern), value)
  end
  return true
end

local function check_array(node, value, path, gone)
  if node.minItems and #value < node.minItems then
    return fail(path, ("at least %d items"):format(node.minItems), value)
  elseif node.maxItems and #value > node.maxItems then
    return fail(path, ("at most %d items"):format(node.maxItems), value)
  end
  for i, item in ipairs(node.items ~= nil and value or {}) do
    local ok, failure = check(node.items, item, ("%s[%d]"):format(path, i), gone)
    if not ok then
      return false, failure
    end
  end
  return true
end

--- Whether the schema speaks of null itself, rather than taking whatever comes.
local function names_null(node)
  if type(node) ~= "table" then
    return false
  elseif node.const == json.null then
    return true
  end
  for _, name in ipairs(type(node.type) == "table" and node.type or { node.type }) do
    if name == "null" then
      return true
    end
  end
  for _, value in ipairs(node.enum or {}) do
    if value == json.null then
      return true
    end
  end
  for _, keyword in ipairs { "anyOf", "oneOf", "allOf" } do
    for _, each in ipairs(node[keyword] or {}) do
      if names_null(each) then
        return true
      end
    end
  end
  return false
end

local function check_object(node, value, path, gone)
  local required = {}
  for _, name in ipairs(node.required or {}) do
    required[name] = true
    if value[name] == nil then
      return fail(path .. "." .. name, "a value", nil)
    end
  end
  local names = {}
  for name in pairs(value) do
    if type(name) ~= "string" then
      return fail(path, "names that are strings", name)
    end
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local item = value[name]
    local field = node.properties and node.properties[name]
    local ok, failure = true, nil
    if field == nil then
      field = node.additionalProperties
      if field == false then
        return fail(path .. "." .. name, "no such field", item)
      end
    elseif item == json.null and not required[name] and not names_null(field) then
      gone[#gone + 1] = { value, name }
      field = nil
    end
    if field ~= nil then
      ok, failure = check(field, item, path .. "." .. name, gone)
    end
    if not ok then
      return false, failure
    end
  end
  return true
end

local function forget(gone, length)
  for i = #gone, length + 1, -1 do
    gone[i] = nil
  end
end

local function check_combined(node, value, path, gone)
  for _, each in ipairs(node.allOf or {}) do
    local ok, failure = check(each, value, path, gone)
    if not ok then
      return false, failure
    end
  end
  for _, keyword in ipairs { "anyOf", "oneOf" } do
    if node[keyword] then
      local matches, first = 0, nil
      local length = #gone
      for _, each in ipairs(node[keyword]) do
        local ok, failure = check(each, value, path, gone)
        matches = matches + (ok and 1 or 0)
        first = first or failure
        if ok and matches == 1 then
          length = #gone -- the first that matches says what is absent
        else
          forget(gone, length)
        end
      end
      if matches == 0 then
        return fail(path, #node[keyword] == 1 and first.expected or "one of the alternatives", value)
      elseif keyword == "oneOf" and matches > 1 then
        return fail(path, "exactly one of the alternatives", value)
      end
    end
  end
  return true
end

local function is_array_schema(node)
  return node.items ~= nil or node.minItems ~= nil or node.maxItems ~= nil
end

local function is_object_schema(node)
  return node.properties ~= nil or node.required ~= nil or node.additionalProperties ~= nil
end

--- An empty table is an empty array and an empty object: the schema knows which it means.
local function check_table(node, value, path, gone)
  local as_array = #value > 0
  if next(value) == nil then
    as_array = node.type == "array" or (is_array_schema(node) and not is_object_schema(node))
  end
  if as_array then
    return check_array(node, value, path, gone)
  elseif is_object_schema(node) then
    return check_object(node, value, path, gone)
  end
  return true
end

function check(node, value, path, gone)
  if node == true then
    return true
  elseif node == false then
    return fail(path, "nothing", value)
  end
  local ok, failure = check_type(node, value, path)
  if ok and node.const ~= nil and not equal(node.const, value) then
    return fail(path, shown(node.const), value)
  end
  if ok and node.enum then
    local found = false
    local choices = {}
    for i, each in ipairs(node.enum) do
      found = found or equal(each, value)
      choices[i] = shown(each)
    end
    if not found then
      return fail(path, "one of " .. table.concat(choices, ", "), value)
    end
  end
  if ok and type(value) == "number" then
    ok, failure = check_number(node, value, path)
  elseif ok and type(value) == "string" then
    ok, failure = check_string(node, value, path)
  elseif ok and type(value) == "table" then
    ok, failure = check_table(node, value, path, gone)
  end
  if ok then
    ok, failure = check_combined(node, value, path, gone)
  end
  return ok, failure
end

--- Whether `value` matches; if not, { path, expected, message }. From a value that does, null is taken
--- out of every optional field whose schema does not speak of null.
---@return boolean ok, table|nil failure
function M.value(node, value)
  local gone = {}
  local ok, failure = check(node, value, "$", gone)
  for _, entry in ipairs(ok and gone or {}) do
    entry[1][entry[2]] = nil
  end
  return ok, failure
end

return M
