-- Streaming: what an agent says and does while it works, and the same of two agents at once.
--
--     build/lbox --local examples/streaming.lua
local lbox = require "lbox"

local here = arg[0]:match("^(.*)/") or "."
local AGENT = "/home/boxuser/todo_report.lua"
local CONFIG = { agent = { harness = lbox.Agent.CUSTOM, custom_harness = { command = "lbox", args = { AGENT } } } }

local function prepare(box)
  box.files:upload { { path = here .. "/agents/todo_report.lua", destination = AGENT } }
  box.files:write { path = "src/main.lua", content = "-- TODO: say hello\n" }
end

lbox.with_box(CONFIG, function(box)
  prepare(box)
  local stream = box.agent:stream { prompt = "Report the TODOs below src" }
  for chunk in stream:chunks() do
    if chunk.type == "text-delta" then
      io.write(chunk.text)
    elseif chunk.type == "tool-call" then
      print("  uses " .. chunk.tool_name)
    elseif chunk.type == "finish" then
      print("  is done after " .. chunk.usage.output_tokens .. " tokens")
    end
  end
  print(stream.status, #stream.result .. " bytes")

  -- Chunks of both as they come.
  lbox.with_box(CONFIG, function(other)
    prepare(other)
    local seen = { first = 0, second = 0 }
    for name in lbox.merge {
      first = box.agent:stream { prompt = "Report the TODOs below src" },
      second = other.agent:stream { prompt = "Report the TODOs below src" },
    } do
      seen[name] = seen[name] + 1
    end
    print(("%d and %d chunks"):format(seen.first, seen.second))
  end)
end)
