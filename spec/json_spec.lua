local json = require "lbox.json"

describe("json", function()
  it("encodes keys in order, lists, empty lists and null", function()
    assert.are.equal('{"a":[1,2],"b":{},"c":[],"d":null}',
      json.encode { b = {}, a = { 1, 2 }, c = json.array {}, d = json.null })
  end)

  it("keeps numbers exact", function()
    assert.are.equal("[9007199254740992,0.1,1e+20,-3]", json.encode { 2 ^ 53, 0.1, 1e20, -3 })
    assert.are.equal(0.1, json.decode(json.encode { 0.1 })[1])
  end)

  it("refuses what has no JSON form", function()
    for _, bad in ipairs { { 0 / 0 }, { 1 / 0 }, { print }, { 1, x = 2 } } do
      assert.is_false((pcall(json.encode, bad)))
    end
    local loop = {}
    loop[1] = loop
    assert.is_false((pcall(json.encode, loop)))
  end)

  it("decodes whole numbers as integers, and null as json.null", function()
    local value = json.decode('{"n":1,"x":1.5,"deep":[{"m":2}],"nothing":null}')
    assert.are.equal("1", tostring(value.n))
    assert.are.equal("2", tostring(value.deep[1].m))
    assert.are.equal(1.5, value.x)
    assert.are.equal(json.null, value.nothing)
    assert.is_nil(json.strip_nulls(value).nothing)
  end)

  it("keeps an empty list apart from an empty object", function()
    local text = [=[{"a":[],"b":{},"c":["[]",[]],"d":"\\\"[]"}]=]
    assert.are.equal(text, json.encode(json.decode(text)))
    assert.is_true(json.is_array(json.decode(" [ ]")))
    local _, why = json.decode("[[],[],x]")
    assert.matches("character 8", why)
  end)

  it("takes no number that is too large to be one", function()
    for _, text in ipairs { "1e999", "[-1e400]", '{"n":[{"m":1E+309}]}', ("9"):rep(400) } do
      local value, why = json.decode(text)
      assert.is_nil(value)
      assert.matches("out of range", why)
    end
  end)

  it("makes U+FFFD of half a surrogate pair", function()
    local whole = json.decode([["\ud83d\ude00"]])
    assert.are.equal("\240\159\152\128", whole)
    for text, expected in pairs { ["\\ud83d"] = "?", ["a\\ude00b"] = "a?b", ["\\ud83d\\ud83d\\ude00"] = "?" .. whole,
      ["\\\\ud83d"] = "\\ud83d", ["\\uD83Dx\\uDE00"] = "?x?" } do
      assert.are.equal(expected, (json.decode('"' .. text .. '"'):gsub("\239\191\189", "?")))
    end
  end)

  it("says why bad input is bad", function()
    local value, why = json.decode("{nope")
    assert.is_nil(value)
    assert.is_string(why)
  end)
end)
