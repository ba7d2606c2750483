--- Sandboxes: bubblewrap around lbox-init, and the conversation with it (csrc/server/init/protocol.h).
local async = require "lbox.async"
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"
local process = require "lbox.server.process"
local seccomp = require "lbox.server.seccomp"

local M = {}

local BWRAP_DIRS = { "/usr/bin", "/usr/local/bin", "/bin" }
local START_TIMEOUT_MS = 10000
local MAX_ANSWER = 16 * 1024
local SPAWN, KILL, OPEN, STAT, LIST, RENAME, REMOVE = 1, 2, 3, 4, 5, 7, 8
local INIT_FD, SECCOMP_FD = 3, 4
local TYPES = { [0] = "file", "directory", "symlink", "other" }

-- Top-level names of a box that are the host's or made for it; everything else there is the box's own.
local MOUNT_POINTS = { "usr", "etc", "proc", "dev", "run" }
local HOST_LINKS = { "bin", "sbin", "lib", "lib32", "lib64", "libx32" }
local OWN_DIRECTORIES = { { "home" }, { "home/boxuser" }, { "workspace" }, { "workspace/home" },
  { "tmp", 0x3ff }, { "var" }, { "var/tmp", 0x3ff }, { "opt" }, { "srv" }, { "mnt" } }

M.PATH = "/home/boxuser/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/lbox/bin"

local function fail(message, fields)
  errors.raise("local", message, fields)
end

local function check(ok, why, what)
  if not ok then
    fail(("%s: %s"):format(what, tostring(why)))
  end
  return ok
end

--- Where bubblewrap is, or nil.
function M.find_bwrap()
  local dirs = {}
  for dir in (os.getenv("LBOX_BWRAP_PATH") or ""):gmatch("[^:]+") do
    dirs[#dirs + 1] = dir
  end
  for _, dir in ipairs(#dirs > 0 and dirs or BWRAP_DIRS) do
    local path = dir .. "/bwrap"
    if posix.lstat(path) then
      return path
    end
  end
end

-- ------------------------------------------------------------------------- what a box sees

--- Makes the top level of a box what it has to be. The box's own programs are not running, but they
--- may have left anything there: a link in place of a mount point would lead bubblewrap out of the
--- box. Every step names one component below `root` and follows none.
local function prepare_root(root, uid)
  local function place(name)
    return root .. "/" .. name
  end
  local function put_away(name)
    local n = 0
    repeat
      n = n + 1
      local ok, why, errno = posix.rename(place(name), place((".%s.%d"):format(name, n)))
      if not ok and errno ~= "EEXIST" and errno ~= "ENOTEMPTY" and errno ~= "ENOTDIR" then
        fail(("cannot put the box in order: %s: %s"):format(name, why))
      end
    until ok
  end
  for _, name in ipairs(MOUNT_POINTS) do
    local st = posix.lstat(place(name))
    if st and st.type ~= "directory" then
      put_away(name)
      st = nil
    end
    if not st then
      check(posix.mkdir(place(name), 0x1ed))
    end
  end
  local links = {}
  for _, name in ipairs(HOST_LINKS) do
    local host = posix.lstat("/" .. name)
    local st = posix.lstat(place(name))
    if host and host.type == "symlink" then
      local target = posix.readlink("/" .. name)
      if st and (st.type ~= "symlink" or posix.readlink(place(name)) ~= target) then
        put_away(name)
        st = nil
      end
      if not st then
        check(posix.symlink(target, place(name)))
      end
    elseif host then
      if st and st.type ~= "directory" then
        put_away(name)
        st = nil
      end
      if not st then
        check(posix.mkdir(place(name), 0x1ed))
      end
      links[#links + 1] = "/" .. name
    end
  end
  return links, uid
end

--- Makes the directory tree of a new box.
---@param root string
---@param uid integer|nil  the host uid it belongs to, when that is not ours
function M.create_root(root, uid)
  check(posix.mkdir(root, 0x1c0))
  for _, entry in ipairs(OWN_DIRECTORIES) do
    local path = root .. "/" .. entry[1]
    check(posix.mkdir(path, 0x1ed))
    if entry[2] then
      check(posix.chmod(path, entry[2] | 0x200))
    end
    if uid then
      check(posix.lchown(path, uid, uid))
    end
  end
  prepare_root(root)
  if uid then
    for _, name in ipairs(posix.listdir(root)) do
      check(posix.lchown(root .. "/" .. name, uid, uid))
    end
    check(posix.lchown(root, uid, uid))
  end
end

local ETC = {
  passwd = "root:x:0:0:root:/root:/usr/sbin/nologin\nboxuser:x:1000:1000:boxuser:/home/boxuser:/bin/bash\n"
    .. "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
  group = "root:x:0:\nboxuser:x:1000:\nnogroup:x:65534:\n",
  hosts = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n",
  ["nsswitch.conf"] = "passwd: files\ngroup: files\nhosts: files dns\n",
  ["resolv.conf"] = "",
  ["ld.so.cache"] = "",
}

--- Makes the /etc of the boxes; /etc/ssl, /etc/alternatives and the linker's cache of the host are
--- mounted into it.
function M.create_etc(dir)
  posix.mkdir(dir, 0x1ed)
  check(posix.chmod(dir, 0x1ed))
  for _, name in ipairs { "ssl", "alternatives" } do
    posix.mkdir(dir .. "/" .. name, 0x1ed)
  end
  for name, text in pairs(ETC) do
    local fd = check(posix.open(dir .. "/" .. name, "write", 0x1a4))
    posix.write(fd, text)
    posix.close(fd)
    check(posix.chmod(dir .. "/" .. name, 0x1a4))
  end
end

local function bwrap_argv(bwrap, box, host_dirs)
  local argv = { bwrap, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net",
    "--unshare-uts", "--unshare-cgroup-try", "--uid", "1000", "--gid", "1000", "--hostname", box.id,
    "--die-with-parent", "--new-session", "--as-pid-1", "--clearenv", "--cap-drop", "ALL",
    "--seccomp", tostring(SECCOMP_FD),
    "--bind", box.root, "/", "--ro-bind", "/usr", "/usr", "--ro-bind", box.etc, "/etc" }
  local function add(...)
    for _, word in ipairs { ... } do
      argv[#argv + 1] = word
    end
  end
  for _, dir in ipairs(host_dirs) do
    add("--ro-bind", dir, dir)
  end
  for _, path in ipairs { "/etc/ssl", "/etc/alternatives", "/etc/ld.so.cache" } do
    add("--ro-bind-try", path, path)
  end
  add("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev", "--tmpfs", "/run",
    "--ro-bind", box.bin, "/run/lbox/bin", "--chdir", "/", "/run/lbox/bin/lbox-init")
  return argv
end

-- ---------------------------------------------------------------------------- the conversation

---@class lbox.server.Sandbox
---@field closed boolean
local Sandbox = {}
Sandbox.__index = Sandbox

local filter -- the compiled filter, the same for every box

local function seccomp_fd()
  filter = filter or check(seccomp.filter())
  return check(posix.memfd(filter))
end

local function drain(fd)
  local text = {}
  posix.set_nonblock(fd)
  local bytes = posix.read(fd, 4096)
  while bytes and bytes ~= "" and #text < 16 do
    text[#text + 1] = bytes
    bytes = posix.read(fd, 4096)
  end
  return table.concat(text):gsub("%s+$", "")
end

--- What bubblewrap's complaint means, and what to do about it.
local function explain(complaint)
  if complaint:find("No permissions to creat") or complaint:find("Creating new namespace failed")
    or complaint:find("setting up uid map") then
    local function sysctl(name)
      local file = io.open("/proc/sys/" .. name)
      local value = file and file:read("l")
      if file then
        file:close()
      end
      return value
    end
    if sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1" then
      return "AppArmor forbids user namespaces to unprivileged programs",
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give bwrap an AppArmor profile"
    elseif sysctl("kernel/unprivileged_userns_clone") == "0" then
      return "the kernel forbids user namespaces to unprivileged programs",
        "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    elseif sysctl("user/max_user_namespaces") == "0" then
      return "the kernel allows no user namespaces", "sudo sysctl -w user.max_user_namespaces=15000"
    end
    return "user namespaces are not allowed here", "allow them, or run where they are"
  end
  return complaint, "run `lbox doctor`"
end

--- Starts the sandbox of a box and waits until its lbox-init answers.
---@param box { id: string, root: string, uid: integer|nil, etc: string, bin: string }
---@return lbox.server.Sandbox
function M.start(box)
  local bwrap = M.find_bwrap()
  if not bwrap then
    fail("bubblewrap is not installed: apt-get install bubblewrap")
  end
  local host_dirs = prepare_root(box.root, box.uid)
  local ours, theirs = posix.socketpair()
  check(ours, theirs, "socketpair")
  local filter_fd = seccomp_fd()
  local err_read, err_write = posix.pipe()
  local null = posix.open("/dev/null", "rw")
  local pid, pidfd = posix.spawn {
    argv = bwrap_argv(bwrap, box, host_dirs),
    env = { "PATH=/usr/bin:/bin" },
    cwd = "/",
    uid = box.uid,
    gid = box.uid,
    setsid = true,
    fds = { [0] = null, [1] = null, [2] = err_write, [INIT_FD] = theirs, [SECCOMP_FD] = filter_fd },
  }
  for _, fd in ipairs { theirs, filter_fd, err_write, null } do
    posix.close(fd)
  end
  if not pid then
    posix.close(ours)
    posix.close(err_read)
    fail("bubblewrap cannot be started: " .. tostring(pidfd))
  end

  local self = setmetatable({
    id = box.id, pid = pid, pidfd = pidfd, socket = ours, stderr = err_read, closed = false,
    last_id = 0, waiting = {}, watch = async.fd(ours), processes = {}, on_exit = {},
  }, Sandbox)
  local ok, err = pcall(async.timeout, START_TIMEOUT_MS, function()
    local first = self:receive()
    if not first then
      local cause, fix = explain(drain(err_read))
      fail(("the sandbox of the box did not start: %s; %s"):format(cause, fix), { cause = cause, fix = fix })
    end
  end)
  if not ok then
    self:close()
    error(err, 0)
  end
  return self
end

--- Waits for the next message of lbox-init; nil when it is gone.
function Sandbox:receive()
  while true do
    local bytes, fds, errno = posix.recv(self.socket, MAX_ANSWER)
    if bytes == "" then
      return nil
    elseif bytes then
      return bytes, fds
    elseif errno ~= "EAGAIN" then
      return nil
    end
    self.watch:wait("r")
    if self.closed then
      return nil
    end
  end
end

--- Reads answers until the box ends; runs as a task of the server.
function Sandbox:run()
  while not self.closed do
    local bytes, fds = self:receive()
    if not bytes then
      break
    end
    local op
    if #bytes >= 8 then
      local id = string.unpack("=I4", bytes)
      op = self.waiting[id]
      self.waiting[id] = nil
    end
    if op then
      op:resolve({ errno = string.unpack("=i4", bytes, 5), fields = bytes:sub(9), fds = fds })
    else
      for _, fd in ipairs(fds) do
        posix.close(fd)
      end
    end
  end
  self:close()
end

local ERRNO = { [1] = "EPERM", [2] = "ENOENT", [5] = "EIO", [7] = "E2BIG", [11] = "EAGAIN",
  [12] = "ENOMEM", [13] = "EACCES", [17] = "EEXIST", [20] = "ENOTDIR", [21] = "EISDIR",
  [22] = "EINVAL", [26] = "ETXTBSY", [27] = "EFBIG", [28] = "ENOSPC", [30] = "EROFS", [36] = "ENAMETOOLONG",
  [39] = "ENOTEMPTY", [40] = "ELOOP" }
local WORDS = { ENOENT = "no such file or directory", EACCES = "permission denied",
  EPERM = "operation not permitted", EEXIST = "it exists already", ENOTDIR = "not a directory",
  EISDIR = "it is a directory", EINVAL = "not a regular file", ENOSPC = "no space left",
  EROFS = "read-only in a box", ENAMETOOLONG = "the name is too long", ELOOP = "too many links",
  E2BIG = "the command line is too long" }

--- Raises for an errno of lbox-init.
function M.file_error(number, path)
  local name = ERRNO[number] or ("errno %d"):format(number)
  fail(("%s: %s"):format(path, WORDS[name] or name), { errno = name })
end

--- Sends a request and waits for its answer: { fields, fds }.
function Sandbox:ask(op_code, fields, fds, path)
  if self.closed then
    fail("the box was stopped")
  end
  self.last_id = self.last_id % 0x7fffffff + 1
  local id = self.last_id
  local message = string.pack("=I4I4", op_code, id) .. fields
  if #message > MAX_ANSWER then
    M.file_error(36, path or "the request")
  end
  local op = async.op()
  self.waiting[id] = op
  while true do
    local ok, why, errno = posix.send(self.socket, message, fds)
    if ok then
      break
    elseif errno ~= "EAGAIN" then
      self.waiting[id] = nil
      fail("the box was stopped: " .. tostring(why))
    end
    async.sleep(1)
  end
  local answer = async.wait(op)
  if answer.errno ~= 0 then
    for _, fd in ipairs(answer.fds) do
      posix.close(fd)
    end
    M.file_error(answer.errno, path or "the request")
  end
  return answer
end

--- Starts a command. See process.lua for what comes back.
---@param command { argv: string[], cwd: string, env: string[], merge: boolean|nil }
function Sandbox:spawn(command)
  return process.start(self, SPAWN, command)
end

--- Kills everything of a command.
function Sandbox:kill(keeper)
  if not self.closed then
    self:ask(KILL, string.pack("=I4", keeper))
  end
end

local function one_fd(answer)
  local fd = answer.fds[1]
  for i = 2, #answer.fds do
    posix.close(answer.fds[i])
  end
  if not fd then
    fail("the box sent no file")
  end
  return fd
end

local function read_all(fd, max, path)
  local st = posix.fstat(fd)
  -- What came out of a box is looked at before it is read: it could be anything.
  if not st or st.type ~= "file" then
    M.file_error(22, path)
  elseif st.size > max then
    fail(("%s: %d bytes are more than the %d that can be read at once"):format(path, st.size, max),
      { errno = "EFBIG" })
  end
  local parts, total = {}, 0
  while true do
    local bytes, why = posix.read(fd, 1024 * 1024)
    if not bytes then
      fail(("%s: %s"):format(path, why))
    elseif bytes == "" then
      return table.concat(parts)
    end
    parts[#parts + 1] = bytes
    total = total + #bytes
    if total > max then
      fail(("%s grew while it was read"):format(path), { errno = "EFBIG" })
    end
  end
end

--- The content of a regular file.
---@param path string  absolute, in the box
---@param max integer  bytes
function Sandbox:read_file(path, max)
  local fd = one_fd(self:ask(OPEN, string.pack("=I4s4", 0, path), nil, path))
  local ok, result = pcall(read_all, fd, max, path)
  posix.close(fd)
  if not ok then
    error(result, 0)
  end
  return result
end

--- Writes a file whole or not at all; makes the directories it needs.
function Sandbox:write_file(path, bytes)
  local answer = self:ask(OPEN, string.pack("=I4s4", 1, path), nil, path)
  local fd = one_fd(answer)
  local ok, err = pcall(function()
    local st = posix.fstat(fd)
    if not st or st.type ~= "file" then
      M.file_error(22, path)
    end
    local at = 1
    while at <= #bytes do
      local n, why = posix.write(fd, bytes, at)
      if not n then
        fail(("%s: %s"):format(path, why))
      end
      at = at + n
    end
  end)
  posix.close(fd)
  local name = string.unpack("=s4", answer.fields)
  if not ok then
    pcall(self.ask, self, REMOVE, string.pack("=s4", name), nil, path)
    error(err, 0)
  end
  self:ask(RENAME, string.pack("=s4s4", name, path), nil, path)
end

--- Entries of a directory: { name, type, size, mtime } each, sorted by name.
function Sandbox:list(path)
  local fd = one_fd(self:ask(LIST, string.pack("=s4", path), nil, path))
  local ok, bytes = pcall(read_all, fd, 64 * 1024 * 1024, path)
  posix.close(fd)
  if not ok then
    error(bytes, 0)
  end
  local entries, at = {}, 1
  while at <= #bytes do
    local kind, size, mtime, name
    kind, size, mtime, name, at = string.unpack("=I1I8i8s4", bytes, at)
    entries[#entries + 1] = { name = name, type = TYPES[kind] or "other", size = size, mtime = mtime }
  end
  table.sort(entries, function(a, b) return a.name < b.name end)
  return entries
end

--- { type, size, mtime } of a path.
function Sandbox:stat(path, follow)
  local answer = self:ask(STAT, string.pack("=I4s4", follow and 1 or 0, path), nil, path)
  local kind, size, mtime = string.unpack("=I1I8i8", answer.fields)
  return { type = TYPES[kind] or "other", size = size, mtime = mtime }
end

local function children(pid)
  local file = io.open(("/proc/%d/task/%d/children"):format(pid, pid))
  local text = file and file:read("a") or ""
  if file then
    file:close()
  end
  return text
end

--- Whether anything but lbox-init is running in the box.
function Sandbox:has_processes()
  local init = not self.closed and children(self.pid):match("%d+")
  return init ~= nil and init ~= false and children(tonumber(init)):find("%d") ~= nil
end

--- Ends the sandbox and everything in it.
function Sandbox:close()
  if self.closed then
    return
  end
  self.closed = true
  self.watch:close()
  posix.close(self.socket) -- lbox-init ends, and the box's processes with it
  posix.kill(self.pid, "KILL")
  posix.close(self.stderr)
  for _, op in pairs(self.waiting) do
    op:reject(errors.new("local", "the box was stopped"))
  end
  self.waiting = {}
  for proc in pairs(self.processes) do
    proc:box_ended()
  end
  -- Reaping takes no time once it is killed, but it is not instant.
  local pidfd = self.pidfd
  local watch = async.fd(pidfd)
  async.source(watch.id, function()
    async.source(watch.id, nil)
    posix.waitid(pidfd)
    watch:close()
    posix.close(pidfd)
    for _, fn in ipairs(self.on_exit) do
      fn()
    end
  end)
  watch.watch:arm("r")
end

-- --------------------------------------------------------------------------------------- probing

--- Whether sandboxes can be started here, and if not, why and what to do.
---@return { ok: boolean, bwrap: string|nil, problems: { what: string, cause: string, fix: string }[] }
function M.probe()
  local found = { ok = false, problems = {} }
  local bwrap = M.find_bwrap()
  if not bwrap then
    found.problems[1] = { what = "bubblewrap", cause = "it is not installed",
      fix = "apt-get install bubblewrap" }
    return found
  end
  local function run(argv, uid)
    local out_read, out_write = posix.pipe()
    local pid, pidfd = posix.spawn { argv = argv, env = { "PATH=/usr/bin:/bin" }, cwd = "/", uid = uid,
      gid = uid, fds = { [1] = out_write, [2] = out_write } }
    posix.close(out_write)
    if not pid then
      posix.close(out_read)
      return false, tostring(pidfd)
    end
    local watch = async.fd(pidfd)
    watch:wait("r")
    watch:close()
    local usage = posix.waitid(pidfd)
    posix.close(pidfd)
    local text = drain(out_read)
    posix.close(out_read)
    return usage ~= nil and usage.exit_code == 0, text
  end
  local ok, version = run({ bwrap, "--version" })
  found.bwrap = ok and version:match("[%d.]+") or nil
  -- Started as root, the boxes' user is another one.
  local uid = posix.getuid() == 0 and 524288 or nil
  local works, complaint = run({ bwrap, "--unshare-all", "--uid", "1000", "--gid", "1000", "--ro-bind",
    "/usr", "/usr", "--ro-bind-try", "/lib", "/lib", "--ro-bind-try", "/lib64", "/lib64", "--proc", "/proc",
    "--dev", "/dev", "/usr/bin/true" }, uid)
  if works then
    found.ok = true
  else
    local cause, fix = explain(complaint)
    found.problems[1] = { what = "sandbox", cause = cause, fix = fix }
  end
  return found
end

return M
