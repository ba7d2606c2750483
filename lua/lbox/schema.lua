--- Schemas: what a run's output has to be. Written as a plain table (shorthand), with builders, or as
--- raw JSON Schema; they turn into JSON Schema for the agent and validate what comes back.
local errors = require "lbox.errors"
local json = require "lbox.json"
local json_schema = require "lbox.json_schema"
local namespace = require "lbox.namespace"
local validate = require "lbox.validate"

local M = {}

---@class lbox.Schema
---@field node table  the JSON Schema
---@field is_optional boolean|nil  as a field of an object: may be absent
---@field kind string|nil  of the builders that may be called with options: s.string { min_length = 1 }
local methods = {}
local Schema_mt -- made at the end, of the methods

local function new(node, is_optional)
  return setmetatable({ node = node, is_optional = is_optional }, Schema_mt)
end

local function is_schema(value)
  return getmetatable(value) == Schema_mt
end

local BASIC = { string = true, number = true, integer = true, boolean = true, any = true, null = true }
local SHORTHAND = { "any", "boolean", "integer", "number", "string" }

-- Written within itself, a schema has no end.
local MAX_DEPTH = 100

-- What builders take, under the names of JSON Schema.
local KEYWORDS = {
  string = { min_length = "minLength", max_length = "maxLength", pattern = "pattern", format = "format" },
  number = { min = "minimum", max = "maximum" },
  integer = { min = "minimum", max = "maximum" },
  array = { min_items = "minItems", max_items = "maxItems" },
}
local RANGES = { minLength = "maxLength", minimum = "maximum", minItems = "maxItems" }
local COMMON = { default = "default", description = "description" }

local function known_options(own)
  local names = {}
  for _, set in ipairs { own, COMMON } do
    for name in pairs(set) do
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

local function apply(node, kind, opts)
  if opts ~= nil and type(opts) ~= "table" then
    errors.raise("usage", ("schema.%s takes a table of options, got %s"):format(kind, type(opts)))
  end
  local own = KEYWORDS[kind] or {}
  for key, value in pairs(opts or {}) do
    local keyword = own[key] or COMMON[key]
    if not keyword then
      errors.raise("usage", ("unknown option %s of schema.%s"):format(
        json_schema.with_nearest(key, known_options(own)), kind))
    end
    node[keyword] = json_schema.value(keyword, value, ("option %s of schema.%s"):format(key, kind))
  end
  for low, high in pairs(RANGES) do
    if node[low] and node[high] and node[low] > node[high] then
      errors.raise("usage", ("schema.%s: %s %s is more than %s %s, so nothing can match"):format(kind, low,
        tostring(node[low]), high, tostring(node[high])))
    end
  end
  return node
end

local function copy(node)
  local out = {}
  for key, value in pairs(node) do
    out[key] = value
  end
  return out
end

local function basic(kind)
  return kind == "any" and {} or { type = kind }
end

local from_shorthand

--- A schema from a schema, a builder that was not called (`s.string`), or shorthand.
local function coerce(value, path, depth)
  if is_schema(value) then
    return value
  end
  return from_shorthand(value, path, (depth or 0) + 1)
end

local function object_node(fields, path, depth)
  local properties, required = {}, {}
  for name, field in pairs(fields) do
    if type(name) ~= "string" then
      errors.raise("usage", ("%s mixes a list and an object: { x } is an array of x, "
        .. "a table with names is an object"):format(path))
    end
    local schema = coerce(field, path .. "." .. name, depth)
    properties[name] = schema.node
    if not schema.is_optional then
      required[#required + 1] = name
    end
  end
  table.sort(required)
  return {
    type = "object",
    properties = properties,
    required = json.array(required),
    additionalProperties = false,
  }
end

function from_shorthand(value, path, depth)
  if type(value) == "string" then
    local kind, optional = value:match("^(.-)(%??)$")
    if not BASIC[kind] or kind == "null" then
      local near = errors.nearest(kind, SHORTHAND)
      errors.raise("usage", ("%s: no type %q%s: write string, number, integer, boolean or any, "
        .. "with ? at the end when it may be absent"):format(path, value,
        near and (" (did you mean %q?)"):format(near .. optional) or ""))
    end
    return new(basic(kind), optional == "?" or nil)
  elseif type(value) ~= "table" then
    errors.raise("usage", ("%s: a %s is not a schema"):format(path, type(value)))
  elseif depth > MAX_DEPTH then
    errors.raise("usage", ("a schema nested deeper than %d levels, or within itself"):format(MAX_DEPTH))
  elseif value[1] ~= nil then
    if #value ~= 1 or next(value, 1) ~= nil or next(value) ~= 1 then
      errors.raise("usage", ("%s: an array has one item type: { x }"):format(path))
    end
    return new({ type = "array", items = coerce(value[1], path .. "[]", depth).node })
  end
  return new(object_node(value, path, depth))
end

-- Every builder takes shorthand where it takes a schema, and raises `usage` for what is none.

--- A closed object: exactly these fields, those made with `optional` may be absent.
---@param fields table<string, any>  schemas or shorthand by name
---@return lbox.Schema
function M.object(fields)
  if type(fields) ~= "table" or is_schema(fields) then
    errors.raise("usage", "schema.object takes a table of fields, got "
      .. (is_schema(fields) and "a schema" or type(fields)))
  end
  return new(object_node(fields, "$"))
end

--- A list of `item`.
---@param item any  schema or shorthand
---@param opts { min_items: integer?, max_items: integer?, default: any, description: string? }|nil
---@return lbox.Schema
function M.array(item, opts)
  return new(apply({ type = "array", items = coerce(item, "$[]").node }, "array", opts))
end

--- An object with any names, every value a `value`.
---@param value any  schema or shorthand
---@return lbox.Schema
function M.map(value)
  return new({ type = "object", additionalProperties = coerce(value, "$.*").node })
end

--- One of these values.
---@param values any[]  at least one
---@return lbox.Schema
function M.enum(values)
  return new({ enum = json_schema.value("enum", values, "what schema.enum takes") })
end

--- Exactly this value.
---@param value any
---@return lbox.Schema
function M.const(value)
  if value == nil then
    errors.raise("usage", "schema.const takes a value; null is schema.null")
  end
  return new({ const = json_schema.value("const", value, "schema.const") })
end

--- Any of these schemas.
---@param ... any  at least one schema or shorthand
---@return lbox.Schema
function M.union(...)
  local nodes = json.array {}
  for i = 1, select("#", ...) do
    nodes[i] = coerce((select(i, ...)), "$").node
  end
  if #nodes == 0 then
    errors.raise("usage", "schema.union takes at least one schema")
  end
  return new({ anyOf = nodes })
end

--- As a field of an object: may be absent (or null, which counts as absent unless the schema speaks of
--- null itself).
---@param value any  schema or shorthand
---@return lbox.Schema
function M.optional(value)
  return new(coerce(value, "$").node, true)
end

--- This or null.
---@param value any  schema or shorthand
---@return lbox.Schema
function M.nullable(value)
  local schema = coerce(value, "$")
  return new({ anyOf = json.array { schema.node, { type = "null" } } }, schema.is_optional)
end

--- The same with a description for the agent.
---@param value any  schema or shorthand
---@param text string
---@return lbox.Schema
function M.describe(value, text)
  local schema = coerce(value, "$")
  local node = copy(schema.node)
  node.description = json_schema.value("description", text, "the text of schema.describe")
  return new(node, schema.is_optional)
end

--- A raw JSON Schema, of the subset that doc/schemas.md lists. Raises `usage`, with the place, for any
--- other keyword and for what a keyword may not hold.
---@param node table
---@return lbox.Schema
function M.json(node)
  if type(node) ~= "table" then
    errors.raise("usage", "schema.json takes a JSON Schema as a table, got " .. type(node))
  end
  return new(json_schema.checked(node, "$"))
end

--- A schema from whatever a `response_schema` option takes. Raises `usage`, with the place, for what is
--- no schema.
---@param value any  schema or shorthand
---@return lbox.Schema
function M.from(value)
  return coerce(value, "$")
end

--- The JSON Schema as a table, which is the schema's own: not to be changed.
---@return table
function methods:to_json_schema()
  return self.node
end

--- Checks a decoded value; null in an optional field is taken out, unless the field's schema speaks of
--- null itself. Raises `schema` with `path` (`$.tags[2]`) and `expected`.
---@param value any
---@return any value
function methods:validate(value)
  local ok, failure = validate.value(self.node, value)
  if not ok then
    errors.raise("schema", failure.message, { path = failure.path, expected = failure.expected })
  end
  return value
end

Schema_mt = namespace.metatable("schema", methods)

-- From here on builders say how they are called, and one that is not there is an error: nil would be a
-- field that is not asked for.
M = setmetatable(namespace.statics("schema", M), {
  __index = function(builders, name)
    local names = {}
    for each in pairs(builders) do
      names[#names + 1] = each
    end
    table.sort(names)
    errors.raise("usage", "no schema builder " .. json_schema.with_nearest(name, names))
  end,
})

-- Builders that need no argument are schemas as they stand, and may be called with options.
for kind in pairs(BASIC) do
  local schema = new(basic(kind))
  schema.kind = kind
  M[kind] = schema
end

function Schema_mt.__call(schema, opts)
  if not schema.kind then
    errors.raise("usage", "this schema takes no options: it is complete")
  elseif opts == M then
    errors.raise("usage", ("call it as schema.%s{…}"):format(schema.kind))
  end
  return new(apply(basic(schema.kind), schema.kind, opts))
end

return M
