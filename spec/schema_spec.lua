local errors = require "lbox.errors"
local json = require "lbox.json"
local s = require "lbox.schema"

local function failure(schema, text)
  local ok, err = pcall(schema.validate, schema, json.decode(text))
  assert.is_false(ok)
  assert.is_true(errors.is(err, "schema"))
  return err
end

describe("a schema", function()
  local candidate = s.object {
    name = s.string, score = s.integer { min = 0, max = 100 }, tags = s.array(s.string),
    note = s.optional(s.string),
  }

  it("turns into a closed JSON Schema with sorted names", function()
    assert.are.equal('{"additionalProperties":false,"properties":{"a":{"type":"string"},'
      .. '"b":{"items":{"type":"integer"},"type":"array"}},"required":["b"],"type":"object"}',
      json.encode(s.from({ a = "string?", b = { "integer" } }):to_json_schema()))
  end)

  it("passes what matches, and takes null out of an optional field", function()
    local value = candidate:validate(json.decode('{"name":"x","score":5,"tags":[],"note":null}'))
    assert.is_nil(value.note)
    assert.are.equal("x", value.name)
  end)

  it("names the path and what was expected", function()
    assert.are.equal("$.tags[2]", failure(candidate, '{"name":"x","score":5,"tags":["a",1]}').path)
    assert.are.equal("$.score", failure(candidate, '{"name":"x","score":101,"tags":[]}').path)
    assert.are.equal("at most 100", failure(candidate, '{"name":"x","score":101,"tags":[]}').expected)
    assert.are.equal("$.extra", failure(candidate, '{"name":"x","score":1,"tags":[],"extra":1}').path)
    assert.are.equal("$.name", failure(candidate, '{"score":1,"tags":[]}').path)
  end)

  it("knows enums, constants, unions, maps and nullables", function()
    local schema = s.object { kind = s.enum { "a", "b" }, one = s.const(1),
      either = s.union(s.string, s.integer), any = s.map(s.number), gone = s.nullable(s.string) }
    schema:validate(json.decode('{"kind":"a","one":1,"either":2,"any":{"x":1},"gone":null}'))
    assert.are.equal("$.kind", failure(schema, '{"kind":"c","one":1,"either":2,"any":{},"gone":null}').path)
    assert.are.equal("$.any.x",
      failure(schema, '{"kind":"a","one":1,"either":2,"any":{"x":"y"},"gone":"z"}').path)
  end)

  it("refuses shorthand and keywords it does not know", function()
    assert.is_false((pcall(s.from, { a = "strng" })))
    assert.is_false((pcall(s.string, { min_lenght = 1 })))
    assert.is_false((pcall(s.json, { type = "string", contentEncoding = "x" })))
  end)
end)
