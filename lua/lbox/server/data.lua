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

local function write_new(path, bytes, mode)
  local temporary = path .. ".new"
  posix.unlink(temporary)
  local fd = check(posix.open(temporary, "new", mode))
  local at = 1
  while at <= #bytes do
    at = at + check(posix.write(fd, bytes, at))
  end
  check(posix.fsync(fd))
  posix.close(fd)
  check(posix.chmod(temporary, mode))
  check(posix.rename(temporary, path))
end

local function read_file(path)
  local file = io.open(path, "rb")
  local bytes = file and file:read("a")
  if file then
    file:close()
  end
  return bytes
end

--- Programs that boxes see: copies, since the boxes' users may not reach where ours is installed, and
--- so that a new build does not change what a running box has.
local function install_programs(dir)
  make_dirs(dir, 0x1ed)
  check(posix.chmod(dir, 0x1ed))
  local init = program.init_program()
  if read_file(dir .. "/lbox-init") ~= init then
    write_new(dir .. "/lbox-init", init, 0x1ed)
  end
  local own = check(read_file(posix.exe_path()), "cannot read it", posix.exe_path())
  if read_file(dir .. "/lbox") ~= own then
    write_new(dir .. "/lbox", own, 0x1ed)
  end
end

--- The API key for TCP clients: made at first start.
local function read_key(path)
  local key = read_file(path)
  if not key or not key:match("^box_%x+\n?$") then
    key = "box_" .. core.random(24):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
    write_new(path, key .. "\n", 0x180)
  end
  return (key:gsub("%s+$", ""))
end

--- What boxes are given (their environment) is in the database: no other user reads it. SQLite gives
--- its other files the same mode.
local function close_database(path)
  local fd = check(posix.open(path, "append", 0x180))
  posix.close(fd)
  check(posix.chmod(path, 0x180))
end

--- Takes the lock of a data directory: nil when another server has it.
function M.lock(dir)
  make_dirs(dir, 0x1c0)
  return posix.flock(dir .. "/lock")
end

--- Prepares a locked data directory.
---@return { dir: string, boxes: string, bin: string, etc: string, database: string, key: string,
---  key_file: string, socket: string }
function M.open(dir)
  local as_root = posix.getuid() == 0
  -- Boxes of a server that runs as root have users of their own, who must get through to theirs.
  check(posix.chmod(dir, as_root and 0x1c9 or 0x1c0))
  local boxes = dir .. "/boxes"
  make_dirs(boxes, 0x1c0)
  check(posix.chmod(boxes, as_root and 0x1c9 or 0x1c0))
  install_programs(dir .. "/bin")
  sandbox.create_etc(dir .. "/etc")
  close_database(dir .. "/lbox.db")
  local socket, why = paths.socket(dir)
  check(socket, why, "no place for the socket")
  if socket:sub(1, #dir) ~= dir then
    make_dirs(socket:match("^(.*)/"), 0x1c0)
  end
  return {
    dir = dir,
    boxes = boxes,
    bin = dir .. "/bin",
    etc = dir .. "/etc",
    database = dir .. "/lbox.db",
    key_file = dir .. "/key",
    key = read_key(dir .. "/key"),
    socket = socket,
  }
end

return M
