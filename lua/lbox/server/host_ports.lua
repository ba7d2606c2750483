--- Ports of this machine that boxes reach (`lbox serve --host-port`): whoever connects to 127.0.0.1:N in a
--- box is connected to 127.0.0.1:N out here, by way of the server.
local async = require "lbox.async"
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"
local sockets = require "lbox.server.socket"

local M = {}

-- Of one box to one port. Who comes then waits until another has left.
local MAX_CONNECTIONS = 64
local CONNECT_MS = 5000
-- Without descriptors left, nobody is accepted for so long.
local SHORTAGE_MS = 100
local SHORTAGES = { EMFILE = true, ENFILE = true, ENOBUFS = true, ENOMEM = true }
-- One that was waiting has gone.
local PASSING = { EAGAIN = true, ECONNABORTED = true }

local function copy(from, to)
  for bytes in from:pieces() do
    to:write(bytes)
  end
  to:shut()
end

--- Copies both ways until both have ended; neither is read faster than the other takes it.
local function relay(inner, outer)
  async.scope(function(scope)
    scope:spawn(function() copy(inner, outer) end)
    copy(outer, inner)
  end)
end

--- Serves a connection that a box has made. Is nobody out here, it ends at once.
local function serve(inner, port)
  local fd = posix.connect { host = "127.0.0.1", port = port }
  if not fd then
    return
  end
  local outer = sockets.new(fd)
  local ok, err = pcall(function()
    if sockets.connected(fd, CONNECT_MS) then
      relay(inner, outer)
    end
  end)
  outer:close()
  -- A connection that breaks is nobody's fault and nobody's news.
  if not ok and not errors.is(err, "network") then
    error(err, 0)
  end
end

--- The next connection: a descriptor. Raises when there will be no more.
local function next_connection(listening, watched)
  while true do
    local fd, why, name = posix.accept(listening)
    if fd then
      return fd
    elseif SHORTAGES[name] then
      async.sleep(SHORTAGE_MS)
    elseif PASSING[name] then
      watched:wait("r")
    else
      errors.raise("local", why)
    end
  end
end

--- Accepts from a socket that listens in a box, until it is no more.
local function accept(listening, watched, port, connections)
  local places = async.semaphore(MAX_CONNECTIONS)
  async.scope(function(scope)
    while true do
      places:acquire()
      local inner = sockets.new(next_connection(listening, watched))
      connections[inner] = true
      scope:spawn(function()
        serve(inner, port)
        inner:close()
        connections[inner] = nil
        places:release()
      end)
    end
  end)
end

local function open_port(box, port, scope, log)
  local listening = box:listen(port)
  local watched = async.fd(listening)
  local connections = {}
  local task = scope:spawn(function()
    local ok, err = pcall(accept, listening, watched, port, connections)
    if not ok and not errors.is(err, "cancelled") then
      log(("box %s: it no longer reaches port %d of this machine: %s"):format(box.id, port, async.describe(err)))
    end
  end)
  local function close()
    task:cancel("the box was stopped")
    watched:close()
    posix.close(listening)
    for inner in pairs(connections) do
      inner:close()
    end
  end
  if box.ended then
    close()
  else
    table.insert(box.on_exit, close)
  end
end

--- Opens these ports in a sandbox that has just started, for as long as it runs. Raises kind `local` when one
--- cannot be.
---@param box lbox.server.Sandbox
---@param ports integer[]
---@param scope lbox.async.Scope
---@param log fun(line: string)
function M.open(box, ports, scope, log)
  local opened = {}
  for _, port in ipairs(ports) do
    if not opened[port] then
      opened[port] = true
      open_port(box, port, scope, log)
    end
  end
end

-- Below that, nobody without privileges listens, also in a box.
local FIRST_PORT = 1024

--- The port that a word names; nil and what is wrong with it when it names none.
---@param word string
---@return integer|nil
---@return string|nil why
function M.port(word)
  local port = word:match("^%d+$") and #word <= 5 and math.tointeger(tonumber(word))
  if not port or port < FIRST_PORT or port > 65535 then
    return nil, ("%s: a number from %d to 65535 is needed"):format(word, FIRST_PORT)
  end
  return port
end

return M
