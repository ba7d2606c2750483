--- Files that go with a prompt: paths of this machine, which are sent as a form, or contents, which are
--- sent with the JSON.
local body = require "lbox.body"
local errors = require "lbox.errors"
local options = require "lbox.options"

local M = {}

---@class lbox.PromptFile
---@field data string            base64
---@field media_type string
---@field filename string|nil

local INLINE = { data = "string!", media_type = "string!", filename = "string" }

local TYPES = {
  png = "image/png", jpg = "image/jpeg", jpeg = "image/jpeg", gif = "image/gif", webp = "image/webp",
  svg = "image/svg+xml", pdf = "application/pdf", csv = "text/csv", txt = "text/plain",
  json = "application/json", xml = "application/xml", html = "text/html", md = "text/markdown",
  ts = "text/plain", js = "text/plain", py = "text/plain",
}

local function type_of(name)
  local extension = name:match("%.(%w+)$")
  return extension and TYPES[extension:lower()] or "application/octet-stream"
end

local function part(path, what)
  body.check_file(path, what)
  local name = path:match("[^/]+$")
  return { name = "files", path = path, filename = name, type = type_of(name) }
end

local function inline(file, what)
  options.check(file, INLINE, what)
  return file
end

--- The files of a prompt: the field `files` of the JSON, or parts, or nothing. A path that cannot be read
--- raises `usage`, and so do paths and contents in one list.
---@param files string[]|lbox.PromptFile[]|nil
---@return lbox.PromptFile[]|nil field
---@return lbox.Part[]|nil parts
function M.of(files)
  if files == nil or next(files) == nil then
    return nil
  end
  options.list(files, "files", "a list of paths or of { data, media_type, filename }")
  local paths = type(files[1]) == "string"
  local list = {}
  for i, file in ipairs(files) do
    local what = ("files[%d]"):format(i)
    if (type(file) == "string") ~= paths then
      errors.raise("usage", ("%s is a %s, files[1] a %s: files are all paths, or all { data, media_type, filename }")
        :format(what, type(file), type(files[1])))
    end
    list[i] = paths and part(file, what) or inline(file, what)
  end
  if paths then
    return nil, list
  end
  return list
end

return M
