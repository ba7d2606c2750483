--- `box.files`: the files of a box. Relative paths start at the box's directory.
local client = require "lbox.client"
local core = require "lbox.core"
local errors = require "lbox.errors"
local json = require "lbox.json"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local workdir = require "lbox.workdir"

local M = {}

---@class lbox.files.ReadOptions: lbox.ReadOptions
---@field binary boolean|nil     bytes instead of text
---@field encoding "base64"|nil  the content as base64 text
---@field offset integer|nil     first byte to read, from 0; needs length
---@field length integer|nil     bytes to read
local READ_OPTIONS = client.read_options {
  encoding = "string", binary = "boolean", offset = "number", length = "number",
}

---@class lbox.files.WriteOptions: lbox.CallOptions
---@field path string
---@field content string           UTF-8 text
---@field binary boolean|nil        content is bytes
---@field encoding "base64"|nil     content is base64 text
local WRITE_OPTIONS = client.call_options {
  path = "text!", content = "string!", encoding = "string", binary = "boolean",
}

local LIST_OPTIONS = client.read_options {}

local function check_encoding(opts, what)
  if opts.binary and opts.encoding ~= nil then
    errors.raise("usage", what .. " takes binary or encoding, not both")
  end
  return opts.binary and "base64" or opts.encoding
end

local function check_count(value, what)
  if value ~= nil and (value < 0 or value % 1 ~= 0) then
    errors.raise("usage", ("%s must be a whole number from 0 on, got %s"):format(
      what, tostring(value)))
  end
end

local function absolute(self, path, what)
  return workdir.absolute(self._link.box.cwd, options.nonblank(path, what))
end

---@class lbox.BoxFiles
local methods = {}

--- The content of a file as text; with `binary` its bytes, with `encoding = "base64"` base64 text.
--- With `length`, that many bytes from `offset` on. Raises `api` 404 when it is not there.
---@param path string
---@param opts lbox.files.ReadOptions|nil
---@return string
function methods:read(path, opts)
  options.check(opts, READ_OPTIONS, "box.files:read")
  opts = opts or {}
  local encoding = check_encoding(opts, "box.files:read")
  check_count(opts.offset, "offset")
  check_count(opts.length, "length")
  if opts.offset and not opts.length then
    errors.raise("usage", "offset needs length: how many bytes to read from there")
  end
  local link = self._link
  local spec = {
    method = "GET",
    path = "/files/read",
    query = {
      { "path", absolute(self, path, "path") },
      { "encoding", encoding },
      { "offset", opts.length and ("%d"):format(opts.offset or 0) },
      { "length", opts.length and ("%d"):format(opts.length) },
    },
    timeout = opts.timeout,
    headers = opts.headers,
  }
  local answer, status = link:request(spec)
  local content = answer.content
  if opts.binary and type(content) == "string" then
    content = core.base64_decode(content)
  end
  if type(content) ~= "string" then
    link:nonsense(spec, status)
  end
  return content
end

--- Writes a file, with the directories it needs. Raises `usage` for text that is not UTF-8 without
--- `binary`.
---@param opts lbox.files.WriteOptions
function methods:write(opts)
  options.check(opts, WRITE_OPTIONS, "box.files:write")
  local encoding = check_encoding(opts, "box.files:write")
  local content = opts.content
  if opts.binary then
    content = core.base64_encode(content)
  elseif not core.is_utf8(content) then
    errors.raise("usage", "content is not UTF-8 text: pass binary = true")
  end
  self._link:perform {
    method = "POST",
    path = "/files/write",
    json = { path = absolute(self, opts.path, "path"), content = content, encoding = encoding },
    extra = opts.extra,
    timeout = opts.timeout,
    headers = opts.headers,
  }
end

--- What is in a directory, the box's own when `path` is nil: a list of { name, path, size, is_dir,
--- mod_time }: bytes, and RFC 3339 text. Raises `api` 404 when it is not there.
---@param path string|nil
---@param opts lbox.ReadOptions|nil
---@return table[]
function methods:list(path, opts)
  options.check(opts, LIST_OPTIONS, "box.files:list")
  opts = opts or {}
  local link = self._link
  local answer = link:request {
    method = "GET",
    path = "/files/list",
    query = { { "folder", path ~= nil and absolute(self, path, "path") or link:folder() } },
    timeout = opts.timeout,
    headers = opts.headers,
  }
  return type(answer.files) == "table" and json.strip_nulls(answer.files) or {}
end

local metatable = namespace.metatable("box.files", methods)

---@param link lbox.Link
function M.new(link)
  return setmetatable({ _link = link }, metatable)
end

return M
