-- A custom harness: an agent that is a Lua file. This one answers with what a command says; yours asks a model, in
-- any way you like.
--
--     build/lbox --local examples/custom_harness.lua
local lbox = require "lbox"

local HARNESS = [[
local harness = require("lbox").harness
harness.run(function(ctx, emit)
  emit.tool { tool_call_id = "1", name = "shell", input = { command = ctx.prompt } }
  local pipe = io.popen(ctx.prompt .. " 2>&1")
  local output = pipe:read("a")
  pipe:close()
  emit.tool_result { tool_call_id = "1", output = output }
  emit.text("it said: " .. output)
  return { output = output, input_tokens = #ctx.prompt, output_tokens = #output }
end)
]]

lbox.with_box({
  agent = { harness = lbox.Agent.CUSTOM, custom_harness = { command = "lbox", args = { "/home/boxuser/shell.lua" } } },
}, function(box)
  box.files:write { path = "/home/boxuser/shell.lua", content = HARNESS }
  local run = box.agent:run {
    prompt = "uname -s",
    on_tool_use = function(tool) print(tool.name, tool.input.command) end,
  }
  print(run.status, run.result, run.cost.output_tokens .. " tokens")
end)
