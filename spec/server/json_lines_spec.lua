-- JSON lines of a harness: the same objects however they are cut, and bounds.
local async = require "lbox.async"
local json = require "lbox.json"
local outputs = require "lbox.server.harness.output"

describe("JSON lines", function()
  local TEXT = '{"a":1}\n\nnot json\n[1]\n{"b":"\\u00e9 é"}\r\n7\n{"c":{}}\n{"d":[]}'

  --- Reads pieces; the objects as JSON, and the reader.
  local function read(pieces)
    local got, lines = {}, nil
    async.run(function()
      lines = outputs.json_lines(function(object) got[#got + 1] = json.encode(object) end)
      for _, piece in ipairs(pieces) do
        lines:feed(piece)
      end
      lines:finish()
    end)
    return got, lines
  end

  local WANT = { '{"a":1}', '{"b":"é é"}', '{"c":{}}', '{"d":[]}' }

  it("are the objects among the lines, the last one also without its end", function()
    local got, lines = read { TEXT }
    assert.are.same(WANT, got)
    assert.are.equal(3, lines.skipped)
    assert.are.equal("7", lines.last_skipped)
  end)

  it("are the same however they are cut", function()
    for at = 0, #TEXT do
      assert.are.same(WANT, (read { TEXT:sub(1, at), TEXT:sub(at + 1) }))
    end
    local bytes = {}
    for i = 1, #TEXT do
      bytes[i] = TEXT:sub(i, i)
    end
    assert.are.same(WANT, (read(bytes)))
  end)

  it("are taken apart without bytes that are no UTF-8", function()
    assert.are.same({ '{"a":"\u{FFFD}"}' }, (read { '{"a":"\255"}' }))
  end)

  it("may have 16 MiB and no more", function()
    local long = ("x"):rep(1024 * 1024)
    local pieces = { '{"a":"' }
    for i = 2, 16 do
      pieces[i] = long
    end
    pieces[17] = '"}\n{"b":1}\n'
    local got = read(pieces)
    assert.are.equal(2, #got)
    for i = 17, 20 do
      pieces[i] = long
    end
    local ok, err = pcall(read, pieces)
    assert.is_false(ok)
    assert.are.equal("run", err.kind)
    assert.matches("a line of more than 16777216 bytes", err.message)
  end)
end)
