--- Who serves a model: the first part of its id (`anthropic/claude-opus-4-5`), what the key is called there, and
--- where it is when not at the harness's own default.
local M = {}

---@class lbox.server.Provider
---@field id string
---@field key string            the variable that the key goes by
---@field others string[]|nil   variables of a box that make a key unnecessary
---@field anthropic string|nil  base URL of its Messages API
---@field openai string|nil     base URL of its Responses API

---@type table<string, lbox.server.Provider>
local PROVIDERS = {
  anthropic = { key = "ANTHROPIC_API_KEY", others = { "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN" } },
  openai = { key = "OPENAI_API_KEY", openai = "https://api.openai.com/v1" },
  openrouter = { key = "OPENROUTER_API_KEY", anthropic = "https://openrouter.ai/api",
    openai = "https://openrouter.ai/api/v1" },
  vercel = { key = "AI_GATEWAY_API_KEY", anthropic = "https://ai-gateway.vercel.sh",
    openai = "https://ai-gateway.vercel.sh/v1" },
  opencode = { key = "OPENCODE_API_KEY" },
  cursor = { key = "CURSOR_API_KEY" },
}
for id, provider in pairs(PROVIDERS) do
  provider.id = id
end

--- The provider of a model and the model's id there. One without a known provider in front is the harness's own
--- provider's.
---@param model string
---@param own string  id of the harness's provider
---@return lbox.server.Provider
---@return string model
function M.of(model, own)
  local id, rest = model:match("^([^/]+)/(.+)$")
  if PROVIDERS[id] then
    return PROVIDERS[id], rest
  end
  return PROVIDERS[own], model
end

--- One by its id; nil when there is none.
---@param id string
---@return lbox.server.Provider|nil
function M.get(id)
  return PROVIDERS[id]
end

--- All ids, in order.
---@return string[]
function M.ids()
  local ids = {}
  for id in pairs(PROVIDERS) do
    ids[#ids + 1] = id
  end
  table.sort(ids)
  return ids
end

return M
