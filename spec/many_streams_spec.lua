-- A thousand agent streams at once. The process needs as many descriptors: `ulimit -n 4096`.
local async = require "lbox.async"
local lbox = require "lbox"
local left = require "spec.support.left"
local replay = require "spec.support.replay"

local STREAMS, EVENTS = 1000, 1000

describe("a thousand agent streams", function()
  local server

  setup(function()
    server = replay.start(EVENTS)
  end)

  teardown(function()
    server:stop()
  end)

  it("are read side by side, while every other one is left unread", function()
    local box = lbox.Box.get("replay", { base_url = server.url, api_key = "box_replay" })
    local descriptors = left.descriptors()
    local numbers = {}
    for i = 1, STREAMS do
      numbers[i] = i
    end
    local open, most_open, read = 0, 0, 0
    local all_open, half_read = lbox.event(), lbox.event()
    local results = lbox.map(numbers, function(i)
      local stream = box.agent:stream { prompt = "replay" }
      open = open + 1
      most_open = math.max(most_open, open)
      if open == STREAMS then
        all_open:set()
      end
      all_open:wait()
      if i % 2 == 0 then
        half_read:wait()
      end
      local events = 0
      for chunk in stream:chunks() do
        events = events + (chunk.type == "text-delta" and 1 or 0)
      end
      assert.are.equal(EVENTS, events)
      open, read = open - 1, read + 1
      if read == STREAMS / 2 then
        half_read:set()
      end
      return stream.status
    end, { concurrency = STREAMS })
    assert.are.equal(STREAMS, most_open)
    for i = 1, STREAMS do
      assert.are.equal("completed", results[i])
    end
    assert.are.equal(0, async.pending())
    async.close()
    assert.is_true(left.descriptors() <= descriptors)
  end)
end)
