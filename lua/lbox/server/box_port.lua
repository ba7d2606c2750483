--- A port of a box's loopback that the server answers: lbox-init listens there, and whoever connects in the
--- box is served out here.
local acceptor = require "lbox.server.acceptor"

local M = {}

--- Opens a port in a sandbox, until it is closed or the sandbox ends. Raises kind `local` when that cannot be.
---@param box lbox.server.Sandbox
---@param port integer
---@param opts table  as of acceptor.open
---@return lbox.server.Acceptor
function M.open(box, port, opts)
  local opened = acceptor.open(box:listen(port), opts)
  if box.ended then
    opened:close()
  else
    table.insert(box.on_exit, function() opened:close() end)
  end
  return opened
end

return M
