-- Reads one agent stream through lbox; prints events, bytes and seconds.
local lbox = require "lbox"

local box = lbox.Box.get("replay", { base_url = arg[1], api_key = "box_bench" })
local started = lbox.now()
local events, bytes = 0, 0
for chunk in box.agent:stream({ prompt = "replay" }):chunks() do
  if chunk.type == "text-delta" then
    events = events + 1
    bytes = bytes + #chunk.text
  end
end
print(events, bytes, ("%.6f"):format((lbox.now() - started) / 1000))
