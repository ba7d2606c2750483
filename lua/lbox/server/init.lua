--- The local box server: who may ask, what is answered, when it ends.
local async = require "lbox.async"
local Boxes = require "lbox.server.boxes"
local core = require "lbox.core"
local data = require "lbox.server.data"
local errors = require "lbox.errors"
local lifecycle = require "lbox.server.lifecycle"
local limits = require "lbox.server.limits"
local listener = require "lbox.server.listener"
local logs = require "lbox.server.logs"
local networks = require "lbox.server.network"
local notify = require "lbox.server.notify"
local posix = require "lbox.server.posix"
local public_urls = require "lbox.server.public_urls"
local router = require "lbox.server.router"
local run_webhooks = require "lbox.server.run_webhooks"
local schedules = require "lbox.server.schedules"
local secret = require "lbox.server.secret"
local shutdown = require "lbox.server.shutdown"
local Snapshots = require "lbox.server.snapshots"
local stores = require "lbox.server.store"
local Variables = require "lbox.server.variables"

local M = {}

-- Of an upload; what else is sent is kept whole and less (listener.lua).
local MAX_BODY = 1 << 40
-- On demand: how long it stays after the last client left.
local LINGER_MS, LOOK_MS = 30000, 1000

-- ----------------------------------------------------------------------------- who may ask

--- Whether a Host names a server without a name of its own, which DNS could have led here.
local function is_nameless(host)
  return host == "localhost" or host:match("^%d+%.%d+%.%d+%.%d+$") or host:match("^%[[%x:.]+%]$")
end

--- Raises unless the request may be answered.
local function admit(server, request)
  if request.peer == "unix" then
    local own = posix.getuid()
    if request.uid ~= own and request.uid ~= 0 then
      errors.raise("api", "this server belongs to another user", { status_code = 403 })
    end
    return
  end
  -- A page in a browser can be made to ask here by DNS; it cannot change the Host it asks for.
  local host = (request:header("Host") or ""):gsub(":%d+$", ""):lower()
  if not is_nameless(host) then
    errors.raise("api", "the Host of the request is not this server", { status_code = 403 })
  end
  if not secret.equal(request:header("X-Box-Api-Key"), server.data.key) then
    errors.raise("api", "unauthorized: the API key is missing or wrong", { status_code = 401 })
  end
end

local NO_SPACE = { ENOSPC = true, EDQUOT = true }

local function answer_error(server, request, err)
  local status, message = 500, "server error"
  if errors.is(err, "api") then
    status, message = err.status_code or 500, err.message
  elseif errors.is(err, "local") then
    status, message = NO_SPACE[err.errno] and 507 or 500, err.message
  elseif errors.is(err, "network") and request:gone() then
    message = err.message -- nobody hears it
  else
    server.log("error: " .. async.describe(err))
  end
  if not request.answered then
    request:answer(status, { error = core.utf8_repair(message) })
  end
end

local function handle(server, routes, request)
  local ok, err = pcall(function()
    admit(server, request)
    if server.stopping then
      errors.raise("api", "the server is stopping", { status_code = 503 })
    end
    local handler, params = router.find(routes, request.method, request.path)
    handler(server, request, params)
    if not request.answered then
      request:answer(500, { error = "the server gave no answer" })
    end
  end)
  if not ok then
    local told, why = pcall(answer_error, server, request, err)
    if not told then
      server.log("error: " .. tostring(why))
    end
  end
  server.log(("%s %s %s %.1f ms"):format(request.method, request.path, request.status or "-",
    async.now() - request.began))
end

-- ------------------------------------------------------------------------------ when it ends

local function connections(server)
  local n = 0
  for _, each in ipairs(server.listeners) do
    n = n + each:connections()
  end
  return n
end

--- Waits for a signal or, on demand, until nobody needs the server any more: no client for a while, or
--- the data directory is gone.
local function wait_for_end(server, lock, on_demand)
  local stop = server.stop
  if not on_demand then
    async.wait(stop)
    return
  end
  local left_at = async.now()
  while not stop.settled do
    if connections(server) > 0 or server.boxes:busy() then
      left_at = async.now()
    end
    if not data.is_locked(server.data.dir, lock) then
      server.log("the data directory is gone: the server ends")
      return
    elseif async.now() - left_at >= LINGER_MS then
      return
    end
    pcall(async.timeout, LOOK_MS, function() async.wait(stop) end)
  end
end

local function listen(server, opts)
  posix.unlink(server.data.socket)
  local old = posix.umask(0x3f)
  local fd, why = posix.listen { unix = server.data.socket }
  posix.umask(old)
  if not fd then
    errors.raise("local", ("cannot listen on %s: %s"):format(server.data.socket, why))
  end
  server.socket_id = posix.lstat(server.data.socket).id
  local sockets = { { fd = fd } }
  -- Any local user may knock when it runs as root; who it is decides (admit).
  if opts.listen then
    local host, port = opts.listen:match("^%[?([^%]]*)%]?:(%d+)$")
    if not host or tonumber(port) > 65535 or not (host == "localhost" or host:match("^[%d.]+$") or host:find(":")) then
      errors.raise("usage", ("--listen %s: write localhost or an IP address, a colon and a port from 0 to 65535")
        :format(opts.listen))
    end
    local tcp, bound = posix.listen { host = host == "localhost" and "127.0.0.1" or host, port = tonumber(port) }
    if not tcp then
      errors.raise("local", ("cannot listen on %s: %s"):format(opts.listen, bound))
    end
    sockets[2] = { fd = tcp, key = server.data.key }
    server.url = ("http://%s:%d"):format(host:find(":") and "[" .. host .. "]" or host, bound)
    if host ~= "localhost" and host ~= "::1" and not host:match("^127%.") then
      server.log(("warning: %s can be reached from other machines; whoever has the key has these boxes")
        :format(opts.listen))
    end
  end
  return sockets
end

--- Serves until a signal or the exit rules end it.
---@param opts { data: string, listen: string|nil, on_demand: boolean|nil, idle_pause: number,
---  host_ports: integer[], agents_dir: string|nil, skills_dir: string|nil,
---  limits: table[]|nil, max_boxes: integer|nil, max_disk: integer|nil, disk_floor: integer|nil,
---  log: fun(line: string), ready: fun(info: table) }
function M.serve(opts)
  posix.raise_nofile_limit() -- a box at work takes several descriptors
  local lock = data.lock(opts.data)
  if not lock then
    errors.raise("local", ("another server has the data directory %s"):format(opts.data), { code = "locked" })
  end
  local signals = assert(posix.signals { "TERM", "INT", "HUP" })
  local server = { log = opts.log, listeners = {}, stop = async.op(), hurry = async.op(), on_demand = opts.on_demand,
    host_ports = opts.host_ports, agents_dir = opts.agents_dir, skills_dir = opts.skills_dir or opts.data .. "/skills" }
  async.scope(function(scope)
    server.scope = scope
    server.data = data.open(opts.data)
    server.store = stores.open(server.data.database)
    server.variables, server.logs = Variables.new(server.store), logs.new()
    server.limits = limits.new(server, opts)
    server.networks = networks.new(server)
    server.boxes, server.snapshots = Boxes.new(server), Snapshots.new(server)
    server.boxes:sweep()
    server.snapshots:sweep()
    local routes = router.new()
    for _, socket in ipairs(listen(server, opts)) do
      server.listeners[#server.listeners + 1] = listener.new {
        fd = socket.fd, key = socket.key, max_body = MAX_BODY, scope = scope,
        handler = function(request) handle(server, routes, request) end,
      }
    end
    -- What goes on by itself from here on; whatever could fail has been done.
    server.public_urls = public_urls.new(server)
    server.schedules = schedules.new(server)
    run_webhooks.tell(server)
    server.networks:watch()
    lifecycle.watch(server, opts.idle_pause)
    server.limits:watch()
    notify.send("READY=1")
    opts.ready { data = opts.data, socket = server.data.socket, url = server.url,
      key = server.data.key, key_file = server.data.key_file }
    shutdown.on_signals(server, signals)
    wait_for_end(server, lock, opts.on_demand)
    notify.send("STOPPING=1")
    shutdown.run(server)
    scope:cancel("the server stops")
  end, { on_error = "wait" })
  server.store:close()
  posix.close(lock)
end

return M
