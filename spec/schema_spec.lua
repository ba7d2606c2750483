local errors = require "lbox.errors"
local fault = require "spec.support.fault"
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

  it("checks a pattern as a regular expression that is found anywhere", function()
    for _, case in ipairs { { "^a+?$", "aa", "ab" }, { "^é+$", "éé", "e" }, { "^.$", "é", "ée" },
      { "b|c", "abd", "ad" }, { "^\\d{2}$", "42", "4" }, { "%d", "%d", "1" } } do
      for _, schema in ipairs { s.string { pattern = case[1] },
        s.json { type = "string", pattern = case[1] } } do
        assert.are.equal(case[2], schema:validate(case[2]))
        assert.are.equal("text like " .. case[1], fault.raised(schema.validate, schema, case[3]).expected)
      end
    end
  end)

  it("takes null in an optional field as absent unless its schema speaks of null", function()
    for shape, kept in pairs {
      [s.optional("any")] = false, [s.optional("string")] = false, [s.optional(s.map("any"))] = false,
      [s.optional(s.union("any", "string"))] = false, [s.from("any?")] = false,
      [s.optional(s.enum { "a" })] = false, [s.optional(s.json { minimum = 1 })] = false,
      [s.optional(s.nullable("any"))] = true, [s.optional(s.null)] = true,
      [s.optional(s.enum { "a", json.null })] = true, [s.optional(s.const(json.null))] = true,
      [s.optional(s.json { type = { "string", "null" } })] = true,
    } do
      local value = s.object { x = shape }:validate(json.decode '{"x":null}')
      assert.are.equal(kept and json.null or nil, value.x)
    end
    local map = s.map("any"):validate(json.decode '{"x":null}')
    assert.are.equal(json.null, map.x)
    assert.are.equal(json.null, s.object { x = s.any }:validate(json.decode '{"x":null}').x)
  end)

  it("changes nothing of a value that does not match, nor for an alternative that does not", function()
    local text = '{"a":null,"b":1}'
    local first = s.object { a = "string?", b = "string" }
    local value = json.decode(text)
    fault.raised(first.validate, first, value)
    assert.are.equal(json.null, value.a)
    local either = s.union(first, s.object { a = s.nullable("string"), b = "integer" })
    assert.are.equal(json.null, either:validate(json.decode(text)).a)
    either = s.union(s.object { a = "string?", b = "integer" }, s.any)
    assert.is_nil(either:validate(json.decode(text)).a)
  end)

  it("applies what raw JSON Schema says of arrays and objects to those only", function()
    local schema = s.json { required = { "a" }, additionalProperties = false, properties = { a = true },
      minItems = 2 }
    schema:validate(json.decode "[1,2]")
    schema:validate("text")
    assert.are.equal("at least 2 items", failure(schema, "[1]").expected)
    assert.are.equal("$.a", failure(schema, "{}").path)
    assert.are.equal("at least 1 items", failure(s.json { minItems = 1 }, "[]").expected)
  end)

  it("keeps a copy of raw JSON Schema, with lists as lists", function()
    local node = { type = "object", required = {}, properties = { a = { enum = { 1 } } } }
    local schema = s.json(node)
    node.properties.a.enum = { 2 }
    assert.are.equal('{"properties":{"a":{"enum":[1]}},"required":[],"type":"object"}',
      json.encode(schema:to_json_schema()))
  end)
end)

describe("a bad schema is refused when it is made:", function()
  local itself, raw = {}, { type = "object" }
  itself.child = itself
  raw.properties = { child = raw }

  local CASES = {
    ["shorthand"] = {
      { s.from, { a = "strng" }, '$.a: no type "strng" (did you mean "string"?)' },
      { s.from, { a = { { b = "intger?" } } }, '$.a[].b: no type "intger?" (did you mean "integer?"?)' },
      { s.from, { a = "x" }, '$.a: no type "x": write string, number' },
      { s.from, 5, "$: a number is not a schema" },
      { s.from, { "string", "number" }, "$: an array has one item type" },
      { s.from, itself, "within itself" },
    },
    ["options of builders"] = {
      { s.string, { min_lenght = 1 }, 'unknown option "min_lenght" (did you mean "min_length"?) of schema.string' },
      { s.boolean, { deflt = 1 }, 'unknown option "deflt" (did you mean "default"?) of schema.boolean' },
      { s.string, { 5 }, "unknown option 1 of schema.string" },
      { s.string, 5, "schema.string takes a table of options, got number" },
      { s.string, { min_length = "x" },
        'option min_length of schema.string must be a whole number from 0 on, got "x"' },
      { s.string, { max_length = -1 }, "must be a whole number from 0 on, got -1" },
      { s.string, { pattern = 5 }, "option pattern of schema.string must be a regular expression, got 5" },
      { s.string, { pattern = "(?=a)" }, 'option pattern of schema.string: "(?=a)" is not supported: of groups' },
      { s.string, { description = {} }, "option description of schema.string must be a string, got table" },
      { s.string, { default = print }, "option default of schema.string: a function has no JSON form" },
      { s.integer, { min = 0 / 0 }, "option min of schema.integer must be a number" },
      { s.string { min_length = 1 }, {}, "takes no options" },
    },
    ["what builders take"] = {
      { s.object, "string", "schema.object takes a table of fields, got string" },
      { s.object, s.string, "schema.object takes a table of fields, got a schema" },
      { s.enum, {}, "what schema.enum takes must be a list of at least one value, got table" },
      { s.enum, { "a", x = "b" }, "must be a list" },
      { s.enum, { print }, "a function has no JSON form" },
      { s.const, nil, "null is schema.null" },
      { s.const, print, "schema.const: a function has no JSON form" },
      { s.map, nil, "$.*: a nil is not a schema" },
      { s.optional, "strin", 'did you mean "string"?' },
      { function() return s.array("string", { min_itms = 1 }) end, nil, 'did you mean "min_items"?' },
      { function() return s.array("string", 5) end, nil, "schema.array takes a table of options" },
      { function() return s.describe("string", 5) end, nil, "the text of schema.describe must be a string, got 5" },
      { function() return s.union("string", "numbr") end, nil, 'did you mean "number"?' },
      { s.union, s.union, "a function is not a schema" },
    },
    ["builders"] = {
      { function() return s.strng end, nil, 'no schema builder "strng" (did you mean "string"?)' },
      { function() return s:object {} end, nil, "call it as schema.object{…}" },
      { function() return s:string {} end, nil, "call it as schema.string{…}" },
      { s.string.validate, "x", "call it as schema:validate(…)" },
    },
    ["raw JSON Schema"] = {
      { s.json, 5, "takes a JSON Schema as a table, got number" },
      { s.json, { contentEncoding = "x" }, '$: the JSON Schema keyword "contentEncoding" is not supported' },
      { s.json, { min_length = 1 }, '"min_length" (did you mean "minLength"?) is not supported' },
      { s.json, { type = "strng" }, '$: type: there is no type "strng" (did you mean "string"?)' },
      { s.json, { type = { "string", "nul" } }, 'there is no type "nul" (did you mean "null"?)' },
      { s.json, { type = {} }, "$: type must be a type or a list of types" },
      { s.json, { properties = 5 }, "$: properties must be a table of JSON Schemas by name, got 5" },
      { s.json, { properties = { a = { items = { minLength = "x" } } } },
        '$.a.items: minLength must be a whole number from 0 on, got "x"' },
      { s.json, { properties = { a = 5 } }, "$.a: a JSON Schema is a table or a boolean, got number" },
      { s.json, { properties = { { type = "string" } } }, "$: properties: names are strings, not 1" },
      { s.json, { required = "a" }, '$: required must be a list of names, got "a"' },
      { s.json, { required = { 1 } }, "$: required must be a list of names" },
      { s.json, { anyOf = {} }, "$: anyOf must be a list of at least one JSON Schema" },
      { s.json, { anyOf = { { type = "string" }, "number" } }, "$.anyOf[2]: a JSON Schema is a table" },
      { s.json, { enum = "a" }, "$: enum must be a list of at least one value" },
      { s.json, { minimum = "0" }, '$: minimum must be a number, got "0"' },
      { s.json, { maxItems = 1.5 }, "$: maxItems must be a whole number from 0 on, got 1.5" },
      { s.json, { items = json.null }, "$.items: a JSON Schema is a table or a boolean, got null" },
      { s.json, { pattern = "a(" }, '$: pattern: "a(" is not supported: ( without its )' },
      { s.json, { properties = { a = { pattern = "\\p{L}" } } }, "$.a: pattern: " },
      { s.json, { title = 5 }, "$: title must be a string, got 5" },
      { s.json, raw, "within itself" },
    },
  }

  for subject, cases in pairs(CASES) do
    it(subject, function()
      for _, case in ipairs(cases) do
        local err = fault.raised(case[1], case[2])
        assert.is_true(errors.is(err, "usage"), tostring(err))
        assert.is_truthy(err.message:find(case[3], 1, true), err.message .. "\n" .. case[3])
      end
    end)
  end
end)

describe("a run whose output does not match its schema", function()
  local server

  setup(function()
    server = fault.start [[
      routes["GET /v2/box/b"] = function(reply)
        reply:json(200, { id = "b", status = "idle", agent = "custom", model = "m" })
      end
      routes["POST /v2/box/b/run/stream"] = function(reply, request)
        reply:begin()
        reply:event("run_start", { run_id = "r" })
        reply:event("done", { output = request.body:find("prose", 1, true) and "Sure!" or '{"n":"1"}' })
        reply:finish()
      end
    ]]
  end)

  teardown(function()
    server:stop()
  end)

  it("raises an error that says that trying again can help", function()
    local agent = server:box("b").agent
    local shape = { n = "integer" }
    for _, prompt in ipairs { "prose", "json" } do
      local err = fault.raised(agent.run, agent, { prompt = prompt, response_schema = shape })
      assert.are.equal("schema", err.kind)
      assert.is_true(err.retryable)
    end
    local schema = s.from(shape)
    assert.is_false(fault.raised(schema.validate, schema, {}).retryable)
  end)
end)
