--- Percent-encoding of what goes into a URL.
local errors = require "lbox.errors"
local options = require "lbox.options"

local M = {}

local function escape(text)
  return (text:gsub("[^%w%-._~]", function(char)
    return ("%%%02X"):format(char:byte())
  end))
end

--- One segment of a path: an id or a name. Blank ones are refused (`/v2/box/` lists every box), and
--- so are the two that every URL library takes out of a path.
---@param value any
---@param what string  for the error: "id"
---@return string
function M.segment(value, what)
  options.nonblank(value, what)
  if value == "." or value == ".." then
    errors.raise("usage", ("%s must not be %q"):format(what, value))
  end
  return escape(value)
end

--- A query from a list of { name, value }; pairs without a value are left out.
---@param pairs_list table[]|nil
---@return string  "" or "?name=value&…"
function M.query(pairs_list)
  local parts = {}
  for _, pair in ipairs(pairs_list or {}) do
    if pair[2] ~= nil then
      parts[#parts + 1] = escape(pair[1]) .. "=" .. escape(tostring(pair[2]))
    end
  end
  return parts[1] and "?" .. table.concat(parts, "&") or ""
end

--- Scheme, host and port of a URL, without user, password and path: what messages may show.
---@param url string
---@return string
function M.origin(url)
  local scheme, authority = url:match("^(%a[%w+.-]*://)([^/?#]*)")
  if not scheme then
    return url
  end
  return scheme .. authority:gsub("^.*@", "")
end

--- The host name of a URL.
---@param url string
---@return string
function M.host(url)
  local authority = M.origin(url):gsub("^.-://", "")
  return authority:match("^%[.-%]") or authority:match("^[^:]*")
end

return M
