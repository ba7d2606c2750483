--- What a box sees as its files: the directory it owns, and the /etc that all boxes share.
local bubblewrap = require "lbox.server.bubblewrap"
local child = require "lbox.server.child"
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"

local M = {}

local TREE_TIMEOUT_MS = 30 * 60 * 1000
local SIZE_TIMEOUT_MS = 60 * 1000
local STICKY = 0x3ff -- 1777

-- A new box's own directories; programs expect them.
local DIRECTORIES = { { "home" }, { "home/boxuser" }, { "workspace" }, { "workspace/home" },
  { "tmp", STICKY }, { "var" }, { "var/tmp", STICKY }, { "opt" }, { "srv" }, { "mnt" } }

local ETC = {
  passwd = "root:x:0:0:root:/root:/usr/sbin/nologin\nboxuser:x:1000:1000:boxuser:/home/boxuser:/bin/bash\n"
    .. "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
  group = "root:x:0:\nboxuser:x:1000:\nnogroup:x:65534:\n",
  hosts = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n",
  -- Who commits, unless the box's own settings say somebody else.
  gitconfig = "[user]\n\tname = Upstash Box\n\temail = box@upstash.com\n",
  ["nsswitch.conf"] = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
  -- slirp4netns; where that is not, it is not reached, and names have no addresses.
  ["resolv.conf"] = "nameserver 10.0.2.3\n",
  shells = "/bin/sh\n/bin/bash\n",
}
-- Small files of the host's /etc that say nothing about the host.
local COPIED = { "mime.types", "protocols", "services" }

local function check(what, ok, why, errno)
  if not ok then
    errors.raise("local", ("%s: %s"):format(what, tostring(why)), { errno = errno })
  end
  return ok
end

--- Makes the directory tree of a new box.
---@param root string
---@param uid integer|nil  the host uid it belongs to, when that is not ours
function M.create(root, uid)
  check(root, posix.mkdir(root, 0x1ed))
  for _, entry in ipairs(DIRECTORIES) do
    local path = root .. "/" .. entry[1]
    check(path, posix.mkdir(path, 0x1ed))
    check(path, posix.chmod(path, entry[2] or 0x1ed))
    if uid then
      check(path, posix.lchown(path, uid, uid))
    end
  end
  if uid then
    check(root, posix.lchown(root, uid, uid))
  end
  M.repair(root)
end

--- Makes sure of what bubblewrap mounts on; nothing of the box may be running. Returns the host's
--- directories to mount.
---@return string[]
function M.repair(root)
  local links, host_dirs = bubblewrap.host_layout()
  local dirs = table.move(bubblewrap.MOUNTED, 1, #bubblewrap.MOUNTED, 1, {})
  table.move(host_dirs, 1, #host_dirs, #dirs + 1, dirs)
  check("the box's directory cannot be put in order", posix.mount_points(root, dirs, links))
  return host_dirs
end

local function read_host(path)
  local file = io.open(path, "rb")
  local bytes = file and file:read("a")
  if file then
    file:close()
  end
  return bytes
end

local function write(path, bytes)
  local fd = check(path, posix.open(path, "write", 0x1a4))
  local at = 1
  while at <= #bytes do
    at = at + check(path, posix.write(fd, bytes, at))
  end
  posix.close(fd)
  check(path, posix.chmod(path, 0x1a4))
end

local function make_dir(path)
  if not posix.lstat(path) then
    check(path, posix.mkdir(path, 0x1ed))
  end
  check(path, posix.chmod(path, 0x1ed))
end

--- Makes a place in `dir` for a file or directory of the host to be mounted on.
local function make_place(dir, name)
  local st = posix.lstat("/etc/" .. name)
  local is_dir = st and (st.type == "directory" or st.type == "symlink" and posix.listdir("/etc/" .. name))
  if not st then
    return
  end
  local at = dir
  for part in name:gmatch("[^/]+") do
    at = at .. "/" .. part
    if at ~= dir .. "/" .. name or is_dir then
      make_dir(at)
    else
      write(at, "")
    end
  end
end

--- Makes the /etc of the boxes; certificates, alternatives and the linker's cache of the host are
--- mounted into it.
---@param dir string
function M.create_etc(dir)
  make_dir(dir)
  for _, name in ipairs(bubblewrap.HOST_ETC) do
    make_place(dir, name)
  end
  for name, text in pairs(ETC) do
    write(dir .. "/" .. name, text)
  end
  for _, name in ipairs(COPIED) do
    local text = read_host("/etc/" .. name)
    if text then
      write(dir .. "/" .. name, text)
    end
  end
end

--- Removes what is in a box's directory, as the box's user and in a child process: it may be large, and
--- is the box's. Nothing of the box may be running. The directory itself stays.
---@param root string
---@param uid integer|nil
---@param bin string  the directory of lbox-init
function M.empty(root, uid, bin)
  local status, text = child.run {
    argv = { bin .. "/lbox-init", "empty", root }, env = {}, cwd = "/", uid = uid, gid = uid,
    timeout = TREE_TIMEOUT_MS,
  }
  if status.exit_code ~= 0 then
    errors.raise("local", "cannot remove a box's files: " .. text:gsub("%s+$", ""))
  end
end

--- Copies a box's directory in a child process: it may be large, and is the box's. Nothing that could
--- change it may be running.
---@param from string
---@param to string          is not there yet; what was begun stays when it fails
---@param uid integer|nil    the host uid that the copy belongs to, when that is not ours
---@param bin string         the directory of lbox-init
---@return integer size_bytes  of its files, without their holes
function M.copy(from, to, uid, bin)
  local status, text = child.run {
    argv = { bin .. "/lbox-init", "copy", from, to, uid and tostring(uid) or nil }, env = {}, cwd = "/",
    timeout = TREE_TIMEOUT_MS,
  }
  local size = status.exit_code == 0 and math.tointeger(tonumber(text:match("^%d+")))
  if not size then
    local why = text:gsub("%s+$", "")
    errors.raise("local", "cannot copy the files of the box: " .. (why ~= "" and why or "the copying was ended"),
      { errno = text:find("No space left", 1, true) and "ENOSPC" or nil })
  end
  return size
end

--- What a box's directory takes of the disk.
---@param root string
---@param bin string  the directory of lbox-init
---@return integer|nil bytes  nil: it could not be found out
function M.size(root, bin)
  local status, text = child.run { argv = { bin .. "/lbox-init", "size", root }, env = {}, cwd = "/",
    timeout = SIZE_TIMEOUT_MS }
  return status.exit_code == 0 and math.tointeger(tonumber(text:match("^%d+"))) or nil
end

return M
