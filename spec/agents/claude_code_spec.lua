-- Claude Code in a local box: the real CLI, a scripted model.
local shared = require "spec.support.agents"

describe("Claude Code in a local box", function()
  shared.behaves("claude-code", "anthropic/claude-sonnet-4-5", { costs = true, lost_mcp = "warns", options = {
    max_turns = 3, max_budget_usd = 1.5, effort = "low", thinking = { type = "enabled", budgetTokens = 2000 },
    disallowed_tools = { "WebSearch", "WebFetch" }, prompt_suggestions = false, fallback_model = "claude-haiku-4-5",
    system_prompt = "You dig.", agents = { digger = { description = "Digs.", prompt = "Dig." } },
  } })
end)
