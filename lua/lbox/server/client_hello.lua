--- The name that a TLS client asks for (SNI), read from the first bytes it sends.
local M = {}

--- More than that is no ClientHello.
M.MAX = 64 * 1024

local HANDSHAKE, CLIENT_HELLO, SERVER_NAME, HOST_NAME = 22, 1, 0, 0

--- Whether it begins like TLS.
function M.is_tls(bytes)
  return bytes:byte(1) == HANDSHAKE
end

--- The first handshake message of what has come, with its head; "" when it has not come whole, nil when it is
--- none. What follows it is of no interest.
local function first_message(bytes)
  local parts, have, need, at = {}, 0, 4, 1
  while have < need do
    if #bytes < at + 4 then
      return ""
    end
    local kind, major, _, size = string.unpack(">BBBI2", bytes, at)
    if kind ~= HANDSHAKE or major ~= 3 or size == 0 or size > 16384 then
      return nil
    end
    parts[#parts + 1] = bytes:sub(at + 5, at + 4 + size)
    have, at = have + #parts[#parts], at + 5 + size
    if need == 4 and have >= 4 then
      parts = { table.concat(parts) }
      need = 4 + string.unpack(">I3", parts[1], 2)
      if parts[1]:byte() ~= CLIENT_HELLO or need > M.MAX then
        return nil
      end
    end
  end
  return table.concat(parts):sub(1, need)
end

--- The name in a list of names.
local function host_name(list)
  local names, at = string.unpack(">s2", list)
  if at ~= #list + 1 then
    error("trailing bytes")
  end
  local kind, name, rest = string.unpack(">Bs2", names)
  if kind ~= HOST_NAME or rest ~= #names + 1 then
    error("not one name")
  end
  return name
end

--- The body of a ClientHello; raises when it is none.
local function find_name(body)
  local _, _, _, _, at = string.unpack(">I2c32s1s2", body) -- version, random, session, ciphers
  local _, extensions, rest = string.unpack(">s1s2", body, at)
  if rest ~= #body + 1 then
    error("trailing bytes")
  end
  local found, pos = nil, 1
  while pos <= #extensions do
    local kind, data
    kind, data, pos = string.unpack(">I2s2", extensions, pos)
    if kind == SERVER_NAME then
      if found then
        error("two names")
      end
      found = host_name(data)
    end
  end
  return found
end

--- Reads what has come so far: "more" when that is not all of it; "name" and the name, nil when it asks for
--- none; or "bad".
---@param bytes string
---@return "more"|"name"|"bad" verdict
---@return string|nil name
function M.read(bytes)
  local message = first_message(bytes)
  if message == "" then
    return #bytes > M.MAX and "bad" or "more"
  end
  local ok, name = pcall(find_name, message and message:sub(5))
  if not ok or (name and not name:match("^[%w._-]+$")) then
    return "bad"
  end
  return "name", name
end

return M
