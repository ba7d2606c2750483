--- The data directory: who may enter, what is put there, and the lock that keeps it to one server.
local core = require "lbox.core"
local errors = require "lbox.errors"
local paths = require "lbox.paths"
local posix = require "lbox.server.posix"
local program = require "lbox.program"
local sandbox = require "lbox.server.sandbox"

local M = {}

local function check(ok, why, what)
  if not ok then
    errors.raise("local", ("%s: %s"):format(what, tostring(why)))
  end
  return ok
end

local function chmod(path, mode)
  local ok, why = posix.chmod(path, mode)
  check(ok, why, "cannot chmod " .. path)
end

local function make_dirs(path, mode)
  local at = ""
  for part in path:gmatch("[^/]+") do
    at = at .. "/" .. part
    if not posix.lstat(at) then
      local ok, why, errno = posix.mkdir(at, mode)
      if not ok and errno ~= "EEXIST" then
        check(ok, why, "cannot make " .. at)
      end
    end
  end
end

--- Raises unless `path` is what it should be, ours, and nobody else's to change: who could put something
--- here would have the boxes, and as root the machine. What is not there is fine.
---@param path string  a directory with "/." behind it may be a symlink
---@param kind "file"|"directory"
---@param others integer  the permissions that nobody else may have
local function check_ours(path, kind, others)
  local st, why, errno = posix.lstat(path)
  local own, shown = posix.getuid(), path:gsub("/%.$", "")
  if not st then
    check(errno == "ENOENT", why, "cannot look at " .. shown)
  elseif st.type ~= kind then
    errors.raise("local", ("%s is a %s, not a %s"):format(shown, st.type, kind))
  elseif st.uid ~= own then
    errors.raise("local", ("%s belongs to user %d and not to %d, who runs this: use another data directory "
      .. "(--data, LBOX_DATA)"):format(shown, st.uid, own))
  elseif st.mode & others ~= 0 then
    errors.raise("local", ("%s can be %s by others: if what it holds can be trusted, chmod go-rwx it"):format(
      shown, st.mode & others & 0x12 ~= 0 and "changed" or "read"))
  end
end

local WRITE, ANYTHING = 0x12, 0x3f -- 0022, 0077
local STICKY = 0x200
-- Who the kernel shows for users that do not exist here.
local NOBODY = 65534

--- Raises when somebody else could put another directory in the place of `dir`.
local function check_parents(dir)
  local path = dir
  repeat
    path = path:match("^(.*)/[^/]+$")
    local st = posix.lstat(path .. "/.")
    local stranger = st and st.uid ~= 0 and st.uid ~= posix.getuid() and st.uid ~= NOBODY
    if st and (stranger or st.mode & WRITE ~= 0 and st.mode & STICKY == 0) then
      errors.raise("local", ("whoever can change %s could replace the data directory %s: use another one "
        .. "(--data, LBOX_DATA), or chmod go-w it"):format(path == "" and "/" or path, dir))
    end
  until path == ""
end

local function write_new(path, bytes, mode)
  local temporary = path .. ".new"
  posix.unlink(temporary)
  local function done(ok, why)
    return check(ok, why, "cannot write " .. temporary)
  end
  local fd = done(posix.open(temporary, "new", mode))
  local at = 1
  while at <= #bytes do
    at = at + done(posix.write(fd, bytes, at))
  end
  done(posix.fsync(fd))
  posix.close(fd)
  done(posix.chmod(temporary, mode))
  done(posix.rename(temporary, path))
end

local function read_file(path)
  local file = io.open(path, "rb")
  local bytes = file and file:read("a")
  if file then
    file:close()
  end
  return bytes
end

--- Makes a directory, where every user may start it, with lbox-init in it.
---@param dir string
function M.install_init(dir)
  make_dirs(dir, 0x1ed)
  chmod(dir, 0x1ed)
  local init = program.init_program()
  if read_file(dir .. "/lbox-init") ~= init then
    write_new(dir .. "/lbox-init", init, 0x1ed)
  end
end

--- Programs that boxes see: copies, since the boxes' users may not reach where ours is installed, and
--- so that a new build does not change what a running box has.
local function install_programs(dir)
  M.install_init(dir)
  -- What runs, whatever is in its place by now or on the way there.
  local own = check(read_file("/proc/self/exe"), "it cannot be read", posix.exe_path())
  if read_file(dir .. "/lbox") ~= own then
    write_new(dir .. "/lbox", own, 0x1ed)
  end
end

--- The API key for TCP clients: made at first start.
local function read_key(path)
  local key = read_file(path)
  if not key then
    key = "box_" .. core.random(24):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
    write_new(path, key .. "\n", 0x180)
  elseif not key:match("^box_" .. ("%x"):rep(48) .. "\n$") then
    errors.raise("local", path .. " holds no key: remove it, and a new one is made")
  end
  return (key:gsub("%s+$", ""))
end

--- What boxes are given (their environment) is in the database: no other user reads it. SQLite gives
--- its other files the same mode.
local function close_database(path)
  local fd, why = posix.open(path, "append", 0x180)
  posix.close(check(fd, why, "cannot open " .. path))
  chmod(path, 0x180)
end

--- Makes a data directory unless it is there. Raises kind `local` when that fails, or when somebody else
--- could have put there what it holds.
function M.make(dir)
  check_parents(dir)
  make_dirs(dir, 0x1c0)
  check_ours(dir .. "/.", "directory", WRITE)
end

--- Raises when we cannot make `dir` where it would be.
local function check_room(dir)
  local at, st = dir, posix.lstat(dir .. "/.")
  while not st do
    at = at:match("^(.*)/")
    st = posix.lstat(at .. "/.")
  end
  -- A place that others may write to and that is not sticky is none already.
  if st.uid ~= posix.getuid() and posix.getuid() ~= 0 and st.mode & WRITE == 0 then
    errors.raise("local", ("%s cannot be made: %s belongs to user %d: use another directory (--data, LBOX_DATA)")
      :format(dir, at == "" and "/" or at, st.uid))
  end
  local probe = ("%s/.lbox-%d"):format(at, posix.getpid())
  local fd, why = posix.open(probe, "append", 0x180)
  if not fd then
    errors.raise("local", ("nothing can be made in %s: %s: use another directory (--data, LBOX_DATA)"):format(
      at == "" and "/" or at, why))
  end
  posix.close(fd)
  posix.unlink(probe)
end

--- Why a server cannot have this data directory, as far as that shows without making it; nil when nothing does.
---@return string|nil
function M.trouble(dir)
  local ok, err = pcall(function()
    check_parents(dir)
    check_ours(dir .. "/.", "directory", WRITE)
    check_room(dir)
  end)
  return not ok and (errors.is(err) and err.message or tostring(err)) or nil
end

--- Takes the lock of a data directory, which is made when it is not there: nil when another server has it.
---@return integer|nil fd
function M.lock(dir)
  M.make(dir)
  local fd, why, errno = posix.flock(dir .. "/lock")
  if not fd and errno ~= "EAGAIN" then
    check(fd, why, "cannot lock " .. dir .. "/lock")
  end
  return fd
end

--- Whether a lock is still the one of its data directory: not when that was removed.
function M.is_locked(dir, lock)
  local st = posix.lstat(dir .. "/lock")
  return st ~= nil and st.id == posix.fstat(lock).id
end

--- Where the socket goes; its directory is made.
local function place_socket(dir)
  local socket, why = paths.socket(dir)
  if socket and socket:sub(1, #dir) ~= dir then
    local place = socket:match("^(.*)/")
    local ok, err = pcall(make_dirs, place, 0x1c0)
    if ok then
      check_ours(place, "directory", WRITE)
    else
      socket, why = nil, err.message
    end
  end
  return check(socket, why, ("%s is too long a path for a socket in it: use a shorter one (--data, LBOX_DATA)")
    :format(dir))
end

--- Prepares a locked data directory.
---@return { dir: string, boxes: string, snapshots: string, bin: string, etc: string, database: string, key: string,
---  key_file: string, socket: string }
function M.open(dir)
  local boxes, snapshots, bin, etc = dir .. "/boxes", dir .. "/snapshots", dir .. "/bin", dir .. "/etc"
  for _, each in ipairs { boxes, snapshots, bin, etc } do
    check_ours(each, "directory", WRITE)
  end
  for _, name in ipairs { "key", "lbox.db", "lbox.db-wal", "lbox.db-shm", "server.log" } do
    check_ours(dir .. "/" .. name, "file", ANYTHING)
  end
  local as_root = posix.getuid() == 0
  -- Boxes of a server that runs as root have users of their own, who must get through to theirs.
  chmod(dir, as_root and 0x1c9 or 0x1c0)
  for _, each in ipairs { boxes, snapshots } do
    make_dirs(each, 0x1c0)
    chmod(each, as_root and 0x1c9 or 0x1c0)
  end
  install_programs(bin)
  sandbox.create_etc(etc)
  close_database(dir .. "/lbox.db")
  return {
    dir = dir,
    boxes = boxes,
    snapshots = snapshots,
    bin = bin,
    etc = etc,
    database = dir .. "/lbox.db",
    key_file = dir .. "/key",
    key = read_key(dir .. "/key"),
    socket = place_socket(dir),
  }
end

return M
