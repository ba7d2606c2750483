--- The files of a sandbox, all by way of its lbox-init: methods of lbox.server.Sandbox. What comes out of a box is
--- looked at before it is used.
local async = require "lbox.async"
local errors = require "lbox.errors"
local init_link = require "lbox.server.init_link"
local posix = require "lbox.server.posix"

local PIECE = 256 * 1024
local MAX_ENTRIES = 50000
-- So much is kept of what a program complains.
local MAX_SAID = 4096
local MAX_LIST = MAX_ENTRIES * 300
local TYPES = { [0] = "file", "directory", "symlink", "other" }

local methods = {}

local function fail(message, fields)
  errors.raise("local", message, fields)
end

local WORDS = { ENOENT = "no such file or directory", EACCES = "permission denied",
  EPERM = "operation not permitted", EEXIST = "it exists already", ENOTDIR = "not a directory",
  EISDIR = "it is a directory", EINVAL = "not a regular file", EROFS = "read-only in a box",
  EMSGSIZE = "the name is too long", EFBIG = "it has too many entries" }

local function check_path(path)
  if path:sub(1, 1) ~= "/" or path:find("\0", 1, true) then
    fail(("%q: not an absolute path"):format(path), { errno = "EINVAL" })
  end
end

--- Asks about `path`; raises what lbox-init says is wrong.
local function ask(self, path, kind, fields)
  local answer = table.pack(self.link:ask(kind, fields))
  if answer[1] ~= 0 then
    local why, name = posix.strerror(answer[1])
    name = name == "EMSGSIZE" and "ENAMETOOLONG" or name
    fail(("%s: %s"):format(path, WORDS[name] or why), { errno = name })
  end
  return table.unpack(answer, 2, answer.n)
end

--- Calls `fn(fd)` with a file that came out of a box, and closes it. It is looked at before it is used:
--- it could be anything.
local function with_file(fd, path, fn)
  local ok, result = pcall(function()
    local st = posix.fstat(fd)
    if not st or st.type ~= "file" then
      fail(("%s: not a regular file"):format(path), { errno = "EINVAL" })
    end
    return fn(fd, st)
  end)
  posix.close(fd)
  if not ok then
    error(result, 0)
  end
  return result
end

local function read_piece(fd, n, path)
  local bytes, why, name = posix.read(fd, n)
  if not bytes then
    fail(("%s: %s"):format(path, why), { errno = name })
  end
  async.checkpoint()
  return bytes
end

local function read_all(fd, size, max, path)
  local parts, total = {}, 0
  repeat
    if size > max or total > max then
      fail(("%s: it has more than the %d bytes that can be read at once"):format(path, max),
        { errno = "EFBIG" })
    end
    local bytes = read_piece(fd, PIECE, path)
    parts[#parts + 1] = bytes
    total = total + #bytes
  until bytes == ""
  return table.concat(parts)
end

--- At most `length` bytes from `offset` on.
local function read_range(fd, range, path)
  local parts, left = {}, range.length
  local ok, why, name = posix.seek(fd, range.offset)
  if not ok then
    fail(("%s: %s"):format(path, why), { errno = name })
  end
  while left > 0 do
    local bytes = read_piece(fd, math.min(PIECE, left), path)
    if bytes == "" then
      break
    end
    parts[#parts + 1] = bytes
    left = left - #bytes
  end
  return table.concat(parts)
end

--- The content of a regular file, or a part of it.
---@param path string  absolute, in the box
---@param max integer  bytes; a larger file is an error
---@param range { offset: integer, length: integer }|nil  bytes; the file may be of any size
---@return string
function methods:read_file(path, max, range)
  check_path(path)
  local fd = ask(self, path, init_link.OPEN, string.pack("=s4", path))
  return with_file(fd, path, function(file, st)
    if range then
      return read_range(file, range, path)
    end
    return read_all(file, st.size, max, path)
  end)
end

--- Reads a regular file of any size: calls `fn(bytes)` with one piece after the other, `fn(nil)` at its end. It ends
--- where it ended when it was opened, however fast it grows; one that has become shorter is an error.
---@param path string
---@param fn fun(bytes: string|nil)
function methods:read_pieces(path, fn)
  check_path(path)
  local fd = ask(self, path, init_link.OPEN, string.pack("=s4", path))
  with_file(fd, path, function(file, st)
    local left = st.size
    while left > 0 do
      local bytes = read_piece(file, math.min(PIECE, left), path)
      if bytes == "" then
        fail(("%s: it became shorter while it was read"):format(path), { errno = "EIO" })
      end
      fn(bytes)
      left = left - #bytes
    end
    fn(nil)
  end)
end

---@class lbox.server.NewFile  a file that is not in its place yet
local NewFile = {}
NewFile.__index = NewFile

--- Writes all pieces of a file, as `next()` gives them, beside its place, and makes the directories it needs. `commit`
--- puts it there, `abandon` takes it away. A symlink is written through, also when what it names is not there, in a
--- directory that is.
---@param path string
---@param next fun(): string|nil  may wait, and may raise
---@return lbox.server.NewFile
function methods:new_file(path, next)
  check_path(path)
  self:wait_for_thaw()
  local fd, file = ask(self, path, init_link.CREATE, string.pack("=s4", path))
  local new = setmetatable({ sandbox = self, path = path, handle = string.pack("=I4", file) }, NewFile)
  local ok, err = pcall(with_file, fd, path, function()
    for bytes in next do
      local at = 1
      while at <= #bytes do
        self:wait_for_thaw()
        local n, why, name = posix.write(fd, bytes, at, PIECE)
        if not n then
          fail(("%s: %s"):format(path, why), { errno = name })
        end
        at = at + n
        async.checkpoint()
      end
    end
  end)
  if not ok then
    new:abandon()
    error(err, 0)
  end
  return new
end

function NewFile:commit()
  self.sandbox:wait_for_thaw()
  ask(self.sandbox, self.path, init_link.COMMIT, self.handle)
end

function NewFile:abandon()
  self.sandbox.link:tell(init_link.ABANDON, self.handle)
end

--- Writes a file whole or not at all.
---@param path string
---@param bytes string
function methods:write_file(path, bytes)
  local rest = bytes
  self:new_file(path, function()
    local piece = rest
    rest = nil
    return piece
  end):commit()
end

local function parse_list(bytes)
  local entries, at = {}, 1
  while at <= #bytes do
    local kind, size, mtime, name
    kind, size, mtime, name, at = string.unpack("=I1I8i8s4", bytes, at)
    assert(#entries < MAX_ENTRIES)
    entries[#entries + 1] = { name = name, type = TYPES[kind] or "other", size = size, mtime = mtime }
  end
  table.sort(entries, function(a, b) return a.name < b.name end)
  return entries
end

--- Entries of a directory, sorted by name.
---@param path string
---@return { name: string, type: "file"|"directory"|"symlink"|"other", size: integer, mtime: integer }[]
function methods:list(path)
  check_path(path)
  local fd = ask(self, path, init_link.LIST, string.pack("=s4", path))
  local bytes = with_file(fd, path, function(file, st)
    return read_all(file, st.size, MAX_LIST, path)
  end)
  local ok, entries = pcall(parse_list, bytes)
  if not ok then
    fail(("%s: the box gave no list of it"):format(path))
  end
  return entries
end

--- What a path is.
---@param path string
---@param follow boolean|nil  of a symlink: what it leads to
---@return { type: "file"|"directory"|"symlink"|"other", size: integer, mtime: integer, inode: integer,
---  mtime_ns: integer }  mtime in seconds, mtime_ns what is beyond those
function methods:stat(path, follow)
  check_path(path)
  local _, kind, size, mtime, inode, mtime_ns = ask(self, path, init_link.STAT,
    string.pack("=I4s4", follow and 1 or 0, path))
  return { type = TYPES[kind] or "other", size = size, mtime = mtime, inode = inode, mtime_ns = mtime_ns }
end

--- Makes a directory; with `parents` also those above it, and one that is there already is fine.
---@param path string
---@param parents boolean|nil
function methods:mkdir(path, parents)
  check_path(path)
  self:wait_for_thaw()
  ask(self, path, init_link.MKDIR, string.pack("=I4s4", parents and 1 or 0, path))
end

--- Renames a file or directory.
---@param from string
---@param to string
function methods:rename(from, to)
  check_path(from)
  check_path(to)
  self:wait_for_thaw()
  ask(self, from, init_link.RENAME, string.pack("=s4s4", from, to))
end

--- Removes a file, a link or an empty directory.
---@param path string
function methods:remove(path)
  check_path(path)
  self:wait_for_thaw()
  ask(self, path, init_link.REMOVE, string.pack("=s4", path))
end

--- Removes a directory with everything in it, and anything else. A program of the box does that: it may take its time,
--- and what else goes on in the box does not wait for it.
---@param path string
function methods:remove_tree(path)
  self:stat(path)
  local rm = self:spawn { argv = { "rm", "-rf", "--", path }, cwd = "/", env = { "PATH=/usr/bin:/bin", "LC_ALL=C" } }
  local said = ""
  local ok, err = pcall(function()
    for _, bytes in rm.read, rm do
      said = #said < MAX_SAID and said .. bytes or said
    end
  end)
  if not ok then
    rm:kill()
    rm:close()
    error(err, 0)
  elseif rm.result.exit_code ~= 0 then
    fail(("%s: %s"):format(path, said:match("[^\n]*: ([^\n]+)") or "it could not be removed"), { errno = "EACCES" })
  end
end

return methods
