-- Random numbers that are the same on every Lua: random.new(seed)(n) is a whole number from 1 to n.
local M = {}

function M.new(seed)
  return function(n)
    seed = (seed * 1103515245 + 12345) % 2147483648
    return math.floor(seed / 65536) % n + 1
  end
end

return M
