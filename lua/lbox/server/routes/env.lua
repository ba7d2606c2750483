--- The environment of boxes to come (box-api.md §1.2). Values are taken and never told.
local fields = require "lbox.server.fields"

local MASKED = "********"

local function list(server, request)
  local masked = {}
  for name in pairs(server.variables:all()) do
    masked[name] = MASKED
  end
  request:answer(200, { env_vars = masked })
end

local function replace(server, request)
  server.variables:replace(fields.check(request:json(), { env_vars = "object!" }).env_vars)
  request:answer(200, {})
end

local function set(server, request, params)
  server.variables:set(params.key, fields.check(request:json(), { value = "string!" }).value)
  request:answer(200, {})
end

local function remove(server, request, params)
  server.variables:remove(params.key)
  request:answer(200, {})
end

return {
  { "GET", "/v2/box/settings/env", list },
  { "PUT", "/v2/box/settings/env", replace },
  { "PUT", "/v2/box/settings/env/{key}", set },
  { "DELETE", "/v2/box/settings/env/{key}", remove },
}
