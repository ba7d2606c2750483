-- OpenCode in a local box: the real CLI, a scripted model.
local shared = require "spec.support.agents"

describe("OpenCode in a local box", function()
  shared.behaves("opencode", "openai/scripted", { session_of_folder = true, options = {
    reasoning_effort = "low", text_verbosity = "low", reasoning_summary = "auto", thinking = { type = "disabled" },
  } })
end)
