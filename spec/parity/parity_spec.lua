-- What the official SDKs send, lbox sends too: every operation of operations.lua, through each of them.
local compare = require "spec.parity.compare"
local document = require "spec.parity.document"
local features = require "spec.parity.features"
local lbox = require "lbox"
local members = require "spec.parity.members"
local perform = require "spec.parity.perform"
local table_of_operations = require "spec.parity.operations"

describe("what lbox sends", function()
  local results
  local NONE = table_of_operations.NONE

  -- What a usual request has besides its own.
  local like

  setup(function()
    results = perform.run(table_of_operations)
    for _, operation in ipairs(perform.flat(table_of_operations)) do
      if operation.name == "list" then
        like = results.py.sent[operation.index][1]
      end
    end
  end)

  local function check(operation)
    local mine = results.lua.sent[operation.index] or {}
    local function refused(sdk, wanted)
      local err = results[sdk].errors[operation.index]
      if wanted then
        assert.is_truthy(err, sdk .. " did not refuse")
      else
        assert.is_false(err, sdk)
      end
    end
    refused("lua", operation.raises)
    assert.is_true(operation.raises or operation.expect ~= nil or #mine > 0, "nothing was sent")
    if operation.expect then
      local wanted = {}
      for i, short in ipairs(operation.expect) do
        wanted[i] = compare.written(short, like)
      end
      assert.are.equal(compare.text(wanted), compare.text(mine))
    end
    for _, sdk in ipairs { "ts", "py" } do
      if operation[sdk] then
        local difference = operation.differs and operation.differs[sdk]
        local wanted = compare.expected(mine, difference, NONE, like)
        refused(sdk, difference and (difference.none or (operation.raises and not difference.requests))
          or not difference and operation.raises)
        if difference then
          assert.are_not.equal(compare.text(mine), compare.text(wanted), "the difference to " .. sdk .. " is none")
        end
        assert.are.equal(compare.text(wanted), compare.text(results[sdk].sent[operation.index] or {}), sdk)
      end
    end
  end

  for _, operation in ipairs(perform.flat(table_of_operations)) do
    it(("is what the SDKs send: %s"):format(operation.name), function()
      check(operation)
    end)
  end

  for sdk, name in pairs { ts = "the TypeScript SDK", py = "the Python SDK", lua = "lbox" } do
    it("is compared for everything that can be called in " .. name, function()
      assert.are.same({}, members.unused(sdk, results[sdk].members, perform.flat(table_of_operations)))
    end)
  end

  it("is the same from the Python SDK with and without await", function()
    assert.are.same({}, results.py.unlike_async)
  end)

  it("names harnesses, keys and models as the Python SDK does", function()
    local compared = {}
    for name, values in pairs(results.py.enums) do
      local mine = {}
      for member, value in pairs(lbox[name] or {}) do
        mine[member] = value
      end
      assert.are.same(values, mine, name)
      compared[#compared + 1] = name
    end
    assert.is_true(#compared >= 9, table.concat(compared, " "))
  end)
end)

describe("doc/parity.md", function()
  local function slurp(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("a")
    file:close()
    return text
  end

  it("is what the tables say (build/lbox spec/parity/document.lua writes it)", function()
    assert.are.equal(document.text(), slurp(document.FILE))
  end)

  it("shows every feature as covered, and names specs that are there", function()
    local groups = {}
    for _, group in ipairs(table_of_operations) do
      groups[group.feature] = true
    end
    for _, feature in ipairs(features) do
      local name, path, title = feature[1], feature[2], feature[3]
      groups[name] = nil
      assert.is_truthy(feature.none or path, name .. ": nothing proves it")
      if path then
        assert.is_truthy(slurp(path):find(('it("%s"'):format(title), 1, true), ("%s has no %q"):format(path, title))
      end
    end
    assert.are.same({}, groups)
  end)
end)
