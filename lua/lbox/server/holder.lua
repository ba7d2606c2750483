--- The namespaces that a box's network is in, and the process that holds them (csrc/server/net/holder.h):
--- asked for by the server, entered by bubblewrap, and joined to the outside by slirp4netns.
local async = require "lbox.async"
local child = require "lbox.server.child"
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"

local M = {}

local JOIN, OPEN, REFUSE, PART = 1, 2, 3, 4
local ANSWER_MS, READY_MS, END_MS = 5000, 5000, 2000
local MAX_ANSWER, MAX_COMPLAINT = 256, 4096
local DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
-- Descriptors of the holder, and of slirp4netns.
local CONTROL_FD = 3
local READY_FD, EXIT_FD = 3, 4

---@class lbox.server.Holder
---@field uid integer|nil   who it runs as, when that is not us
---@field namespaces integer[]  the user and the network namespace, for posix.spawn's `join`
---@field slirp lbox.server.Child|nil
---@field on_slirp_exit fun(why: string)|nil  called when slirp4netns ends by itself
---@field on_exit fun()|nil  called when it ends by itself, or has to be given up, and slirp4netns with it
local Holder = {}
Holder.__index = Holder

local function fail(message, ...)
  errors.raise("local", message:format(...))
end

--- slirp4netns, or nil.
---@return string|nil path
function M.slirp()
  for dir in (os.getenv("PATH") or DEFAULT_PATH):gmatch("[^:]+") do
    if dir:sub(1, 1) == "/" and posix.lstat(dir .. "/slirp4netns") then
      return dir .. "/slirp4netns"
    end
  end
end

--- It has ended by itself, or what it says can no longer be told apart.
local function lose(self)
  if self.control then
    self:close()
    if self.on_exit then
      self.on_exit()
    end
  end
end

--- Waits for an answer: its text, and the descriptors that came with it, which are the caller's.
local function take_answer(self)
  local ok, err = pcall(async.timeout, ANSWER_MS, self.watched.wait, self.watched, "r")
  if not self.control then
    fail("the process that holds the network of the box was ended")
  elseif not ok then
    lose(self) -- what it answers later would be taken for something else
    if errors.is(err, "timeout") then
      fail("the process that holds the network of the box does not answer")
    end
    error(err, 0)
  end
  local bytes, fds = posix.recv(self.control, MAX_ANSWER)
  if not bytes or #bytes < 4 then
    fail("the process that holds the network of the box has ended")
  end
  local code, at = string.unpack("=i4", bytes)
  if code ~= 0 then
    local why, name = posix.strerror(code)
    errors.raise("local", ("%s: %s"):format(bytes:sub(at), why), { errno = name })
  end
  return fds
end

local function ask(self, op, subnets)
  if not self.control then
    fail("the process that holds the network of the box was ended")
  end
  local parts = { string.pack("=I4", op) }
  for i, subnet in ipairs(subnets or {}) do
    parts[i + 1] = subnet.address .. string.char(subnet.prefix)
  end
  local ok, why = posix.send(self.control, table.concat(parts))
  if not ok then
    fail("the process that holds the network of the box cannot be asked: %s", why)
  end
  return take_answer(self)
end

--- Starts one, which makes the namespaces. They and it are there until `close`; whoever has entered them stays.
---@param opts { bin: string, uid: integer|nil }  bin: the directory of lbox-init
---@return lbox.server.Holder
function M.start(opts)
  local ours, theirs = posix.socketpair()
  local null = posix.open("/dev/null", "rw")
  if not ours or not null then
    fail("no descriptors left for the network of a box: %s", theirs)
  end
  local self = setmetatable({ control = ours, watched = async.fd(ours), uid = opts.uid, bin = opts.bin,
    turn = async.semaphore(1) }, Holder)
  local ok, err = pcall(function()
    self.child = child.spawn {
      argv = { opts.bin .. "/lbox-init", "net" }, env = {}, cwd = "/", uid = opts.uid, gid = opts.uid, setsid = true,
      limits = { core = 0 }, fds = { [0] = null, [1] = null, [2] = null, [CONTROL_FD] = theirs },
    }
  end)
  posix.close(null)
  posix.close(theirs)
  if ok then
    self.child:on_exit(function() lose(self) end)
    ok, err = pcall(function() self.namespaces = take_answer(self) end)
  end
  if not ok then
    self:close()
    error(err, 0)
  end
  return self
end

-- ------------------------------------------------------------------------------------------- slirp

local function slirp_command(self, path)
  local argv = { path, "--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp",
    "--ready-fd=" .. READY_FD, "--exit-fd=" .. EXIT_FD, ("--userns-path=/proc/%d/ns/user"):format(self.child.pid),
    tostring(self.child.pid), "tap0" }
  if not self.uid then
    return argv, nil
  end
  -- Also where the device is root's alone.
  return { self.bin .. "/lbox-init", "tun", tostring(self.uid), table.unpack(argv) }
end

--- How slirp4netns ended: by a signal, or what it said last.
local function complaint(err_read, status)
  posix.set_nonblock(err_read)
  local text = posix.read(err_read, MAX_COMPLAINT) or ""
  return status.signal and "by signal " .. status.signal or text:match("([^\n]+)%s*$") or "without a word"
end

--- Starts slirp4netns in the namespace that the holder is in, and waits until it has made its device.
local function start_slirp(self)
  local path = M.slirp()
  if not path then
    fail("slirp4netns is not on PATH")
  end
  local fds = {}
  local function pipe(n)
    local r, w = posix.pipe()
    if not r then
      fail("no descriptors left for slirp4netns: %s", w)
    end
    fds[n], fds[n + 1] = r, w
    return r, w
  end
  local ok, err = pcall(function()
    local ready_read, ready_write = pipe(1)
    local exit_read, exit_write = pipe(3)
    local err_read, err_write = pipe(5)
    local null = assert(posix.open("/dev/null", "rw"))
    fds[7] = null
    posix.set_nonblock(err_write) -- what it has to say is not waited for
    local slirp = child.spawn {
      argv = slirp_command(self, path), env = {}, cwd = "/", setsid = true, limits = { core = 0 },
      fds = { [0] = null, [1] = null, [2] = err_write, [READY_FD] = ready_write, [EXIT_FD] = exit_read },
    }
    self.slirp, self.exit_fd, self.err_fd = slirp, exit_write, err_read
    fds[4], fds[5] = nil, nil
    posix.close(ready_write)
    posix.close(err_write)
    fds[2], fds[6] = nil, nil
    local said = async.timeout(READY_MS, child.collect, ready_read, 1)
    if not self.control then
      fail("the process that holds the network of the box was ended")
    elseif said == "" then
      fail("slirp4netns did not start: %s", complaint(err_read, slirp:wait()))
    end
  end)
  for _, fd in pairs(fds) do
    posix.close(fd)
  end
  if not ok then
    error(err, 0)
  end
end

--- Ends slirp4netns and waits for that.
local function end_slirp(self)
  local slirp = self.slirp
  self.slirp = nil
  if slirp then
    posix.close(self.exit_fd)
    slirp:kill()
    pcall(async.shield, function() slirp:wait() end, END_MS)
    posix.close(self.err_fd)
  end
end

local function part(self)
  end_slirp(self)
  ask(self, PART)
end

-- ----------------------------------------------------------------------------------------- the rest

--- Joins the namespace to the outside, but for what is refused. When that fails it is joined to nothing.
---@param subnets lbox.server.Subnet[]  of IPv4
function Holder:join(subnets)
  self.turn:with(function()
    local ok, err = pcall(function()
      ask(self, JOIN, subnets)
      start_slirp(self)
      ask(self, OPEN)
    end)
    if not ok then
      pcall(part, self)
      error(err, 0)
    end
    local slirp = self.slirp
    slirp:on_exit(function(status)
      if self.slirp == slirp and self.on_slirp_exit then
        self.on_slirp_exit(complaint(self.err_fd, status))
      end
    end)
  end)
end

--- More that is refused, from now on.
function Holder:refuse(subnets)
  self.turn:with(ask, self, REFUSE, subnets)
end

--- Takes away what `join` gave; connections end.
function Holder:part()
  self.turn:with(part, self)
end

--- Ends it, and slirp4netns. Does not wait.
function Holder:close()
  if not self.control then
    return
  end
  self.watched:close()
  posix.close(self.control)
  self.control = nil
  for _, fd in ipairs(self.namespaces or {}) do
    posix.close(fd)
  end
  local slirp = self.slirp
  self.slirp = nil
  if slirp then
    posix.close(self.exit_fd)
    slirp:kill()
    posix.close(self.err_fd)
  end
end

return M
