--- Secrets that the server gives out.
local core = require "lbox.core"

local M = {}

local BYTES = 24

--- A new one, in hexadecimal digits.
---@return string
function M.new()
  return (core.random(BYTES):gsub(".", function(char)
    return ("%02x"):format(char:byte())
  end))
end

--- Whether two texts are equal, in a time that tells no more than their lengths. Anything but a string is
--- equal to nothing.
---@return boolean
function M.equal(a, b)
  if type(a) ~= "string" or type(b) ~= "string" or #a ~= #b then
    return false
  end
  local difference = 0
  for i = 1, #a do
    difference = difference | (a:byte(i) ~ b:byte(i))
  end
  return difference == 0
end

return M
