local errors = require "lbox.errors"
local harness = require "lbox.harness"
local json = require "lbox.json"

--- What a harness writes when `fn` is its agent.
local function written(fn)
  local out = {}
  harness.run(fn, { argv = { "-p", "hello" }, write = function(text) out[#out + 1] = text end })
  return table.concat(out)
end

describe("emit.tool of a harness", function()
  it("sends an object as the input, also when there is nothing in it", function()
    for _, input in ipairs { {}, json.array {}, json.null, false } do
      assert.are.equal('event: tool\ndata: {"input":{},"name":"ls"}\n\n', written(function(_, emit)
        emit.tool { name = "ls", input = input or nil }
      end))
    end
    assert.are.equal('event: tool\ndata: {"input":{"path":[]},"name":"ls","toolCallId":"t1"}\n\n',
      written(function(_, emit)
        emit.tool { tool_call_id = "t1", name = "ls", input = { path = json.array {} } }
      end))
  end)

  it("refuses an input that is no object, and says so", function()
    for _, case in ipairs { { "ls -l", "a string" }, { 5, "a number" }, { true, "a boolean" },
      { false, "a boolean" }, { { "a" }, "the key 1" }, { { x = 1, [2] = 3 }, "the key 2" } } do
      local text = written(function(_, emit)
        local ok, err = pcall(emit.tool, { name = "ls", input = case[1] })
        assert.is_false(ok)
        assert.is_true(errors.is(err, "usage"))
        assert.matches("input", err.message)
        assert.matches(case[2], err.message)
      end)
      assert.are.equal("", text)
    end
  end)
end)
