--- Sandboxes: a box's lbox-init in bubblewrap, the commands it starts and the files it opens. No path of
--- a box is resolved out here, and nothing that comes out of one is believed.
local async = require "lbox.async"
local box_root = require "lbox.server.box_root"
local bubblewrap = require "lbox.server.bubblewrap"
local child = require "lbox.server.child"
local errors = require "lbox.errors"
local init_link = require "lbox.server.init_link"
local posix = require "lbox.server.posix"
local process = require "lbox.server.process"
local sockets = require "lbox.server.socket"

local M = {}

local START_TIMEOUT_MS = 10000
local FREEZE_TIMEOUT_MS = 10000
-- After this long a sandbox that was told to end is killed.
local END_TIMEOUT_MS = 1000
local MAX_COMPLAINT = 4096
M.PATH = "/home/boxuser/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/lbox/bin"
  .. ":/run/lbox/agents/bin"
M.create_root = box_root.create
M.create_etc = box_root.create_etc
M.empty_root = box_root.empty
M.copy_root = box_root.copy
M.probe = bubblewrap.probe

---@class lbox.server.Sandbox
---@field id string
---@field closed boolean  it is ending or has ended
---@field ended boolean   its last process is gone
---@field frozen lbox.async.Op[]|nil  it stands still: who waits until it goes on
---@field processes table<lbox.server.Process, true>
---@field limit lbox.server.Limit|nil
---@field proc integer|nil  descriptor of the /proc of the box, while it runs
---@field on_exit fun()[]  called once its last process is gone
local Sandbox = {}
Sandbox.__index = Sandbox
for name, method in pairs(require "lbox.server.sandbox_files") do
  Sandbox[name] = method
end

local function fail(message, fields)
  errors.raise("local", message, fields)
end

-- ------------------------------------------------------------------------------------------ lock

-- The lock of a box is held by bubblewrap's outer process, which ends after the last process of the
-- box. A server that was killed may have left a box that is just ending: only with the lock is it sure
-- that nothing in the box can change its directory under our feet.

local function lock_path(root)
  return root:match("^(.*)/[^/]+$") .. "/lock"
end

--- The host's pid of the box's pid 1, which bubblewrap writes into the lock file.
local function init_pid(root)
  local file = io.open(lock_path(root))
  local text = file and file:read("a") or ""
  if file then
    file:close()
  end
  return tonumber(text:match('"child%-pid": (%d+)'))
end

--- Waits until a process, not a child of ours, has ended.
local function wait_pidfd(pidfd)
  local watched = async.fd(pidfd)
  local ok, err = pcall(watched.wait, watched, "r")
  watched:close()
  if not ok then
    error(err, 0)
  end
end

local function await_end(root)
  local pid = init_pid(root)
  local pidfd = pid and posix.pidfd_open(pid)
  if not pidfd then
    return async.sleep(1) -- it has ended this moment, or has just begun
  end
  local ok, err = pcall(async.timeout, END_TIMEOUT_MS, wait_pidfd, pidfd)
  if not ok and errors.is(err, "timeout") then
    posix.pidfd_kill(pidfd)
    ok, err = pcall(async.timeout, END_TIMEOUT_MS, wait_pidfd, pidfd)
  end
  posix.close(pidfd)
  if not ok then
    error(err, 0)
  end
end

local function take_lock(root)
  local path = lock_path(root)
  while true do
    local fd, why, name = posix.flock(path)
    if fd then
      posix.truncate(fd)
      return fd
    elseif name ~= "EAGAIN" then
      fail(("%s: %s"):format(path, why))
    end
    await_end(root)
  end
end

--- Calls `fn` while no sandbox of this box's directory runs or is started.
---@param root string
---@param fn fun(): ...
function M.alone(root, fn)
  local lock = take_lock(root)
  local results = table.pack(pcall(fn))
  posix.close(lock)
  if not results[1] then
    error(results[2], 0)
  end
  return table.unpack(results, 2, results.n)
end

-- ----------------------------------------------------------------------------------------- start

local function finished(self)
  self.ended = true
  if self.proc then
    posix.close(self.proc)
    self.proc = nil
  end
  for _, fn in ipairs(self.on_exit) do
    fn()
  end
end

--- The other end of the link is gone, or we closed it: lbox-init ends, and all processes with it.
local function ending(self)
  self.closed = true
  for proc in pairs(self.processes) do
    proc:box_ended()
  end
  if not self.child.status then
    local timer = async.at(async.now() + END_TIMEOUT_MS, function()
      local pid = init_pid(self.root)
      local pidfd = pid and posix.pidfd_open(pid)
      if pidfd then
        posix.pidfd_kill(pidfd)
        posix.close(pidfd)
      end
      self.child:kill()
    end)
    self.child:on_exit(function() timer:cancel() end)
  end
end

--- Descriptors of a start; all but those kept are closed when it is over, however it went.
local function with_fds(fn)
  local fds = {}
  local function own(fd, why, errno)
    if not fd then
      fail("no descriptors left for a sandbox: " .. tostring(why), { errno = errno })
    end
    fds[fd] = true
    return fd, why
  end
  local ok, err = pcall(fn, own, function(fd) fds[fd] = nil end)
  for fd in pairs(fds) do
    posix.close(fd)
  end
  if not ok then
    error(err, 0)
  end
end

local function complain(self, err_fd)
  local text = child.collect(err_fd, MAX_COMPLAINT)
  self.child:wait()
  local cause, fix = bubblewrap.explain(text)
  fail(("the sandbox of the box did not start: %s; fix: %s"):format(cause, fix), { cause = cause, fix = fix })
end

local function boot(self, box, own, keep)
  local bwrap = bubblewrap.find()
  if not bwrap then
    local missing = bubblewrap.MISSING
    fail(("%s; fix: %s"):format(missing.cause, missing.fix), { cause = missing.cause, fix = missing.fix })
  end
  local lock = own(take_lock(box.root))
  local host_dirs = box_root.repair(box.root)
  local ours, theirs, errno = posix.socketpair()
  own(ours, theirs, errno)
  own(theirs)
  local err_read, err_write
  err_read, err_write, errno = posix.pipe()
  own(err_read, err_write, errno)
  own(err_write)
  local filter = own(bubblewrap.filter_fd())
  local null = own(posix.open("/dev/null", "rw"))
  self.child = child.spawn {
    argv = bubblewrap.command(bwrap, box, host_dirs),
    env = {},
    cwd = "/",
    uid = box.uid,
    gid = box.uid,
    setsid = true,
    join = box.join,
    limits = { core = 0 },
    fds = {
      [0] = null, [1] = null, [2] = err_write, [bubblewrap.CONTROL_FD] = theirs,
      [bubblewrap.SECCOMP_FD] = filter, [bubblewrap.STATUS_FD] = lock,
    },
  }
  self.child:on_exit(function()
    self.link:close()
    finished(self)
  end)
  keep(ours)
  self.link = init_link.new(ours, function() ending(self) end)
  -- The child's ends have to be closed here before its end can be seen.
  for _, fd in ipairs { theirs, err_write } do
    keep(fd)
    posix.close(fd)
  end
  local ok, err = pcall(async.timeout, START_TIMEOUT_MS, self.link.wait_ready, self.link)
  if not ok and errors.is(err) and err.code == "sandbox_ended" then
    async.timeout(START_TIMEOUT_MS, complain, self, err_read)
  elseif not ok then
    error(err, 0)
  end
  self.proc = not self.ended and posix.box_proc(init_pid(box.root) or 0) or nil
end

--- Starts the sandbox of a box and waits until its lbox-init answers. `root` is in a directory of the
--- server's, where the lock file goes.
---@param box { id: string, root: string, uid: integer|nil, etc: string, bin: string,
---  agent: lbox.server.AgentMounts|nil, limit: lbox.server.Limit|nil, join: integer[]|nil }  join: a user namespace
---  that its own is made in, and its network namespace; without, it has one of its own that nothing leads to
---@return lbox.server.Sandbox
function M.start(box)
  local self = setmetatable({
    id = box.id, root = box.root, limit = box.limit, closed = false, ended = false, processes = {}, on_exit = {},
  }, Sandbox)
  local ok, err = pcall(with_fds, function(own, keep) boot(self, box, own, keep) end)
  if not ok then
    if self.link then
      self.link:close()
    end
    error(err, 0)
  end
  return self
end

--- Waits until the sandbox has ended.
function Sandbox:run()
  self.child:wait()
end

--- Ends the sandbox and everything in it. Does not wait: `on_exit` tells when the last process is gone.
function Sandbox:close()
  self.closed = true
  self.link:close()
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
  local init = not self.closed and children(self.child.pid):match("%d+")
  return init ~= nil and init ~= false and children(tonumber(init)):find("%d") ~= nil
end

-- ---------------------------------------------------------------------------------- standing still

--- Stops everything in the box. Until `thaw` or its end nothing is started and no file begun in it.
function Sandbox:freeze()
  self.frozen = self.frozen or {}
  local code = async.timeout(FREEZE_TIMEOUT_MS, self.link.ask, self.link, init_link.FREEZE, "")
  if code ~= 0 then
    local why, name = posix.strerror(code)
    fail("the processes of the box cannot be stopped: " .. why, { errno = name })
  end
end

--- Lets it go on, however `freeze` went.
function Sandbox:thaw()
  local waiting = self.frozen or {}
  self.frozen = nil
  self.link:tell(init_link.THAW, "")
  for _, op in ipairs(waiting) do
    op:resolve()
  end
end

--- Waits while it stands still.
function Sandbox:wait_for_thaw()
  while self.frozen do
    local op = async.op()
    table.insert(self.frozen, op)
    async.wait(op)
  end
end

-- -------------------------------------------------------------------------------------- commands

--- Starts a command. See process.lua for what comes back.
---@param command { argv: string[], cwd: string, env: string[], merge: boolean|nil, stdin: string|nil }
---@return lbox.server.Process
function Sandbox:spawn(command)
  self:wait_for_thaw()
  return process.start(self, command)
end

-- ----------------------------------------------------------------------------------------- ports

local CONNECT_TIMEOUT_MS = 5000

--- A connection to a port of the box's own loopback: the caller's descriptor, or nil and the name of an
--- errno.
---@param port integer
---@return integer|nil fd, string|nil errno
function Sandbox:connect(port)
  local refused
  for six = 0, 1 do
    local code, fd = self.link:ask(init_link.CONNECT, string.pack("=I4I4", port, six))
    local name = code ~= 0 and select(2, posix.strerror(code)) or nil
    if code == 0 then
      local ok, connected
      ok, connected, name = pcall(sockets.connected, fd, CONNECT_TIMEOUT_MS)
      if ok and connected then
        return fd
      end
      posix.close(fd)
      if not ok then
        error(connected, 0)
      end
    end
    refused = refused or name
  end
  return nil, refused
end

--- A socket that listens on a port of the box's loopback: the caller's descriptor, non-blocking.
---@param port integer
---@return integer fd
function Sandbox:listen(port)
  local code, fd = self.link:ask(init_link.LISTEN, string.pack("=I4", port))
  if code ~= 0 then
    local why, name = posix.strerror(code)
    fail(("port %d of the box: %s"):format(port, why), { errno = name })
  end
  local is_socket, why, name = posix.socket_error(fd)
  if not is_socket then
    posix.close(fd)
    fail(("port %d of the box: %s"):format(port, why), { errno = name })
  end
  posix.set_nonblock(fd)
  return fd
end

return M
