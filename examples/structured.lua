-- Structured output: the agent's answer has a shape, and what comes back is a checked table.
--
--     build/lbox --local examples/structured.lua
local lbox = require "lbox"

local here = arg[0]:match("^(.*)/") or "."
local AGENT = "/home/boxuser/todo_report.lua"

-- A table is shorthand for a schema; lbox.schema has builders for everything else.
local s = lbox.schema
local Report = s.object {
  summary = s.string { min_length = 1 },
  files = s.integer { min = 0 },
  items = s.array { file = "string", line = "integer", kind = s.enum { "TODO", "FIXME" }, text = "string" },
}

lbox.with_box({
  -- An agent without a model. With a key: { harness = lbox.Agent.CLAUDE_CODE, model = lbox.ClaudeCode.SONNET_4_5 }
  agent = { harness = lbox.Agent.CUSTOM, custom_harness = { command = "lbox", args = { AGENT } } },
}, function(box)
  box.files:upload { { path = here .. "/agents/todo_report.lua", destination = AGENT } }
  box.files:write { path = "src/main.lua", content = "-- TODO: read the configuration\n-- FIXME: exits with 0\n" }

  local run = box.agent:run { prompt = "Report the TODOs below src", response_schema = Report, max_retries = 1 }

  print(run.result.summary)
  for _, item in ipairs(run.result.items) do
    print(("%s:%d: %s: %s"):format(item.file, item.line, item.kind, item.text))
  end
  print(("%d tokens in, %d out"):format(run.cost.input_tokens, run.cost.output_tokens))

  -- What does not match raises, and says where.
  local ok, err = pcall(function()
    return box.agent:run { prompt = "Report the TODOs below src", response_schema = { summary = "integer" } }
  end)
  print(ok, err.kind, err.path, err.expected)
end)
