--- Names for strings the server knows: harnesses, models, keys. Plain strings; any other string is
--- accepted by the calls, only a member that does not exist is an error here.
local errors = require "lbox.errors"

local M = {}

local function enum(name, members)
  return setmetatable(members, {
    __name = "lbox." .. name,
    __index = function(_, key)
      local names = {}
      for member in pairs(members) do
        names[#names + 1] = member
      end
      table.sort(names)
      local near = errors.nearest(tostring(key), names)
      errors.raise("usage", ("no %s.%s%s"):format(name, tostring(key),
        near and (" (did you mean %s?)"):format(near) or ""))
    end,
  })
end

--- Members named after the last part of their value: `gpt-5.4-mini` is GPT_5_4_MINI.
local function models(into, prefix, list, name_prefix)
  for value in list:gmatch("%S+") do
    local name = value:match("[^/]+$"):upper():gsub("[-.]", "_")
    into[(name_prefix or "") .. name] = prefix .. value
  end
  return into
end

M.Agent = enum("Agent", {
  CLAUDE_CODE = "claude-code", CODEX = "codex", OPEN_CODE = "opencode", CURSOR = "cursor",
  CUSTOM = "custom",
})

M.BoxApiKey = enum("BoxApiKey", { UPSTASH_KEY = "UPSTASH_KEY", STORED_KEY = "STORED_KEY" })

M.ClaudeCode = enum("ClaudeCode", models({}, "anthropic/claude-", [[
  fable-5-1 fable-5 opus-4-5 opus-4-6 opus-4-7 opus-4-8 opus-5-5 opus-5 sonnet-4 sonnet-4-5
  sonnet-4-6 sonnet-5 haiku-4-5]]))
M.OpenAICodex = enum("OpenAICodex", models({}, "openai/", [[
  gpt-6.1-sol gpt-6-astra gpt-6-sol gpt-6-luna gpt-5.6 gpt-5.6-sol gpt-5.6-terra gpt-5.6-luna
  gpt-5.5 gpt-5.4 gpt-5.4-mini gpt-5.3-codex gpt-5.3-codex-spark gpt-5.2-codex gpt-5.1-codex-max
  gpt-5.1-codex-mini]]))

M.OpenRouterModel = enum("OpenRouterModel", models({}, "openrouter/", [[
  anthropic/claude-fable-5.1 anthropic/claude-fable-5 anthropic/claude-opus-5.5
  anthropic/claude-opus-5 anthropic/claude-sonnet-5 anthropic/claude-sonnet-4
  anthropic/claude-opus-4-5 anthropic/claude-haiku-4-5 deepseek/deepseek-r1 google/gemini-2.5-pro
  google/gemini-2.5-flash openai/gpt-6.1-sol openai/gpt-6-astra openai/gpt-6-sol openai/gpt-6-luna
  openai/gpt-5.6-sol openai/gpt-5.6-terra openai/gpt-5.6-luna openai/gpt-4.1 openai/o3
  openai/o4-mini]]))

M.VercelModel = enum("VercelModel", models({}, "vercel/", [[
  anthropic/claude-fable-5.1 anthropic/claude-fable-5 anthropic/claude-opus-5.5
  anthropic/claude-opus-5 anthropic/claude-sonnet-5 anthropic/claude-opus-4.7
  anthropic/claude-sonnet-4.6 anthropic/claude-opus-4.6 anthropic/claude-haiku-4.5
  openai/gpt-6.1-sol openai/gpt-6-astra openai/gpt-6-sol openai/gpt-6-luna openai/gpt-5.6-sol
  openai/gpt-5.6-terra openai/gpt-5.6-luna openai/gpt-5.5 openai/gpt-5.5-pro openai/gpt-5.4
  openai/gpt-5.4-mini google/gemini-3.8-flash google/gemini-3.5-flash google/gemini-3.1-flash-lite
  google/gemini-3.1-pro-preview spacexai/grok-build-0.1 spacexai/grok-4.7 spacexai/grok-4.3
  spacexai/grok-4.20-reasoning]]))

local opencode = models({}, "opencode/", [[
  claude-fable-5-1 claude-fable-5 claude-opus-5-5 claude-opus-5 claude-opus-4-5 claude-opus-4-6
  claude-opus-4-7 claude-opus-4-8 claude-sonnet-4 claude-sonnet-4-5 claude-sonnet-4-6
  claude-sonnet-5 claude-haiku-4-5 gpt-6.1-sol gpt-6-astra gpt-6-sol gpt-6-luna gpt-5.5 gpt-5.4
  gpt-5.4-pro gpt-5.4-mini gpt-5.4-nano gpt-5.3-codex gpt-5.3-codex-spark gpt-5.2-codex
  gpt-5.1-codex-max gpt-5.1-codex-mini gpt-4.1 o3 o4-mini]])
M.OpenCodeModel = enum("OpenCodeModel", models(opencode, "opencode/", [[
  gpt-5-nano big-pickle minimax-m2.7 claude-fable-5-1 claude-fable-5 claude-opus-5-5 claude-opus-5
  claude-sonnet-4-6 claude-sonnet-4-5 claude-sonnet-4 claude-sonnet-5 claude-haiku-4-5
  claude-opus-4-8 claude-opus-4-7 claude-opus-4-6 claude-opus-4-5 claude-opus-4-1 gemini-3.1-pro
  gemini-3-pro gemini-3-flash]], "ZEN_"))

M.CursorModel = enum("CursorModel", models({}, "cursor/", [[
  default composer-2.5 gpt-5.5 gpt-5.4 gpt-5.4-mini gpt-5.4-nano gpt-5.3-codex gpt-5.3-codex-spark
  gpt-5.2 gpt-5.2-codex gpt-5.1 gpt-5.1-codex-max gpt-5.1-codex-mini gpt-5-mini claude-fable-5
  claude-opus-5-5 claude-opus-5 claude-opus-4-8 claude-opus-4-7 claude-opus-4-6 claude-opus-4-5
  claude-sonnet-4-6 claude-sonnet-4-5 claude-sonnet-4 claude-sonnet-5 claude-haiku-4-5
  gemini-3.1-pro gemini-3-flash gemini-2.5-flash grok-4-20 kimi-k2.5]]))

M.NeonModel = enum("NeonModel", models({ QWEN3_5_122B = "neon/qwen35-122b-a10b" }, "neon/", [[
  gpt-6-astra gpt-5-6-sol gpt-5-6-terra gpt-5-6-luna gpt-5-5 gpt-5-5-pro gpt-5-4 gpt-5-4-mini gpt-5-4-nano
  gpt-5-3-codex gpt-5-mini gpt-5-nano gpt-oss-120b gpt-oss-20b gemini-3-6-flash gemini-3-5-flash
  gemini-3-5-flash-lite gemini-3-1-pro grok-4-6 kimi-k3 glm-5-2 llama-4-maverick claude-opus-5-5 claude-fable-5-1
  claude-opus-5 claude-sonnet-5 claude-fable-5 claude-opus-4-8 claude-opus-4-7 claude-sonnet-4-6 claude-opus-4-6
  claude-opus-4-5 claude-haiku-4-5 claude-sonnet-4-5 claude-opus-4-1]]))

-- First match decides.
local HARNESS_OF_PREFIX = {
  { "custom/", M.Agent.CUSTOM },
  { "cursor/", M.Agent.CURSOR },
  { "vercel/openai/", M.Agent.CODEX },
  { "vercel/", M.Agent.CLAUDE_CODE },
  { "neon/gpt-oss-", M.Agent.OPEN_CODE },
  { "neon/gpt-", M.Agent.CODEX },
  { "neon/", M.Agent.OPEN_CODE },
  { "openrouter/", M.Agent.CLAUDE_CODE },
  { "opencode/", M.Agent.OPEN_CODE },
  { "openai/", M.Agent.CODEX },
}

--- The harness that usually runs a model: `claude-code` when nothing else is known.
---@param model string  "anthropic/claude-sonnet-4-5"
---@return string
function M.infer_default_provider(model)
  if type(model) ~= "string" then
    errors.raise("usage", "the model must be a string, got " .. type(model))
  end
  for _, rule in ipairs(HARNESS_OF_PREFIX) do
    if model:sub(1, #rule[1]) == rule[1] then
      return rule[2]
    end
  end
  return M.Agent.CLAUDE_CODE
end

return M
