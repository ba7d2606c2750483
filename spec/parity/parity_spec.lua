-- What the official SDKs send, lbox sends too: every operation of operations.lua, through each of them.
local compare = require "spec.parity.compare"
local perform = require "spec.parity.perform"
local table_of_operations = require "spec.parity.operations"

describe("what lbox sends", function()
  local results
  local NONE = table_of_operations.NONE

  -- What a usual request has besides its own.
  local like

  setup(function()
    local _
    _, results = perform.run(table_of_operations)
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
        assert.are.equal(compare.text(wanted), compare.text(results[sdk].sent[operation.index] or {}), sdk)
      end
    end
  end

  for _, operation in ipairs(perform.flat(table_of_operations)) do
    it(("is what the SDKs send: %s"):format(operation.name), function()
      check(operation)
    end)
  end
end)
