-- Claude Code in a local box: the real CLI, a scripted model.
local shared = require "spec.support.agents"

describe("Claude Code in a local box", function()
  shared.behaves("claude-code", "anthropic/claude-sonnet-4-5", { costs = true })
end)
