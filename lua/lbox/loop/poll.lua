--- The built-in loop: a call that waits polls the engine itself, and between such calls nothing
--- runs unless the program calls `lbox.loop.step`.
local async = require "lbox.async"

local M = {}

--- Detaches any host's loop.
function M.attach()
  async.attach(nil)
end

return M
