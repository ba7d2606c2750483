--- Checks JSON Schemas themselves: what each keyword that doc/schemas.md lists may hold. A schema must
--- not promise more than `validate` checks, nor break when it does.
local errors = require "lbox.errors"
local json = require "lbox.json"
local regex = require "lbox.regex"

local M = {}

local MAX_DEPTH = 100

local TYPES = { "array", "boolean", "integer", "null", "number", "object", "string" }

local function is_type(value)
  for _, name in ipairs(TYPES) do
    if value == name then
      return true
    end
  end
  return false
end

--- A word and, in parentheses, the nearest of those there are.
---@param word any
---@param list string[]
---@return string
function M.with_nearest(word, list)
  local near = type(word) == "string" and errors.nearest(word, list)
  return (type(word) == "string" and "%q" or "%s"):format(tostring(word))
    .. (near and (" (did you mean %q?)"):format(near) or "")
end

--- The same as a marked list, nil when it is none.
local function list_of(value)
  if type(value) ~= "table" then
    return nil
  end
  local list = json.array {}
  for i, item in ipairs(value) do
    list[i] = item
  end
  for key in pairs(value) do
    if list[key] == nil then
      return nil
    end
  end
  return list
end

-- ---------------------------------------------------------------------------------- what keywords hold

-- Each form has the words for what it is, and a function that gives a value as the schema has it; or
-- nil, and why when that says more than the words.

local TEXT = { "a string", function(value)
  return type(value) == "string" and value or nil
end }

local NUMBER = { "a number", function(value)
  return type(value) == "number" and value - value == 0 and value or nil
end }

local COUNT = { "a whole number from 0 on", function(value)
  return type(value) == "number" and value >= 0 and value % 1 == 0 and value or nil
end }

local VALUE = { "a JSON value", function(value)
  local ok, why = pcall(json.encode, value)
  if ok then
    return value
  end
  return nil, why
end }

local VALUES = { "a list of at least one value", function(value)
  local list = list_of(value)
  if list and #list > 0 then
    return VALUE[2](list)
  end
end }

local NAMES = { "a list of names", function(value)
  local list = list_of(value)
  for _, name in ipairs(list or {}) do
    if type(name) ~= "string" then
      return nil
    end
  end
  return list
end }

local PATTERN = { "a regular expression", function(value)
  if type(value) ~= "string" then
    return nil
  end
  local ok, why = regex.compile(value)
  if ok then
    return value
  end
  return nil, ("%q is not supported: %s"):format(value, why)
end }

local TYPE = { "a type or a list of types", function(value)
  local list = list_of(value)
  for _, name in ipairs(list or { value }) do
    if not is_type(name) then
      return nil, "there is no type " .. M.with_nearest(name, TYPES)
    end
  end
  if list then
    return #list > 0 and list or nil
  end
  return value
end }

local SCHEMA = { "a JSON Schema", function(value, path, depth)
  return M.checked(value, path, depth)
end }

local SCHEMAS = { "a list of at least one JSON Schema", function(value, path, depth)
  local list = list_of(value)
  for i, node in ipairs(list or {}) do
    list[i] = M.checked(node, ("%s[%d]"):format(path, i), depth)
  end
  return list and #list > 0 and list or nil
end }

local FIELDS = { "a table of JSON Schemas by name", function(value, path, depth)
  if type(value) ~= "table" then
    return nil
  end
  local fields = {}
  for name, node in pairs(value) do
    if type(name) ~= "string" then
      return nil, "names are strings, not " .. tostring(name)
    end
    fields[name] = M.checked(node, path .. "." .. name, depth)
  end
  return fields
end }

local FORMS = {
  type = TYPE, enum = VALUES, const = VALUE, anyOf = SCHEMAS, oneOf = SCHEMAS, allOf = SCHEMAS,
  minimum = NUMBER, maximum = NUMBER, exclusiveMinimum = NUMBER, exclusiveMaximum = NUMBER,
  minLength = COUNT, maxLength = COUNT, pattern = PATTERN, format = TEXT,
  items = SCHEMA, minItems = COUNT, maxItems = COUNT,
  properties = FIELDS, required = NAMES, additionalProperties = SCHEMA,
  description = TEXT, title = TEXT, default = VALUE, examples = VALUES, ["$schema"] = TEXT, ["$id"] = TEXT,
}

local KEYWORDS = {}
for keyword in pairs(FORMS) do
  KEYWORDS[#KEYWORDS + 1] = keyword
end
table.sort(KEYWORDS)

--- The value of a keyword as a schema has it. Raises `usage` for what the keyword may not hold.
---@param keyword string  one that there is
---@param value any
---@param what string  who has it, for the error
---@param path string|nil  where schemas inside it are
---@param depth integer|nil
---@return any
function M.value(keyword, value, what, path, depth)
  local form = FORMS[keyword]
  local result, why = form[2](value, path, depth)
  if result == nil then
    local got = type(value) == "string" and ("%q"):format(value) or value == json.null and "null"
      or type(value) == "number" and tostring(value) or type(value)
    errors.raise("usage", ("%s%s"):format(what,
      why and ": " .. why or (" must be %s, got %s"):format(form[1], got)))
  end
  return result
end

--- A copy of a JSON Schema, its lists marked as such. Raises `usage`, with the place, for a keyword that
--- is not supported or holds what it may not.
---@param node table|boolean
---@param path string
---@param depth integer|nil
---@return table|boolean
function M.checked(node, path, depth)
  depth = (depth or 0) + 1
  if type(node) == "boolean" then
    return node
  elseif type(node) ~= "table" then
    errors.raise("usage", ("%s: a JSON Schema is a table or a boolean, got %s"):format(path,
      node == json.null and "null" or type(node)))
  elseif depth > MAX_DEPTH then
    errors.raise("usage", ("a schema nested deeper than %d levels, or within itself"):format(MAX_DEPTH))
  end
  local copy = {}
  for keyword, value in pairs(node) do
    if not FORMS[keyword] then
      errors.raise("usage", ("%s: the JSON Schema keyword %s is not supported"):format(path,
        M.with_nearest(keyword, KEYWORDS)))
    end
    local inside = keyword == "properties" and path or path .. "." .. keyword
    copy[keyword] = M.value(keyword, value, ("%s: %s"):format(path, keyword), inside, depth)
  end
  return copy
end

return M
