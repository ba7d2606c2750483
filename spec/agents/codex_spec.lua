-- Codex in a local box: the real CLI, a scripted model.
local shared = require "spec.support.agents"

describe("Codex in a local box", function()
  shared.behaves("codex", "openai/gpt-5.4")
end)
