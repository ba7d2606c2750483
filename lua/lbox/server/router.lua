--- Which handler answers which request. A route is { method, pattern, handler }; `{name}` in a pattern
--- is one percent-decoded path segment.
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local listener = require "lbox.server.listener"

local M = {}

local ROUTE_MODULES = { "account", "box", "config", "credentials", "env", "exec", "files", "git", "logs", "previews",
  "runs", "schedules", "sessions", "snapshots" }

-- Parts of the API that boxes of this machine do not have yet, by the segment after the box's id.
local UNAVAILABLE = { browser = true, config = true, run = true, steps = true, ["files"] = true }

local function split(path)
  local parts = {}
  for part in path:gmatch("[^/]+") do
    parts[#parts + 1] = part
  end
  return parts
end

local function compile(routes)
  local compiled = {}
  for _, route in ipairs(routes) do
    compiled[#compiled + 1] = { method = route[1], parts = split(route[2]), handler = route[3] }
  end
  return compiled
end

--- All routes, from the modules in routes/.
function M.new()
  local routes = {}
  for _, name in ipairs(ROUTE_MODULES) do
    for _, route in ipairs(require("lbox.server.routes." .. name)) do
      routes[#routes + 1] = route
    end
  end
  return compile(routes)
end

local function match(route, parts)
  if #route.parts ~= #parts then
    return nil
  end
  local params = {}
  for i, part in ipairs(route.parts) do
    local name = part:match("^{(.+)}$")
    if name then
      local value = listener.unescape(parts[i])
      if value:find("[%z/]") or not value:find("%S") or (name == "id" and fields.RESERVED[value]) then
        return nil
      end
      params[name] = value
    elseif part ~= parts[i] then
      return nil
    end
  end
  return params
end

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

--- The handler for a request and the parameters of its path. Raises 404, 405 or 501.
function M.find(routes, method, path)
  local parts = split(path)
  local allowed
  for _, route in ipairs(routes) do
    local params = match(route, parts)
    if params then
      if route.method == method then
        return route.handler, params
      end
      allowed = allowed and allowed .. ", " .. route.method or route.method
    end
  end
  if allowed then
    refuse(405, ("%s is not possible here: %s"):format(method, allowed))
  elseif parts[1] == "v2" and parts[2] == "box" and (UNAVAILABLE[parts[4]] or fields.RESERVED[parts[3]])
  then
    refuse(501, ("%s %s is not available on local boxes"):format(method, path))
  end
  refuse(404, ("no such route: %s %s"):format(method, path))
end

return M
