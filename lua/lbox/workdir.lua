--- Paths inside a box. A box's directory, `cwd`, lives in the client: every call sends where it
--- works.
local M = {}

--- Where a box starts, and what paths on the wire are relative to.
M.ROOT = "/workspace/home"

--- A path as an absolute one: absolute kept, else below `cwd`; nothing is normalised.
---@param cwd string
---@param path string
---@return string
function M.absolute(cwd, path)
  if path:sub(1, 1) == "/" then
    return path
  end
  return (cwd == "/" and "" or cwd) .. "/" .. path
end

--- An absolute path without `.`, `..` and doubled slashes; it does not go above `/`.
---@param cwd string
---@param path string
---@return string
function M.normalise(cwd, path)
  local parts = {}
  for part in M.absolute(cwd, path):gmatch("[^/]+") do
    if part == ".." then
      parts[#parts] = nil
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  return "/" .. table.concat(parts, "/")
end

--- A directory as the wire wants it in `folder`: nil for the root, relative inside it, else
--- absolute.
---@param path string  absolute
---@return string|nil
function M.folder(path)
  if path == M.ROOT then
    return nil
  elseif path:sub(1, #M.ROOT + 1) == M.ROOT .. "/" then
    return path:sub(#M.ROOT + 2)
  end
  return path
end

return M
