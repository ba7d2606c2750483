--- Where the local server keeps its data and listens. Client and server share these rules, so they
--- are written for LuaJIT too.
local M = {}

-- sun_path holds 108 bytes, the last of them NUL.
local SOCKET_PATH_MAX = 107

local function getenv(name)
  local value = os.getenv(name)
  return value ~= "" and value or nil
end

--- The effective user id, from /proc, which needs no C: nil where there is no /proc.
local function uid()
  local file = io.open("/proc/self/status")
  if not file then
    return nil
  end
  local text = file:read("*a")
  file:close()
  return tonumber(text:match("\nUid:%s+%d+%s+(%d+)"))
end

--- The data directory of this user's local server.
---@param override string|nil  path given by the user; wins over everything, unless it is empty
---@return string
function M.data_dir(override)
  local dir = override ~= "" and override or getenv("LBOX_DATA")
  if not dir then
    if uid() == 0 then
      dir = "/var/lib/lbox"
    else
      local home = getenv("XDG_DATA_HOME") or (getenv("HOME") or "") .. "/.local/share"
      dir = home .. "/lbox"
    end
  end
  if dir:sub(1, 1) ~= "/" then
    dir = (getenv("PWD") or ".") .. "/" .. dir
  end
  return (dir:gsub("(.)/+$", "%1"))
end

--- The Unix socket of the server with that data directory. A path too long for a socket address
--- moves to /run/user/UID/lbox/, named by a hash of the directory so that both sides find it.
---@param dir string
---@return string|nil path, string|nil why
function M.socket(dir)
  local path = dir .. "/sock"
  if #path <= SOCKET_PATH_MAX then
    return path
  end
  local hash = 5381
  for i = 1, #dir do
    hash = (hash * 33 + dir:byte(i)) % 4294967296
  end
  local id = uid()
  if not id then
    return nil, "the data directory's path is too long for a Unix socket: " .. dir
  end
  return ("/run/user/%d/lbox/%08x.sock"):format(id, hash)
end

return M
