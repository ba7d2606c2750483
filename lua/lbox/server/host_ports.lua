--- Ports of this machine that boxes reach (`lbox serve --host-port`): whoever connects to 127.0.0.1:N in a
--- box is connected to 127.0.0.1:N out here, by way of the server.
local box_port = require "lbox.server.box_port"
local posix = require "lbox.server.posix"
local sockets = require "lbox.server.socket"

local M = {}

-- Of one box to one port. Who comes then waits until another has left.
local MAX_CONNECTIONS = 64
local CONNECT_MS = 5000

--- Serves a connection that a box has made. Is nobody out here, it ends at once.
local function serve(inner, port)
  local fd = posix.connect { host = "127.0.0.1", port = port }
  if not fd then
    return
  end
  local outer = sockets.new(fd)
  local ok, err = pcall(function()
    if sockets.connected(fd, CONNECT_MS) then
      sockets.relay(inner, outer)
    end
  end)
  outer:close()
  if not ok then
    error(err, 0)
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
      box_port.open(box, port, {
        max = MAX_CONNECTIONS, scope = scope,
        serve = function(inner) serve(inner, port) end,
        complain = function(why)
          log(("error: box %s: a connection to port %d of this machine: %s"):format(box.id, port, why))
        end,
        failed = function(why)
          log(("box %s: it no longer reaches port %d of this machine: %s"):format(box.id, port, why))
        end,
      })
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
