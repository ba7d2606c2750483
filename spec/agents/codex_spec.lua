-- Codex in a local box: the real CLI, a scripted model.
local shared = require "spec.support.agents"

describe("Codex in a local box", function()
  shared.behaves("codex", "openai/gpt-5.4", { lost_mcp = "fails", url_told = true, options = {
    model_reasoning_effort = "low", model_reasoning_summary = "concise", personality = "pragmatic", web_search = false,
  } })
end)
