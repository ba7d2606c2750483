--- Tells a service manager how the server is doing, when one wants to know (sd_notify of systemd): datagrams to the
--- socket that $NOTIFY_SOCKET names.
local posix = require "lbox.server.posix"

local M = {}

--- Tells it a state: "READY=1", "STOPPING=1".
---@param state string
function M.send(state)
  local socket = os.getenv("NOTIFY_SOCKET")
  if socket and socket:find("^[/@]") then
    posix.send_datagram(socket, state)
  end
end

return M
