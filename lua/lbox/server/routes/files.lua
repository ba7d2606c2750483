--- Files of a box (box-api.md §1.7), all by way of lbox-init: no path of a box is resolved out here.
local core = require "lbox.core"
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local runs = require "lbox.server.runs"

local MAX_FILE = 32 * 1024 * 1024
local MAX_RANGE = 8 * 1024 * 1024
local MAX_PATH = 4095

local STATUS = { ENOENT = 404, EACCES = 403, EPERM = 403, EROFS = 403, EISDIR = 400, ENOTDIR = 400,
  EINVAL = 400, ENAMETOOLONG = 400, ELOOP = 400, ENXIO = 400, ENODEV = 400, EXDEV = 400, ENOTEMPTY = 409, EEXIST = 409,
  EBUSY = 409, EFBIG = 413, ENOSPC = 507 }

local function rfc3339(seconds)
  return os.date("!%Y-%m-%dT%H:%M:%SZ", seconds)
end

--- Does something with the files of a box; what the box says is wrong becomes an HTTP status.
local function with_files(server, params, fn)
  local row = server.boxes:get(params.id)
  local ok, result = pcall(server.boxes.working, server.boxes, row, fn)
  if ok then
    return result
  elseif errors.is(result, "local") and STATUS[result.errno] then
    errors.raise("api", result.message, { status_code = STATUS[result.errno] })
  end
  error(result, 0)
end

local function check_encoding(encoding)
  if encoding and encoding ~= "base64" then
    errors.raise("api", ("encoding %q: only \"base64\" is known"):format(encoding), { status_code = 400 })
  end
end

--- A whole number from 0 to `max` in the query.
local function count(query, name, max)
  local text = query[name]
  local value = text:match("^%d+$") and #text <= 18 and math.tointeger(tonumber(text))
  if not value or value > max then
    errors.raise("api", ("%s %q: a whole number from 0 to %d"):format(name, text, max), { status_code = 400 })
  end
  return value
end

--- The range that is asked for; `length`, even 0, selects one.
local function range_of(query)
  if query.length then
    return { length = count(query, "length", MAX_RANGE),
      offset = query.offset and count(query, "offset", math.maxinteger) or 0 }
  end
end

local function read(server, request, params)
  local path = fields.path(request.query.path, "path")
  local encoding = request.query.encoding
  check_encoding(encoding)
  local range = range_of(request.query)
  local bytes = with_files(server, params, function(box)
    return box:read_file(path, MAX_FILE, range)
  end)
  request:answer(200, { content = encoding and core.base64_encode(bytes) or runs.text(bytes) })
end

local function write(server, request, params)
  local body = fields.check(request:json(math.maxinteger), { content = "text!", encoding = "string" })
  local path = fields.path(body.path, "path")
  check_encoding(body.encoding)
  local bytes = body.content
  if body.encoding then
    bytes = core.base64_decode(bytes)
    if not bytes then
      errors.raise("api", "content is not base64", { status_code = 400 })
    end
  end
  server.limits:check_write(server.boxes:get(params.id), #bytes)
  with_files(server, params, function(box)
    box:write_file(path, bytes)
  end)
  request:answer(200, {})
end

local function list(server, request, params)
  local folder = server.boxes.folder(request.query.folder)
  fields.path(folder, "folder")
  local entries = with_files(server, params, function(box)
    return box:list(folder)
  end)
  local place = folder:gsub("/+$", "") .. "/"
  request:answer_list(200, "files", entries, function(entry)
    local name = runs.text(entry.name)
    return { name = name, path = place .. name, size = entry.size, is_dir = entry.type == "directory",
      mod_time = rfc3339(entry.mtime) }
  end)
end

local function stat(server, request, params)
  local path = fields.path(request.query.path, "path")
  local info = with_files(server, params, function(box)
    return box:stat(path, request.query.follow == "true")
  end)
  request:answer(200, {
    type = info.type,
    size = info.size,
    mod_time = rfc3339(info.mtime),
    inode = info.inode,
    version = ("%x-%x.%x-%x"):format(info.inode, info.mtime, info.mtime_ns, info.size),
  })
end

local function mkdir(server, request, params)
  local body = fields.check(request:json(), { parents = "boolean" })
  local path = fields.path(body.path, "path")
  with_files(server, params, function(box) box:mkdir(path, body.parents) end)
  request:answer(200, {})
end

local function rename(server, request, params)
  local body = request:json()
  local from, to = fields.path(body.from, "from"), fields.path(body.to, "to")
  with_files(server, params, function(box) box:rename(from, to) end)
  request:answer(200, {})
end

local function remove(server, request, params)
  local body = fields.check(request:json(), { recursive = "boolean" })
  local path = fields.path(body.path, "path")
  with_files(server, params, function(box)
    if body.recursive then
      box:remove_tree(path)
    else
      box:remove(path)
    end
  end)
  request:answer(200, {})
end

--- Holds on to a path; longer is none.
local function path_field(part)
  local held = 0
  return fields.path(part:all(function(n)
    held = held + n
    if held > MAX_PATH then
      errors.raise("api", ("paths: a path has at most %d bytes"):format(MAX_PATH), { status_code = 400 })
    end
  end), "paths")
end

--- Gives the content of a file piece by piece, as long as there is room for it. `held` is what came so far.
local function file_field(part, held, check_room)
  return function()
    local bytes = part:read()
    if bytes then
      held.bytes = held.bytes + #bytes
      check_room(held.bytes)
    end
    return bytes
  end
end

--- Writes what is uploaded beside its place while it comes. Fields `paths` and files `files` belong together by their
--- order, a path before its file.
local function receive(box, request, files, check_room)
  local paths, held = {}, { bytes = 0 }
  request:each_part(function(part)
    if part.name == "paths" then
      paths[#paths + 1] = path_field(part)
    elseif part.name == "files" then
      local path = paths[#files + 1]
      if not path then
        errors.raise("api", "an upload has a field paths before each file", { status_code = 400 })
      end
      files[#files + 1] = box:new_file(path, file_field(part, held, check_room))
    end
  end)
  if #paths ~= #files or #files == 0 then
    errors.raise("api", ("an upload needs as many paths as files, got %d and %d"):format(#paths, #files),
      { status_code = 400 })
  end
end

local function upload(server, request, params)
  local row = server.boxes:get(params.id)
  with_files(server, params, function(box)
    local files, done = {}, 0
    local ok, err = pcall(function()
      receive(box, request, files, function(bytes) server.limits:check_write(row, bytes) end)
      for _, file in ipairs(files) do
        done = done + 1
        file:commit()
      end
    end)
    for i = done + 1, #files do
      files[i]:abandon()
    end
    if not ok then
      error(err, 0)
    end
  end)
  request:answer(200, {})
end

--- One file, though the parameter is called folder.
local function download(server, request, params)
  local path = fields.path(request.query.folder, "folder")
  with_files(server, params, function(box)
    local writer
    box:read_pieces(path, function(bytes)
      -- Only now is it certain that there is something to send.
      writer = writer or request:stream(200, "application/octet-stream")
      if bytes then
        writer:write(bytes)
      else
        writer:finish()
      end
    end)
  end)
end

return {
  { "GET", "/v2/box/{id}/files/read", read },
  { "POST", "/v2/box/{id}/files/write", write },
  { "GET", "/v2/box/{id}/files/list", list },
  { "GET", "/v2/box/{id}/files/stat", stat },
  { "POST", "/v2/box/{id}/files/mkdir", mkdir },
  { "POST", "/v2/box/{id}/files/rename", rename },
  { "POST", "/v2/box/{id}/files/remove", remove },
  { "POST", "/v2/box/{id}/files/upload", upload },
  { "GET", "/v2/box/{id}/files/download", download },
}
