--- `box.files`: the files of a box. Relative paths start at the box's directory. Whole trees and large
--- files are in file_transfer.lua.
local client = require "lbox.client"
local core = require "lbox.core"
local errors = require "lbox.errors"
local file_transfer = require "lbox.file_transfer"
local namespace = require "lbox.namespace"
local options = require "lbox.options"

local M = {}

---@class lbox.files.ReadOptions: lbox.ReadOptions
---@field binary boolean|nil     bytes instead of text
---@field encoding "base64"|nil  the content as base64 text
---@field offset integer|nil     first byte to read, from 0; needs length
---@field length integer|nil     bytes to read

local READ_OPTIONS = client.read_options {
  encoding = "string", binary = "boolean", offset = "count", length = "count",
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

---@class lbox.files.StatOptions: lbox.ReadOptions
---@field follow boolean|nil     of a symbolic link what it leads to

local STAT_OPTIONS = client.read_options { follow = "boolean" }

---@class lbox.files.MkdirOptions: lbox.CallOptions
---@field parents boolean|nil    the ones above too; that it is there already is no error then

local MKDIR_OPTIONS = client.call_options { parents = "boolean" }

---@class lbox.files.RemoveOptions: lbox.CallOptions
---@field recursive boolean|nil  a directory with all that is in it

local REMOVE_OPTIONS = client.call_options { recursive = "boolean" }

local RENAME_OPTIONS = client.call_options {}

local function check_encoding(opts, what)
  if opts.binary and opts.encoding ~= nil then
    errors.raise("usage", what .. " takes binary or encoding, not both")
  end
  return opts.binary and "base64" or opts.encoding
end

local function absolute(self, path, what)
  return self._link:path_of(path, what)
end

---@class lbox.BoxFiles
local methods = {}

--- The content of a file as text; with `binary` its bytes, with `encoding = "base64"` base64 text.
--- With `length`, that many bytes from `offset` on. Raises `api` 404 when it is not there.
---@param path string
---@param opts lbox.files.ReadOptions|nil
---@return string
function methods:read(path, opts)
  opts = options.call(opts, READ_OPTIONS, "box.files:read")
  local encoding = check_encoding(opts, "box.files:read")
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
    opts = opts,
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
    opts = opts,
  }
end

--- What is in a directory, the box's own when `path` is nil: a list of { name, path, size, is_dir,
--- mod_time }: bytes, and RFC 3339 text. Raises `api` 404 when it is not there.
---@param path string|nil
---@param opts lbox.ReadOptions|nil
---@return table[]
function methods:list(path, opts)
  opts = options.call(opts, LIST_OPTIONS, "box.files:list")
  local link = self._link
  return file_transfer.list(link, path ~= nil and absolute(self, path, "path") or link:folder(), opts)
end

--- What is at a path: { type, size, mod_time, inode, version }; `type` is file, directory, symlink or
--- other. Raises `api` 404 when nothing is there.
---@param path string
---@param opts lbox.files.StatOptions|nil
---@return table
function methods:stat(path, opts)
  opts = options.call(opts, STAT_OPTIONS, "box.files:stat")
  return file_transfer.stat(self._link, absolute(self, path, "path"), opts.follow, opts)
end

--- Sends a change that is answered with nothing.
local function change(self, name, body, opts)
  self._link:perform {
    method = "POST", path = "/files/" .. name, json = body, opts = opts,
  }
end

--- Makes a directory.
---@param path string
---@param opts lbox.files.MkdirOptions|nil
function methods:mkdir(path, opts)
  opts = options.call(opts, MKDIR_OPTIONS, "box.files:mkdir")
  change(self, "mkdir", { path = absolute(self, path, "path"), parents = opts.parents or false }, opts)
end

--- Gives a file or directory another path.
---@param from string
---@param to string
---@param opts lbox.CallOptions|nil
function methods:rename(from, to, opts)
  opts = options.call(opts, RENAME_OPTIONS, "box.files:rename")
  change(self, "rename", { from = absolute(self, from, "from"), to = absolute(self, to, "to") }, opts)
end

--- Removes a file, or with `recursive` a directory.
---@param path string
---@param opts lbox.files.RemoveOptions|nil
function methods:remove(path, opts)
  opts = options.call(opts, REMOVE_OPTIONS, "box.files:remove")
  change(self, "remove", { path = absolute(self, path, "path"), recursive = opts.recursive or false }, opts)
end

--- Sends files of this machine, read while they are sent: `box.files:upload { { path = "a.bin",
--- destination = "data/a.bin" } }`. Raises `usage` before any request for a path that cannot be read, and
--- when a file changes while it is sent; the server has none of them then.
---@param list { path: string, destination: string }[]
---@param opts lbox.files.UploadOptions|nil
function methods:upload(list, opts)
  file_transfer.upload(self._link, list, opts)
end

--- Fetches a folder, or one file, and returns the local paths that were written. A folder goes into `to`,
--- or else into a directory of its own name below the current one, four files at a time; a file to the path
--- `to`, or into it if it is a directory. Every file appears whole or not at all and takes the place of
--- what has its name. Raises `api` for names that would lead out of the target (nothing leads there), and
--- for a tree of more than 64 levels or 100,000 entries; `network` for a file that is cut, `usage` for what
--- cannot be written here. What was written before an error stays.
---@param opts lbox.files.DownloadOptions|nil
---@return string[]
function methods:download(opts)
  return file_transfer.download(self._link, opts)
end

M.new = namespace.of_box("box.files", methods)

return M
