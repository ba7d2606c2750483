--- Bodies of HTTP/1 requests, passed on as they were announced and no further.
local errors = require "lbox.errors"

local M = {}

local MAX_LINE, MAX_TRAILERS = 1024, 32 * 1024

local function cut(why)
  errors.raise("network", why)
end

local function pass_bytes(from, to, n)
  while n > 0 do
    local bytes = from:take(n) or cut("the client went away")
    to:write(bytes)
    n = n - #bytes
  end
end

--- A line, with what ends it; not one that two programs could read differently.
local function take_line(from, max)
  local line = from:take_until("\r\n", max) or cut("a line of the body is too long, or not there")
  return line:find("[%z\1-\8\10-\31\127]") == #line - 1 and line or cut("a control character in a line of the body")
end

local function pass_chunks(from, to)
  repeat
    local line = take_line(from, MAX_LINE)
    local digits = line:match("^(%x+)[ \t]*[;\r]")
    local size = digits and #digits <= 12 and tonumber(digits, 16) or cut("a chunk without a size")
    to:write(line)
    if size > 0 then
      pass_bytes(from, to, size)
      to:write(take_line(from, 2))
    end
  until size == 0
  local left = MAX_TRAILERS
  repeat
    local line = take_line(from, left)
    left = left - #line
    if line ~= "\r\n" and not line:find("^[%w!#$%%&'*+.^_`|~-]+:") then
      cut("a trailer without a name")
    end
    to:write(line)
  until line == "\r\n"
end

--- Passes a body on. Raises kind `network` when it does not come whole.
---@param from lbox.server.Socket
---@param to lbox.server.Socket
---@param length integer|"chunked"  as http_head tells it
function M.pass(from, to, length)
  if length == "chunked" then
    pass_chunks(from, to)
  else
    pass_bytes(from, to, length)
  end
end

return M
