local async = require "lbox.async"
local errors = require "lbox.errors"

local function raise_deep(what)
  local function deepest() error(what) end
  deepest()
  return nil
end

describe("the traceback of an error in a task", function()
  after_each(function()
    async.close()
  end)

  it("names the line of the user's that raised it, and none of the machinery", function()
    local err = errors.new("usage", "wrong")
    local ok, same = pcall(async.run, function()
      async.scope(function(scope)
        scope:spawn(function() raise_deep(err) end)
      end)
    end)
    assert.is_false(ok)
    assert.are.equal(err, same)
    assert.matches("trace_spec.lua:5: in .*deepest", err.traceback)
    assert.not_matches("lbox/async/", err.traceback)
    assert.not_matches("xpcall", err.traceback)
  end)

  it("follows the chain of tasks that awaited it, each once", function()
    local err = errors.new("usage", "wrong")
    local lines = {}
    pcall(async.run, function()
      local one = async.spawn(function()
        local two = async.spawn(function()
          local three = async.spawn(function()
            lines[1] = debug.getinfo(1, "l").currentline + 1
            error(err)
          end)
          lines[2] = debug.getinfo(1, "l").currentline + 1
          three:await()
        end)
        lines[3] = debug.getinfo(1, "l").currentline + 1
        two:await()
      end)
      one:await()
    end)
    local at = 1
    for _, line in ipairs(lines) do
      local from = err.traceback:find(("trace_spec.lua:%d:"):format(line), at, true)
      assert.is_truthy(from, ("line %d is not there in order: %s"):format(line, err.traceback))
      at = from + 1
    end
    -- two, one, the main task, and the code that called run
    assert.are.equal(4, select(2, err.traceback:gsub("awaited by:", "")))
  end)

  it("is there for strings and tables of the user's too", function()
    for _, what in ipairs { "a string", { "a table" } } do
      local ok, err = pcall(async.run, raise_deep, what)
      assert.is_false(ok)
      assert.matches("trace_spec.lua:5: in .*deepest", async.traceback(err))
      assert.matches("stack traceback", async.describe(err))
    end
    assert.is_nil(async.traceback("never raised"))
  end)

  it("does not grow without end when one object passes through very many tasks", function()
    local err = errors.new("usage", "wrong")
    for _ = 1, 200 do
      pcall(async.run, function() error(err) end)
    end
    assert.is_true(#err.traceback < 20000)
  end)

  it("keeps no error alive", function()
    local weak = setmetatable({}, { __mode = "v" })
    do
      local err = { big = true }
      weak[1] = err
      pcall(async.run, function() error(err) end)
    end
    async.run(function() end)
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak[1])
  end)
end)

describe("what ended", function()
  it("leaves no task, operation or coroutine behind", function()
    local weak = setmetatable({}, { __mode = "k" })
    async.run(function()
      for i = 1, 50 do
        local task = async.spawn(function()
          weak[coroutine.running()] = true
          async.timeout(1000, async.sleep, i % 3)
          if i % 5 == 0 then
            async.current():cancel()
          end
          pcall(async.sleep, 1)
        end)
        weak[task] = true
      end
    end)
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(weak))
    assert.is_true(async.idle())
    async.close()
  end)

  it("includes streams of events read by a loop: nothing is kept per wait", function()
    async.run(function()
      local function many(n)
        for _ = 1, n do
          local op = async.op()
          async.defer(function() op:resolve(1) end)
          async.wait(op)
        end
        collectgarbage()
        collectgarbage()
        return collectgarbage("count")
      end
      local before = many(2000)
      assert.is_true(many(20000) - before < 64)
    end)
    async.close()
  end)
end)
