-- What a test may leave behind without anybody noticing: file descriptors, references of C code in the
-- registry.
local M = {}

--- Number of open file descriptors of this process; those of finished requests are closed before.
function M.descriptors()
  collectgarbage()
  collectgarbage()
  local stat = io.open("/proc/self/stat")
  local pid = stat:read("*n")
  stat:close()
  local pipe = io.popen(("ls /proc/%d/fd | wc -l"):format(pid))
  local n = pipe:read("*n")
  pipe:close()
  return n
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
