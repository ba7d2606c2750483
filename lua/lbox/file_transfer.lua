--- Files between a box and this machine, as streams: no file is held in memory, and none appears under
--- its name before it is complete. What `box.files:upload` and `download` do.
local async = require "lbox.async"
local body = require "lbox.body"
local client = require "lbox.client"
local core = require "lbox.core"
local errors = require "lbox.errors"
local options = require "lbox.options"
local workdir = require "lbox.workdir"

local M = {}

-- How deep a download goes below its folder, and how much it takes: a tree without an end is a loop.
local MAX_DEPTH = 64
local MAX_ENTRIES = 100000

-- Files that are fetched at a time.
local CONCURRENCY = 4

-- Between two calls of `progress` for one file.
local PROGRESS_MS = 50

--- What is in a directory of the box, as the server says it.
---@param link lbox.Link
---@param folder string|nil  as the wire wants it
---@param opts table
---@param deadline lbox.Deadline|nil  instead of a timeout in the options
---@return table[]
function M.list(link, folder, opts, deadline)
  return link:list("files", {
    path = "/files/list", query = { { "folder", folder } }, opts = opts, deadline = deadline,
  })
end

--- What the server says of a path.
---@param link lbox.Link
---@param path string  absolute
---@param follow boolean|nil
---@param opts table
---@param deadline lbox.Deadline|nil
---@return table
function M.stat(link, path, follow, opts, deadline)
  return link:object("type", {
    method = "GET",
    path = "/files/stat",
    query = { { "path", path }, { "follow", follow and "true" or nil } },
    opts = opts,
    deadline = deadline,
  })
end

-- ------------------------------------------------------------------------------------ upload

---@class lbox.files.UploadOptions: lbox.CallOptions
---@field progress (fun(sent: integer, total: integer))|nil  bytes of the request

local UPLOAD_OPTIONS = client.call_options { progress = "function" }
local UPLOAD_ITEM = { path = "string!", destination = "text!" }

--- The parts of an upload: the field `paths` and the file `files` in pairs.
local function upload_parts(cwd, list)
  options.list(list, "what box.files:upload takes", "a list of { path, destination }")
  if #list == 0 then
    errors.raise("usage", "box.files:upload takes at least one { path, destination }")
  end
  local parts = {}
  for i, item in ipairs(list) do
    local what = ("item %d of box.files:upload"):format(i)
    options.check(item, UPLOAD_ITEM, what)
    body.check_file(item.path, "path of " .. what)
    parts[2 * i - 1] = { name = "paths", text = workdir.absolute(cwd, item.destination) }
    parts[2 * i] = { name = "files", path = item.path, filename = item.destination }
  end
  return parts
end

function M.upload(link, list, opts)
  opts = options.call(opts, UPLOAD_OPTIONS, "box.files:upload")
  link:check_open()
  link:perform {
    method = "POST",
    path = "/files/upload",
    parts = upload_parts(link.box.cwd, list),
    progress = opts.progress,
    opts = opts,
  }
end

-- ---------------------------------------------------------------------------------- download

---@class lbox.files.DownloadOptions: lbox.ReadOptions
---@field folder string|nil      of the box, or one file of it; nil: the box's directory
---@field to string|nil          a directory of this machine; of one file also its new path
---@field recursive boolean|nil  false: not the folders in it
---@field progress (fun(received: integer, path: string))|nil  bytes of the local file `path`

local DOWNLOAD_OPTIONS = client.read_options {
  folder = "text", to = "text", recursive = "boolean", progress = "function",
}

---@class lbox.file_transfer.Download
---@field link lbox.Link
---@field opts lbox.files.DownloadOptions
---@field deadline lbox.Deadline  of the whole call
---@field recursive boolean
---@field progress function|nil
---@field entries integer   of the server's lists so far
---@field written string[]

--- What was done with a local file, or an error that names it.
local function must(where, result, why)
  if not result then
    errors.raise("usage", ("cannot write %s: %s"):format(where, why))
  end
  return result
end

local function refuse_server(download, message)
  errors.raise("api", message, { box_id = download.link.id })
end

--- Calls fn(object, ...) and lets go of the object after it, however it ends.
local function using(object, let_go, fn, ...)
  local ok, err = pcall(fn, object, ...)
  object[let_go](object)
  if not ok then
    error(err, 0)
  end
end

--- Tells `progress` now and then, and at the end.
local function reporter(download, where)
  local due = 0
  return function(received, at_end)
    if download.progress and (at_end or async.now() >= due) then
      download.progress(received, where)
      due = async.now() + PROGRESS_MS
    end
  end
end

local function write(file, download, remote, where, size)
  local report, total = reporter(download, where), 0
  download.link.client:receive(download.link:spec {
    method = "GET",
    path = "/files/download",
    query = { { "folder", remote } },
    subject = remote,
    mode = "raw",
    size = size,
    deadline = download.deadline,
    opts = download.opts,
  }, function(bytes, received)
    must(where, file:write(bytes))
    total = received
    report(received)
  end)
  report(total, true)
  must(where, file:commit())
end

--- Fetches a file into an open directory; `where` is what the user calls it.
local function fetch(download, remote, directory, name, where, size)
  local file = must(where, directory:create(name))
  using(file, "discard", write, download, remote, where, size)
end

--- The entries of a server's list, after a check that each is one, that it is called as one thing in a
--- directory may be, and that no two are called the same.
local function checked(download, remote, entries)
  local seen = {}
  for _, entry in ipairs(entries) do
    local name = type(entry) == "table" and entry.name
    if type(name) ~= "string" then
      refuse_server(download, ("the list of %s has an entry without a name"):format(remote))
    elseif name == "" or name == "." or name == ".." or name:find("[/%z]") then
      refuse_server(download, ("the list of %s has an entry that is called %q: not downloaded"):format(remote, name))
    elseif seen[name] then
      refuse_server(download, ("the list of %s has %q twice: not downloaded"):format(remote, name))
    end
    seen[name] = true
  end
  download.entries = download.entries + #entries
  if download.entries > MAX_ENTRIES then
    refuse_server(download, ("there are more than %d files in what is downloaded"):format(MAX_ENTRIES))
  end
  return entries
end

--- Fetches what a folder has into an open directory: its files, then the folders in it.
local function fetch_all(directory, download, remote, entries, where, depth)
  if depth > MAX_DEPTH then
    refuse_server(download, ("%s is more than %d folders deep"):format(remote, MAX_DEPTH))
  end
  local files, folders = {}, {}
  for _, entry in ipairs(checked(download, remote, entries)) do
    local kind = entry.is_dir and folders or files
    kind[#kind + 1] = { name = entry.name, size = entry.size, from = workdir.absolute(remote, entry.name),
      to = where .. "/" .. entry.name }
  end
  async.map(files, function(file)
    fetch(download, file.from, directory, file.name, file.to, file.size)
  end, { concurrency = CONCURRENCY })
  for _, file in ipairs(files) do
    download.written[#download.written + 1] = file.to
  end
  for _, folder in ipairs(download.recursive and folders or {}) do
    local inner = M.list(download.link, folder.from, download.opts, download.deadline)
    local sub = must(folder.to, directory:enter(folder.name))
    using(sub, "close", fetch_all, download, folder.from, inner, folder.to, depth + 1)
  end
end

local function open_directory(path)
  return must(path, core.directory(path))
end

local function last_part(path)
  return path:match("^.*/([^/]+)/*$") or path:match("^([^/]+)/*$")
end

--- Where a folder goes when the user does not say: its name, below the current directory.
local function default_target(cwd, folder)
  local name = folder and last_part(folder)
  if not name or name == "." or name == ".." then
    local path = workdir.normalise(cwd, folder or ".")
    name = path ~= workdir.ROOT and last_part(path) or "workspace"
  end
  return "./" .. name
end

--- Fetches one answer into a file of this machine, which appears whole or not at all.
---@param link lbox.Link
---@param spec lbox.client.Spec  with a deadline
---@param place fun(req: table): string  its path, when the headers of the answer are here; may raise
---@return string path
function M.save(link, spec, place)
  local directory, file, path
  spec.mode = "raw"
  local ok, err = pcall(function()
    link.client:receive(link:spec(spec), function(bytes)
      must(path, file:write(bytes))
    end, function(req)
      path = place(req)
      directory = open_directory(path:match("^(.*/)") or ".")
      file = must(path, directory:create(last_part(path)))
    end)
    must(path, file:commit())
  end)
  if file then
    file:discard() -- what is not whole
  end
  if directory then
    directory:close()
  end
  if not ok then
    error(err, 0)
  end
  return path
end

--- Fetches one file: to the path `to`, or into it if it is a directory.
local function download_file(download, remote, to, size)
  local name, where = last_part(remote), to
  local parent
  if not to or to:sub(-1) == "/" or core.is_directory(to) then
    parent = to or "."
    where = parent:gsub("/+$", "") .. "/" .. name
  else
    parent = to:match("^(.*/)") or "."
    name = last_part(to)
  end
  using(open_directory(parent), "close", function(directory)
    fetch(download, remote, directory, name, where, size)
  end)
  return { where }
end

--- What is at a path, nil when the server cannot say: it is taken for a folder then.
local function look(download, path)
  local ok, found = pcall(M.stat, download.link, path, true, download.opts, download.deadline)
  if ok then
    return found
  elseif errors.is(found, "api") and found.status_code == 404 then
    return nil -- also from a server that knows no `stat`; if nothing is there, the list raises
  end
  error(found, 0)
end

---@return string[]
function M.download(link, opts)
  opts = options.call(opts, DOWNLOAD_OPTIONS, "box.files:download")
  local cwd = link.box.cwd
  local remote = opts.folder and workdir.absolute(cwd, opts.folder) or cwd
  ---@type lbox.file_transfer.Download
  local download = {
    link = link,
    opts = opts,
    deadline = link.client:deadline(opts.timeout),
    recursive = opts.recursive ~= false,
    progress = opts.progress,
    entries = 0,
    written = {},
  }
  local found = opts.folder and look(download, remote)
  if found and found.type == "file" then
    return download_file(download, remote, opts.to, found.size)
  end
  local entries = M.list(link, opts.folder and remote or link:folder(), opts, download.deadline)
  local to = opts.to or default_target(cwd, opts.folder)
  using(open_directory(to), "close", fetch_all, download, remote, entries, (to:gsub("/+$", "")), 1)
  return download.written
end

return M
