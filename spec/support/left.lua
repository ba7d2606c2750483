-- What a test may leave behind without anybody noticing: file descriptors, references of C code in the
-- registry.
local process = require "spec.support.process"

local M = {}

--- Number of open file descriptors of this process; those of finished requests are closed before.
function M.descriptors()
  collectgarbage()
  collectgarbage()
  return process.open_fds()
end

--- Number of entries in the registry, unused ones of luaL_ref aside (numbers).
function M.references()
  collectgarbage()
  collectgarbage()
  local n = 0
  for _, value in pairs(debug.getregistry()) do
    n = n + (type(value) ~= "number" and 1 or 0)
  end
  return n
end

return M
