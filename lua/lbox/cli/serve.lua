--- `lbox serve`: runs the local box server in the foreground, and, for clients that need one, starts
--- it in the background.
local argparse = require "argparse"
local async = require "lbox.async"
local errors = require "lbox.errors"
local host_ports = require "lbox.server.host_ports"
local limits = require "lbox.server.limits"
local local_server = require "lbox.local_server"
local paths = require "lbox.paths"
local posix = require "lbox.server.posix"

local M = {}

-- How long a start may take; bringing back a data directory after a crash is the slow part.
local START_TIMEOUT_MS = 15000
local LOCK_RETRY_MS = 20
-- A server that was killed while it started a process has left its lock to that one until it runs.
local LEFT_LOCK_MS = 500
-- How long a box may be idle, and may be let.
local IDLE_S, MAX_IDLE_S = 1800, 366 * 86400
-- Exit status of our own failures.
local FAILED = 125

-- What the server started in the background gets of the environment: nothing that holds a secret,
-- and nothing of the directory or session it was started from.
local KEPT_ENVIRONMENT = { "HOME", "LANG", "LBOX_AGENTS", "LOGNAME", "PATH", "USER", "XDG_DATA_HOME" }

local function seconds(text)
  local value = tonumber(text)
  if not value or value < 0 or value > MAX_IDLE_S then
    return nil, ("--idle-pause %s: a number of seconds from 0 to %d"):format(text, MAX_IDLE_S)
  end
  return value
end

local function boxes(text)
  local value = text:match("^%d+$") and #text < 10 and math.tointeger(tonumber(text))
  if not value or value < 1 then
    return nil, ("--max-boxes %s: a whole number from 1 on"):format(text)
  end
  return value
end

local function absolute(dir)
  if dir and dir ~= "" then
    return dir:sub(1, 1) == "/" and dir or (os.getenv("PWD") or ".") .. "/" .. dir
  end
end

local function directory(option)
  return function(text)
    local dir = absolute(text)
    if not dir or not posix.listdir(dir) then
      return nil, ("%s %s: no directory that can be read"):format(option, text)
    end
    return dir
  end
end

local function parser()
  local p = argparse("lbox serve", "Run the local box server.")
  p:option("--data", "directory of boxes and database (default: $LBOX_DATA, /var/lib/lbox as root, "
    .. "else $XDG_DATA_HOME/lbox)"):argname("DIR")
  p:option("--listen", "TCP address to serve, besides the Unix socket"):argname("HOST:PORT")
  p:option("--idle-pause", "pause a box after so long without work in it; 0: never (default: 1800)")
    :convert(seconds):argname("SECONDS")
  p:option("--agents", "where CLIs of agents are looked for first (default: $LBOX_AGENTS)")
    :convert(directory "--agents"):argname("DIR")
  p:option("--skills", "where skills are, in repositories OWNER/REPO (default: skills in the data directory)")
    :convert(directory "--skills"):argname("DIR")
  p:option("--host-port", "a port of this machine that boxes reach at 127.0.0.1 (a local model, say)")
    :convert(host_ports.port):argname("PORT"):count("*")
  p:option("--max-boxes", "how many boxes there may be (default: 1000)"):convert(boxes):argname("N")
  p:option("--max-disk", "what boxes and snapshots may take together (default: what the disk has)")
    :convert(limits.bytes):argname("SIZE")
  p:option("--disk-floor", "what boxes leave of the disk (default: a twentieth of it, at most 1G)")
    :convert(limits.bytes):argname("SIZE")
  p:option("--limit", "of every box, whatever its size: memory=SIZE, disk=SIZE, processes=N")
    :convert(limits.parse):argname("NAME=VALUE"):count("*")
  p:flag("--print-env", "print export lines for the official SDKs")
  p:flag("--detach", "start it in the background unless it runs, print its socket, and return")
  p:flag("--on-demand", "end half a minute after the last client left"):hidden(true)
  p:option("--ready-fd", "tell on this file descriptor when connections are accepted")
    :convert(tonumber):argname("FD"):hidden(true)
  return p
end

local function say(text)
  io.stderr:write(text, "\n")
end

local function print_env(info)
  io.stdout:write(("export UPSTASH_BOX_BASE_URL=%s\nexport UPSTASH_BOX_API_KEY=%s\n"):format(
    info.url, info.key))
  io.stdout:flush()
end

--- Serves until a signal or the exit rules end it. On demand one server is as good as another: when
--- the data directory is taken by one that is starting, that one counts; one that is ending is waited
--- for. One that is to stay takes the place of one that was started on demand and is idle.
local function serve_data(opts)
  local server = require "lbox.server"
  local give_up_at = async.now() + (opts.on_demand and START_TIMEOUT_MS or LEFT_LOCK_MS)
  while true do
    local ok, err = pcall(server.serve, opts)
    if ok then
      return
    elseif not (errors.is(err) and err.code == "locked") then
      error(err, 0)
    elseif not opts.on_demand and local_server.stop(paths.socket(opts.data)) then
      give_up_at = async.now() + START_TIMEOUT_MS
    elseif async.now() > give_up_at then
      error(err, 0)
    elseif opts.on_demand and local_server.hello(paths.socket(opts.data)) then
      return opts.ready { data = opts.data, socket = paths.socket(opts.data) }
    end
    async.sleep(LOCK_RETRY_MS)
  end
end

local function serve(args)
  local listen = args.listen or (not args.on_demand and "127.0.0.1:0") or nil
  local ok, err = pcall(async.run, serve_data, {
    data = paths.data_dir(args.data),
    listen = listen,
    on_demand = args.on_demand,
    idle_pause = args.idle_pause or IDLE_S,
    host_ports = args.host_port,
    agents_dir = args.agents or absolute(os.getenv("LBOX_AGENTS")),
    skills_dir = args.skills,
    limits = args.limit,
    max_boxes = args.max_boxes,
    max_disk = args.max_disk,
    disk_floor = args.disk_floor,
    log = function(line) say(line) end,
    ready = function(info)
      if args.print_env then
        print_env(info)
      end
      if args.ready_fd then
        posix.write(args.ready_fd, "ready\n")
        posix.close(args.ready_fd)
      else
        say("data " .. info.data)
        say("socket " .. info.socket)
        if info.url then
          say(("url %s (key in %s)"):format(info.url, info.key_file))
        end
        say("ready")
      end
    end,
  })
  if ok then
    return 0
  end
  local message = errors.is(err) and err.message or tostring(err)
  if args.ready_fd then
    posix.write(args.ready_fd, "failed " .. message .. "\n")
  else
    say("lbox serve: " .. message)
  end
  return FAILED
end

local function background_environment()
  local env = {}
  for _, name in ipairs(KEPT_ENVIRONMENT) do
    local value = os.getenv(name)
    if value then
      env[#env + 1] = name .. "=" .. value
    end
  end
  return env
end

--- Starts `lbox serve --on-demand` in a session of its own and waits until it accepts connections.
--- The server takes the lock of the data directory, so of two that start at once one serves and the
--- other finds it serving.
local function detach(args)
  local dir = paths.data_dir(args.data)
  local made, err = pcall(require("lbox.server.data").make, dir)
  if not made then
    say("lbox serve: " .. (errors.is(err) and err.message or tostring(err)))
    return FAILED
  end
  local null = assert(posix.open("/dev/null", "rw"))
  local log = posix.open(dir .. "/server.log", "append", 0x180) or null
  local ready_read, ready_write = assert(posix.pipe())
  assert(posix.spawn {
    argv = { posix.exe_path(), "serve", "--data", dir, "--on-demand", "--ready-fd", "3" },
    env = background_environment(),
    cwd = "/",
    fds = { [0] = null, [1] = null, [2] = log, [3] = ready_write },
    setsid = true,
  })
  posix.close(ready_write)

  local answer = ""
  local ok = pcall(async.run, function()
    async.timeout(START_TIMEOUT_MS, function()
      local watched = async.fd(ready_read)
      while not answer:find("\n", 1, true) do
        watched:wait("r")
        local bytes = posix.read(ready_read, 4096)
        if not bytes or bytes == "" then
          break
        end
        answer = answer .. bytes
      end
    end)
  end)
  if answer:match("^ready\n") then
    print(paths.socket(dir))
    return 0
  end
  local reason = answer:match("^failed (.-)\n")
  if not reason then
    reason = ok and "it ended while starting" or ("it did not start within %d s"):format(START_TIMEOUT_MS / 1000)
  end
  say(("lbox serve: %s (log: %s/server.log)"):format(reason, dir))
  return FAILED
end

--- The first option given that a server in the background would not get.
local function unknown_to_detach(args)
  local given = {}
  for name, value in pairs(args) do
    if name ~= "detach" and name ~= "data" and (type(value) ~= "table" or #value > 0) then
      given[#given + 1] = name:gsub("_", "-")
    end
  end
  table.sort(given)
  return given[1]
end

---@param argv string[]
---@return integer status
function M.main(argv)
  local args = parser():parse(argv)
  if args.print_env and args.on_demand then
    say("lbox serve: --print-env needs a TCP address, which a server on demand has not")
    return FAILED
  end
  if args.detach then
    local option = unknown_to_detach(args)
    if option then
      say(("lbox serve: --%s does not go with --detach, whose server is the one that scripts start on demand"):format(
        option))
      return FAILED
    end
    return detach(args)
  end
  return serve(args)
end

return M
