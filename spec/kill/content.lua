-- Content of files that shows whether it is whole: what it is called follows from its first line.
local M = {}

--- A content by its name, "SEED:SIZE".
function M.of(name)
  local seed, size = name:match("^(%d+):(%d+)$")
  local line = ("%s:%s\n"):format(seed, size)
  return line:rep(tonumber(size) // #line + 1):sub(1, math.max(#line, tonumber(size)))
end

--- The name of a content, or what is wrong with it.
function M.name(bytes)
  local name = bytes:match("^(%d+:%d+)\n")
  if name and M.of(name) == bytes then
    return name
  end
  return ("%d bytes that begin with %q"):format(#bytes, bytes:sub(1, 20))
end

return M
