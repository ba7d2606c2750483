local enums = require "lbox.enums"

describe("enums", function()
  it("hold the server's strings", function()
    assert.are.equal("anthropic/claude-sonnet-4-5", enums.ClaudeCode.SONNET_4_5)
    assert.are.equal("openrouter/openai/gpt-5.6-sol", enums.OpenRouterModel.GPT_5_6_SOL)
    assert.are.equal("opencode/big-pickle", enums.OpenCodeModel.ZEN_BIG_PICKLE)
    assert.are.equal("custom", enums.Agent.CUSTOM)
  end)

  it("name the nearest member for one that does not exist", function()
    local ok, err = pcall(function() return enums.ClaudeCode.SONET_4_5 end)
    assert.is_false(ok)
    assert.are.equal("no ClaudeCode.SONET_4_5 (did you mean SONNET_4_5?)", err.message)
  end)

  it("tell which harness runs a model", function()
    assert.are.equal("codex", enums.infer_default_provider("vercel/openai/gpt-5.5"))
    assert.are.equal("claude-code", enums.infer_default_provider("anthropic/claude-opus-5"))
    assert.are.equal("opencode", enums.infer_default_provider("opencode/gpt-4.1"))
  end)
end)
