--- Stored keys of model providers (box-api.md §1.2).
local agent_keys = require "lbox.server.agent_keys"
local fields = require "lbox.server.fields"
local json = require "lbox.json"

local function list(server, request)
  request:answer(200, { credentials = json.array(agent_keys.list(server)) })
end

local function add(server, request)
  local body = fields.check(request:json(), { provider = "string!", api_key = "string!" })
  agent_keys.store(server, body.provider, body.api_key)
  request:answer(200, {})
end

local function remove(server, request, params)
  agent_keys.remove(server, params.provider)
  request:answer(200, {})
end

return {
  { "GET", "/v2/box/agent-credentials", list },
  { "POST", "/v2/box/agent-credentials", add },
  { "DELETE", "/v2/box/agent-credentials/{provider}", remove },
}
