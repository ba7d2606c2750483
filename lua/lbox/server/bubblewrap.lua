--- bubblewrap: where it is, how it is called, and what its complaints mean.
local child = require "lbox.server.child"
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"
local seccomp = require "lbox.server.seccomp"

local M = {}

local DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
-- --as-pid-1 and --json-status-fd came with 0.4.
local OLDEST = { 0, 4 }
local PROBE_TIMEOUT_MS = 10000
-- Started as root, boxes have uids from here on; the probe tries the first.
local PROBE_UID = 524288

-- Descriptors it is started with.
M.CONTROL_FD, M.SECCOMP_FD, M.STATUS_FD = 3, 4, 5

-- Of the host's top level: what is a link there is the same link in a box, what is a directory is
-- mounted read-only.
local HOST_DIRS = { "bin", "sbin", "lib", "lib32", "lib64", "libx32" }
-- Of the host's /etc, besides what is made for boxes.
local HOST_ETC = { "alternatives", "ca-certificates", "ld.so.cache", "pki/ca-trust", "ssl/certs",
  "ssl/openssl.cnf" }

--- Top-level directories that something is mounted on.
M.MOUNTED = { "usr", "etc", "proc", "dev", "run" }
M.HOST_ETC = HOST_ETC

--- The path of bwrap, or nil.
---@return string|nil
function M.find()
  for dir in (os.getenv("PATH") or DEFAULT_PATH):gmatch("[^:]+") do
    local path = dir .. "/bwrap"
    local st = posix.lstat(path)
    if dir:sub(1, 1) == "/" and st and (st.type == "symlink" or st.type == "file" and st.mode & 0x49 ~= 0) then
      return path
    end
  end
end

--- The host's top-level links ({ name = target }) and directories that boxes have too.
---@return table<string, string> links, string[] dirs
function M.host_layout()
  local links, dirs = {}, {}
  for _, name in ipairs(HOST_DIRS) do
    local st = posix.lstat("/" .. name)
    if st and st.type == "symlink" then
      links[name] = posix.readlink("/" .. name)
    elseif st and st.type == "directory" then
      dirs[#dirs + 1] = name
    end
  end
  return links, dirs
end

local function add(list, ...)
  for _, word in ipairs { ... } do
    list[#list + 1] = word
  end
end

-- What takes everything away from a box that bubblewrap can take away; the network, if it is started in one
-- that is not the host's.
local function isolation(bwrap, in_network)
  local argv = { bwrap, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts",
    "--unshare-cgroup-try", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--new-session",
    "--clearenv", "--as-pid-1", "--seccomp", tostring(M.SECCOMP_FD) }
  if not in_network then
    add(argv, "--unshare-net")
  end
  return argv
end

-- Of /run, and of /dev/shm where no limit says more.
local MEMORY_DISK = 64 * 1024 * 1024

--- What is written to /run and /dev/shm takes memory that no process has.
local function add_memory_disks(argv, bwrap, limit)
  local function add_disk(size, path)
    if M.can_size(bwrap) then
      add(argv, "--size", tostring(size))
    end
    add(argv, "--tmpfs", path)
  end
  add_disk(MEMORY_DISK, "/run")
  add_disk(limit and limit.memory // 4 or MEMORY_DISK, "/dev/shm")
  add(argv, "--remount-ro", "/dev")
end

--- The command line that starts a box. Without --die-with-parent on purpose: lbox-init ends when the
--- server does, and bubblewrap's own process, which waits for it, holds the box's lock until the last
--- process of the box is gone (see lbox.server.sandbox).
---@param box { id: string, root: string, etc: string, bin: string, agent: lbox.server.AgentMounts|nil,
---  limit: lbox.server.Limit|nil, join: integer[]|nil }  join: it is started in namespaces of its own network
---@return string[]
function M.command(bwrap, box, host_dirs)
  local argv = isolation(bwrap, box.join ~= nil)
  add(argv, "--hostname", box.id, "--json-status-fd", tostring(M.STATUS_FD),
    "--bind", box.root, "/", "--ro-bind", "/usr", "/usr", "--ro-bind", box.etc, "/etc")
  for _, name in ipairs(host_dirs) do
    add(argv, "--ro-bind", "/" .. name, "/" .. name)
  end
  for _, name in ipairs(HOST_ETC) do
    -- Only where there is a place for it: /etc is read-only by now.
    if posix.lstat(box.etc .. "/" .. name) then
      add(argv, "--ro-bind-try", "/etc/" .. name, "/etc/" .. name)
    end
  end
  add(argv, "--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev")
  add_memory_disks(argv, bwrap, box.limit)
  add(argv, "--tmpfs", "/run/lbox", "--ro-bind", box.bin, "/run/lbox/bin")
  for _, bind in ipairs(box.agent and box.agent.binds or {}) do
    add(argv, "--ro-bind", bind.from, bind.to)
  end
  for _, link in ipairs(box.agent and box.agent.links or {}) do
    add(argv, "--symlink", link.target, link.at)
  end
  -- A mount of its own, so that the box can neither change what is in it nor put something in its place.
  add(argv, "--remount-ro", "/run/lbox", "--chdir", "/", "--", "/run/lbox/bin/lbox-init")
  if box.limit then
    add(argv, tostring(box.limit.processes or 0), tostring(box.limit.disk))
  end
  return argv
end

local filter -- the compiled filter, the same for every box

--- A new descriptor of the system-call filter.
---@return integer
function M.filter_fd()
  local why
  if not filter then
    filter, why = seccomp.filter()
  end
  local fd = filter and posix.memfd(filter)
  if not fd then
    errors.raise("local", why or "no memory for the system-call filter")
  end
  return fd
end

-- ------------------------------------------------------------------------------------- complaints

local function read_setting(name)
  local file = io.open("/proc/sys/" .. name)
  local value = file and file:read("l")
  if file then
    file:close()
  end
  return value
end

local function namespaces_forbidden(setting)
  if setting("user/max_user_namespaces") == "0" then
    return "the kernel allows no user namespaces (user.max_user_namespaces is 0)",
      "sudo sysctl -w user.max_user_namespaces=15000"
  elseif setting("kernel/unprivileged_userns_clone") == "0" then
    return "the kernel keeps user namespaces to root (kernel.unprivileged_userns_clone is 0)",
      "sudo sysctl -w kernel.unprivileged_userns_clone=1"
  elseif setting("kernel/apparmor_restrict_unprivileged_userns") == "1" then
    return "AppArmor forbids bwrap user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)",
      "give /usr/bin/bwrap an AppArmor profile with `userns,`, or: "
        .. "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
  end
  return "this machine or the container around it forbids user namespaces",
    "run lbox outside of the container, or allow it unprivileged user namespaces"
end

-- Patterns of bubblewrap's messages, and what each means.
local COMPLAINTS = {
  { "[Nn]o permissions to creat", namespaces_forbidden },
  { "Creating new namespace failed", namespaces_forbidden },
  { "setting up uid map", namespaces_forbidden },
  { "unshare user ns", namespaces_forbidden },
  { "loopback: ", namespaces_forbidden },
  { "Failed to make / slave", namespaces_forbidden },
  { "Can't mount proc", function()
    return "the container around this program hides parts of /proc, so no box can have a /proc of its own",
      "run lbox outside of the container, or start that with --security-opt systempaths=unconfined"
  end },
  { "Can't find source path (.-): Permission denied", function(_, path)
    return ("the user that boxes run as cannot reach %s"):format(path),
      "let everyone pass its directories (chmod o+x), or keep the data elsewhere (--data, LBOX_DATA)"
  end },
  { "Unknown option", function()
    return "this bubblewrap is too old", "install bubblewrap 0.4 or newer"
  end },
}

--- What a complaint of bubblewrap means and what to do about it.
---@param complaint string
---@param setting fun(name: string): string|nil  reads a kernel setting; for specs
---@return string cause, string fix
function M.explain(complaint, setting)
  complaint = complaint:gsub("%s+$", "")
  for _, known in ipairs(COMPLAINTS) do
    local found = { complaint:find(known[1]) }
    if found[1] then
      local cause, fix = known[2](setting or read_setting, found[3])
      return ("%s: %s"):format(cause, complaint:match("[^\n]*")), fix
    end
  end
  return complaint ~= "" and complaint or "bubblewrap ended without a word", "run `lbox doctor`"
end

M.MISSING = {
  what = "bubblewrap",
  cause = "the program bwrap is not on PATH",
  fix = "apt-get install bubblewrap",
}

-- ------------------------------------------------------------------------------------------ probe

local function version_of(bwrap)
  local ok, status, text = pcall(child.run, {
    argv = { bwrap, "--version" }, env = {}, cwd = "/", timeout = PROBE_TIMEOUT_MS,
  })
  return ok and status.exit_code == 0 and text:match("(%d+%.[%d.]+)") or nil
end

local sized = {} -- whether one can say how large a tmpfs is, by the path of bwrap

--- Whether this bubblewrap bounds the disks in memory: 0.7 does.
---@param bwrap string
---@return boolean
function M.can_size(bwrap)
  if sized[bwrap] == nil then
    local major, minor = (version_of(bwrap) or "0.0"):match("^(%d+)%.(%d+)")
    sized[bwrap] = tonumber(major) > 0 or tonumber(minor) >= 7
  end
  return sized[bwrap]
end

local function too_old(version)
  local major, minor = version:match("^(%d+)%.(%d+)")
  major, minor = tonumber(major), tonumber(minor)
  return major < OLDEST[1] or (major == OLDEST[1] and minor < OLDEST[2])
end

--- Starts a sandbox like a box's that ends at once. nil, or bubblewrap's complaint.
local function try(bwrap)
  local argv = isolation(bwrap)
  add(argv, "--ro-bind", "/", "/", "--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys",
    "--dev", "/dev", "--", "/bin/true")
  local as_root = posix.getuid() == 0
  local fd = M.filter_fd()
  local ok, status, text = pcall(child.run, {
    argv = argv, env = {}, cwd = "/", timeout = PROBE_TIMEOUT_MS, fds = { [M.SECCOMP_FD] = fd },
    uid = as_root and PROBE_UID or nil, gid = as_root and PROBE_UID or nil,
  })
  posix.close(fd)
  if not ok then
    return errors.is(status) and status.message or tostring(status)
  elseif status.exit_code ~= 0 then
    return text
  end
end

--- Whether sandboxes can be started here, and if not, why and what to do.
---@return { ok: boolean, bwrap: string|nil, problems: { what: string, cause: string, fix: string }[] }
function M.probe()
  local found = { ok = false, problems = {} }
  local bwrap = M.find()
  if not bwrap then
    found.problems[1] = M.MISSING
    return found
  end
  found.bwrap = version_of(bwrap)
  if found.bwrap and too_old(found.bwrap) then
    found.problems[1] = { what = "bubblewrap", cause = "version " .. found.bwrap .. " is too old",
      fix = "install bubblewrap 0.4 or newer" }
    return found
  end
  local complaint = try(bwrap)
  if complaint then
    local cause, fix = M.explain(complaint)
    found.problems[1] = { what = "sandbox", cause = cause, fix = fix }
  end
  found.ok = not complaint
  return found
end

return M
