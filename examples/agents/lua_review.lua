#!/usr/bin/env lbox
-- A custom harness that reviews one Lua file, without any model. What it says it costs is made up, so
-- that there is something to budget.
local harness = require("lbox").harness
local json = require "lbox.json"

local LONG_LINE = 80
local USD_PER_RUN = 0.01

harness.run(function(ctx, emit)
  local path = ctx.prompt:match("%S+%.lua")
  emit.tool { tool_call_id = "1", name = "read", input = { path = path } }
  local file = assert(io.open(path))
  local text = file:read("a")
  file:close()
  emit.tool_result { tool_call_id = "1", output = { bytes = #text } }

  emit.tool { tool_call_id = "2", name = "compile", input = { path = path } }
  local compiled, why = load(text, "=" .. path)
  emit.tool_result { tool_call_id = "2", output = { ok = compiled ~= nil } }
  if not compiled then
    emit.error(why, { input_tokens = #text // 4, total_cost_usd = USD_PER_RUN })
    return
  end

  local lines, remarks = 0, json.array {}
  for line in text:gmatch("([^\n]*)\n") do
    lines = lines + 1
    if #line > LONG_LINE then
      remarks[#remarks + 1] = ("line %d is long"):format(lines)
    elseif line:find("^%l%w* =") then
      remarks[#remarks + 1] = ("line %d sets a global"):format(lines)
    end
  end
  return {
    output = json.encode { lines = lines, remarks = remarks },
    input_tokens = #text // 4,
    output_tokens = 10 * #remarks,
    total_cost_usd = USD_PER_RUN,
  }
end)
