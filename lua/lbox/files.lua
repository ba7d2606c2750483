--- box.files (box-api.md §1.7). Relative paths start at box.cwd.
local client = require "lbox.client"
local core = require "lbox.core"
local errors = require "lbox.errors"
local namespace = require "lbox.namespace"
local options = require "lbox.options"

local READ_OPTIONS = { encoding = { "base64" }, binary = "boolean", timeout = "number",
  headers = "table" }
local WRITE_OPTIONS = { path = "string", content = "string", encoding = { "base64" },
  binary = "boolean", timeout = "number", extra = "table", headers = "table" }

local function path_of(box, what)
  return ("/v2/box/%s/files/%s"):format(client.segment(box.id), what)
end

local function check_coding(opts, what)
  if opts.binary and opts.encoding then
    errors.raise("usage", what .. ": binary and encoding exclude each other")
  end
end

local files = {}

--- The content of a file as text, as bytes with `binary = true`, or as base64 with `encoding`.
---@param path string
---@param opts { binary: boolean|nil, encoding: "base64"|nil }|nil
---@return string
function files.read(box, path, opts)
  options.check(opts, READ_OPTIONS, "files:read")
  opts = opts or {}
  check_coding(opts, "files:read")
  local answer = box.client:request {
    method = "GET",
    path = path_of(box, "read"),
    query = { path = box:resolve(path), encoding = (opts.binary or opts.encoding) and "base64" or nil },
    timeout = opts.timeout, headers = opts.headers,
  }
  if type(answer.content) ~= "string" then
    errors.raise("api", "the answer has no content")
  elseif not opts.binary then
    return answer.content
  end
  return core.base64_decode(answer.content)
    or errors.raise("api", "the content of the answer is not base64")
end

--- Writes a file and the directories it needs.
---@param opts { path: string, content: string, binary: boolean|nil, encoding: "base64"|nil }
function files.write(box, opts)
  options.check(opts, WRITE_OPTIONS, "files:write")
  options.require(opts, "path", "files:write")
  options.require(opts, "content", "files:write")
  check_coding(opts, "files:write")
  local content = opts.content
  if opts.binary then
    content = core.base64_encode(content)
  elseif not core.is_utf8(content) then
    errors.raise("usage", "content is not UTF-8 text: pass binary = true")
  end
  local body = { path = box:resolve(opts.path), content = content,
    encoding = (opts.binary or opts.encoding) and "base64" or nil }
  for key, value in pairs(opts.extra or {}) do
    body[key] = value
  end
  box.client:request { method = "POST", path = path_of(box, "write"), json = body,
    timeout = opts.timeout, headers = opts.headers }
end

--- The entries of a directory (the box's cwd): `{ name, path, size, is_dir, mod_time }` each.
---@param path string|nil
---@return table[]
function files.list(box, path)
  local answer = box.client:request {
    method = "GET", path = path_of(box, "list"),
    query = { folder = path ~= nil and box:resolve(path) or box:folder() },
  }
  return type(answer.files) == "table" and answer.files or {}
end

return namespace.define("files", files)
