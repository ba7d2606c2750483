-- Many boxes of one server at work at the same time: each answer is of the box that was asked.
local lbox = require "lbox"
local support = require "spec.support.local"

local BOXES, COMMANDS = 50, 3

--- What a stream says up to the line `last`.
local function read_to(stream, last)
  local text = ""
  while not text:find(last, 1, true) do
    text = text .. assert(stream:next(), "the stream ended").data
  end
  return text
end

describe("fifty boxes at once", function()
  local server

  setup(function() server = support.start() end)
  teardown(function() server:stop() end)

  it("each run commands and a stream, and mix nothing up", function()
    local open, all_open, numbers = 0, lbox.event(), {}
    for i = 1, BOXES do
      numbers[i] = i
    end
    local said = lbox.map(numbers, function(number)
      return lbox.with_box(server:client { name = "many-" .. number }, function(box)
        local stream = box.exec:stream(("echo %d > own; echo open; while [ ! -e go ]; do sleep 0.1; done; cat own; "
          .. "exit %d"):format(number, number))
        local text = read_to(stream, "open\n")
        open = open + 1
        if open == BOXES then
          all_open:set()
        end
        all_open:wait()
        for i = 1, COMMANDS do
          assert.are.equal(("%d of %d\n"):format(i, number),
            box.exec:command(("echo %d of $(cat own)"):format(i)).result)
        end
        box.files:write { path = "go", content = "" }
        for chunk in stream:chunks() do
          text = text .. (chunk.data or "")
        end
        return { text = text, exit_code = stream.exit_code }
      end)
    end, { concurrency = BOXES })
    assert.are.equal(BOXES, #said)
    for number, each in ipairs(said) do
      assert.are.same({ text = ("open\n%d\n"):format(number), exit_code = number }, each)
    end
    assert.are.same({}, lbox.Box.list(server:client()))
  end)
end)
