--- What a request sends: JSON, or, when files go with it, multipart/form-data.
local core = require "lbox.core"
local errors = require "lbox.errors"
local json = require "lbox.json"

local M = {}

---@class lbox.Part   a field, or a file that is read while it is sent
---@field name string
---@field text string|nil
---@field path string|nil      of the file, on this machine
---@field filename string|nil  what the server is told of its name
---@field type string|nil      its MIME type

local function encoded(value)
  local ok, text = pcall(json.encode, value)
  if not ok then
    errors.raise("usage", "what is sent must have a JSON form: " .. tostring(text))
  end
  return text
end

local function check_utf8(text)
  if not core.is_utf8(text) then
    errors.raise("usage", "what is sent must be UTF-8 text")
  end
  return text
end

--- The body's fields as parts, in sorted order: text as it is, all else as JSON.
local function fields(body)
  local names, parts = {}, {}
  for name in pairs(body) do
    names[#names + 1] = tostring(name)
  end
  table.sort(names)
  for i, name in ipairs(names) do
    local value = body[name]
    parts[i] = { name = name, text = check_utf8(type(value) == "string" and value or encoded(value)) }
  end
  return parts
end

--- The body of a request: text or nil, and, in its place, a list of parts or nil. With `parts` what would
--- be JSON comes before them, as fields.
---@param spec lbox.client.Spec
---@return string|nil text
---@return lbox.Part[]|nil parts
function M.of(spec)
  local body = spec.json
  if spec.extra then
    local all = {}
    for _, from in ipairs { body or {}, spec.extra } do
      for key, value in pairs(from) do
        all[key] = value
      end
    end
    body = all
  end
  if not spec.parts then
    return body and check_utf8(encoded(body)) or nil
  end
  local parts = fields(body or {})
  for _, part in ipairs(spec.parts) do
    parts[#parts + 1] = part
  end
  return nil, parts
end

--- Requires a path of this machine at which a file can be read.
---@param path any
---@param what string  for the error: "files[1]"
function M.check_file(path, what)
  if type(path) ~= "string" or path == "" or path:find("%z") then
    errors.raise("usage", ("%s must be the path of a file, got %s"):format(
      what, type(path) == "string" and ("%q"):format(path) or type(path)))
  end
  local size, why = core.file_size(path)
  if not size then
    errors.raise("usage", ("%s cannot be read: %s: %s"):format(what, path, why))
  end
end

return M
