local async = require "lbox.async"
local errors = require "lbox.errors"

after_each(function()
  assert.are.equal(0, async.pending())
  async.close()
end)

describe("run", function()
  it("returns the results of the main task once its children ended", function()
    local ended
    local a, b, c = async.run(function(x, y)
      async.spawn(function()
        async.sleep(10)
        ended = true
      end)
      return y, nil, x
    end, 1, 2)
    assert.are.same({ 2, nil, 1 }, { a, b, c })
    assert.is_true(ended)
  end)

  it("raises the error of the main task unchanged", function()
    local boom = { "boom" }
    local ok, err = pcall(async.run, function() error(boom) end)
    assert.is_false(ok)
    assert.are.equal(boom, err)
  end)

  it("inside a task raises to its caller only", function()
    assert.are.equal("went on", async.run(function()
      local ok, err = pcall(async.run, function() error("inner", 0) end)
      assert.is_false(ok)
      assert.are.equal("inner", err)
      async.sleep(1)
      return "went on"
    end))
  end)

  it("lets tasks started outside of it run meanwhile, without waiting for them", function()
    local steps = 0
    local task = async.spawn(function()
      for _ = 1, 3 do
        async.sleep(1)
        steps = steps + 1
      end
      async.sleep(5000)
    end)
    async.run(async.sleep, 30)
    assert.are.equal(3, steps)
    assert.are.equal("running", task.status)
    task:cancel()
    pcall(task.await, task)
  end)
end)

describe("scope", function()
  it("returns what its body returned, after every task of it ended", function()
    local ended = 0
    async.run(function()
      local a, b = async.scope(function(scope)
        for i = 1, 3 do
          scope:spawn(function()
            async.sleep(i)
            ended = ended + 1
          end)
        end
        return "a", "b"
      end)
      assert.are.same({ "a", "b", 3 }, { a, b, ended })
    end)
  end)

  it("takes tasks spawned by lbox.spawn in its body, and by others through the handle", function()
    local order = {}
    async.run(function()
      async.scope(function(scope)
        async.spawn(function()
          async.sleep(5)
          scope:spawn(function()
            async.sleep(5)
            order[#order + 1] = "late"
          end)
        end)
      end)
      order[#order + 1] = "left"
    end)
    assert.are.same({ "late", "left" }, order)
  end)

  it("cancels the rest on the first error and raises that one", function()
    local other
    async.run(function()
      local ok, err = pcall(async.scope, function(scope)
        other = scope:spawn(async.sleep, 5000)
        scope:spawn(function()
          async.sleep(2)
          error("first", 0)
        end)
        scope:spawn(function()
          pcall(async.sleep, 5000)
          error("second", 0)
        end)
        async.sleep(5000)
      end)
      assert.is_false(ok)
      assert.are.equal("first", err)
      assert.are.equal("cancelled", other.status)
    end)
  end)

  it("cancels its tasks when its body fails", function()
    async.run(function()
      local task
      local ok, err = pcall(async.scope, function(scope)
        task = scope:spawn(async.sleep, 5000)
        async.sleep(1)
        error("body", 0)
      end)
      assert.is_false(ok)
      assert.are.equal("body", err)
      assert.are.equal("cancelled", task.status)
    end)
  end)

  for _, failing in ipairs { "task", "body" } do
    it("with on_error = \"wait\" lets the others finish when a " .. failing .. " fails", function()
      local finished
      local ok, err = pcall(async.run, function()
        async.scope(function(scope)
          scope:spawn(function()
            async.sleep(10)
            finished = true
          end)
          if failing == "body" then
            error("failed", 0)
          end
          scope:spawn(function() error("failed", 0) end)
        end, { on_error = "wait" })
      end)
      assert.is_false(ok)
      assert.are.equal("failed", err)
      assert.is_true(finished)
    end)
  end

  it("can be cancelled by its handle", function()
    async.run(function()
      local task
      async.scope(function(scope)
        task = scope:spawn(async.sleep, 5000)
        async.sleep(1)
        scope:cancel("no more")
      end)
      assert.are.equal("cancelled", task.status)
    end)
  end)

  it("refuses unknown options", function()
    local ok, err = pcall(async.scope, function() end, { on_eror = "wait" })
    assert.is_false(ok)
    assert.matches('did you mean "on_error"', tostring(err))
    assert.is_false(pcall(async.scope, function() end, { on_error = "explode" }))
  end)

  it("works outside of tasks", function()
    local n = 0
    async.scope(function(scope)
      for _ = 1, 3 do
        scope:spawn(function()
          async.sleep(1)
          n = n + 1
        end)
      end
    end)
    assert.are.equal(3, n)
  end)
end)

describe("gather", function()
  it("gives the first result of each, in order, nil included", function()
    local function check(...)
      assert.are.equal(3, select("#", ...))
      assert.are.same({ 1, nil, 3 }, { ... })
    end
    check(async.gather(
      function()
        async.sleep(5)
        return 1, "more"
      end,
      function() end,
      function() return 3 end))
    assert.are.equal(0, select("#", async.gather()))
  end)

  it("runs them side by side", function()
    local started = async.now()
    async.gather(
      function() async.sleep(60) end,
      function() async.sleep(60) end,
      function() async.sleep(60) end)
    assert.is_true(async.now() - started < 170)
  end)

  it("raises the first error and cancels the others", function()
    local cancelled
    local ok, err = pcall(async.gather,
      function()
        local _, why = pcall(async.sleep, 5000)
        cancelled = why
      end,
      function()
        async.sleep(1)
        error("broken", 0)
      end)
    assert.is_false(ok)
    assert.are.equal("broken", err)
    assert.is_true(errors.is(cancelled, "cancelled"))
  end)

  it("names the argument that is no function", function()
    local ok, err = pcall(async.gather, function() end, 5)
    assert.is_false(ok)
    assert.matches("argument 2 of gather", tostring(err))
  end)
end)

describe("map", function()
  local function numbers(n)
    local list = {}
    for i = 1, n do
      list[i] = i
    end
    return list
  end

  it("gives results in the order of the list, with its length", function()
    local results, failures = async.map(numbers(20), function(item, index)
      async.sleep(20 - item)
      return item % 3 ~= 0 and item * index or nil
    end, { concurrency = 7 })
    assert.are.equal(20, results.n)
    for i = 1, 20 do
      assert.are.equal(i % 3 ~= 0 and i * i or nil, results[i])
    end
    assert.is_nil(failures)
    assert.are.same({ n = 0 }, async.map({}, function() end))
  end)

  for _, case in ipairs { { nil, 16 }, { 1, 1 }, { 5, 5 }, { math.huge, 40 } } do
    local limit, most = case[1], case[2]
    it(("runs at most %d at a time when the limit is %s"):format(most, tostring(limit)), function()
      local running, highest = 0, 0
      async.map(numbers(40), function()
        running = running + 1
        highest = math.max(highest, running)
        async.sleep(1)
        running = running - 1
      end, limit and { concurrency = limit })
      assert.are.equal(most, highest)
    end)
  end

  it("raises the first error, cancels the rest and begins no more", function()
    local began, cancelled = 0, 0
    local ok, err = pcall(async.map, numbers(50), function(item)
      began = began + 1
      if item == 2 then
        async.sleep(2)
        error("item 2", 0)
      end
      local fine = pcall(async.sleep, 5000)
      cancelled = cancelled + (fine and 0 or 1)
    end, { concurrency = 4 })
    assert.is_false(ok)
    assert.are.equal("item 2", err)
    assert.are.equal(4, began)
    assert.are.equal(3, cancelled)
  end)

  it("collects errors, those of an item's own tasks too, and goes on", function()
    local boom = {}
    local results, failures = async.map(numbers(6), function(item)
      if item == 2 then
        error(boom)
      elseif item == 4 then
        async.spawn(function() error("a task of item 4", 0) end)
        async.sleep(5000)
      elseif item == 5 then
        async.timeout(1, async.sleep, 5000)
      end
      return item
    end, { on_error = "collect", concurrency = 2 })
    assert.are.same({ [1] = 1, [3] = 3, [6] = 6, n = 6 }, results)
    assert.are.equal(boom, failures[2])
    assert.are.equal("a task of item 4", failures[4])
    assert.is_true(errors.is(failures[5], "timeout"))
    assert.is_nil(failures[1])
  end)

  it("does not collect its own cancel", function()
    async.run(function()
      local began = 0
      local task = async.spawn(function()
        async.map(numbers(50), function()
          began = began + 1
          async.sleep(5000)
        end, { on_error = "collect", concurrency = 3 })
      end)
      async.sleep(2)
      task:cancel()
      local ok, err = pcall(task.await, task)
      assert.is_false(ok)
      assert.is_true(errors.is(err, "cancelled"))
      assert.are.equal(3, began)
    end)
  end)

  it("closes what an item opened before the worker takes the next one", function()
    local open, most = 0, 0
    async.map(numbers(6), function()
      open = open + 1
      most = math.max(most, open)
      async.on_close(function() open = open - 1 end)
    end, { concurrency = 1 })
    assert.are.equal(1, most)
    assert.are.equal(0, open)
  end)

  it("says what is wrong with its arguments", function()
    for _, case in ipairs {
      { "must be a table, got string", "abc", function() end },
      { "function of map must be a function, got nil", {} },
      { "whole number from 1 on, got 0", {}, function() end, { concurrency = 0 } },
      { "whole number from 1 on, got 1.5", {}, function() end, { concurrency = 1.5 } },
      { "concurrency of map must be a number", {}, function() end, { concurrency = "4" } },
      { 'did you mean "concurrency"', {}, function() end, { concurency = 4 } },
    } do
      local ok, err = pcall(async.map, case[2], case[3], case[4])
      assert.is_false(ok)
      assert.is_true(errors.is(err, "usage"))
      assert.matches(case[1], tostring(err), 1, true)
    end
  end)
end)

describe("sleep", function()
  it("waits at least that long, and sleeping tasks wake in order", function()
    local order = {}
    local started = async.now()
    async.run(function()
      for _, ms in ipairs { 60, 20, 40, 0 } do
        async.spawn(function()
          async.sleep(ms)
          order[#order + 1] = ms
        end)
      end
    end)
    assert.are.same({ 0, 20, 40, 60 }, order)
    local took = async.now() - started
    assert.is_true(took >= 60 and took < 1000)
  end)

  it("wants a number of milliseconds", function()
    for _, bad in ipairs { -1, "5", 0 / 0, false } do
      assert.is_true(errors.is(select(2, pcall(async.sleep, bad)), "usage"))
    end
  end)
end)

describe("timeout", function()
  it("gives the results of what ended in time, and no timer stays", function()
    async.run(function()
      assert.are.same({ 1, nil, 3 }, { async.timeout(5000, function(x) return x, nil, 3 end, 1) })
    end)
    assert.is_true(async.idle())
  end)

  it("raises a retryable timeout and cancels what it waited for", function()
    async.run(function()
      local inner
      local started = async.now()
      local ok, err = pcall(async.timeout, 10, function()
        local task = async.spawn(async.sleep, 5000)
        local _, why = pcall(task.await, task)
        inner = why
        async.sleep(5000)
      end)
      assert.is_false(ok)
      assert.is_true(errors.is(err, "timeout"))
      assert.are.equal("no end within 10 ms", err.message)
      assert.is_true(err.retryable)
      assert.is_true(errors.is(inner, "cancelled"))
      assert.is_true(async.now() - started < 1000)
    end)
  end)

  it("raises what the function raised, if that is not its cancel", function()
    local ok, err = pcall(async.timeout, 5, function()
      pcall(async.sleep, 5000)
      error("own", 0)
    end)
    assert.is_false(ok)
    assert.are.equal("own", err)
  end)

  it("around another: the one that passes first is the one that raises", function()
    local function nested(outer, inner)
      return select(2, pcall(async.timeout, outer, function()
        async.timeout(inner, async.sleep, 5000)
      end)).message
    end
    assert.are.equal("no end within 5 ms", nested(200, 5))
    assert.are.equal("no end within 5 ms", nested(5, 200))
  end)

  it("works outside of tasks", function()
    local ok, err = pcall(async.timeout, 5, async.sleep, 5000)
    assert.is_false(ok)
    assert.is_true(errors.is(err, "timeout"))
  end)
end)

describe("shield", function()
  it("is not interrupted by a cancel from outside, nor are tasks started in it", function()
    local order = {}
    async.run(function()
      local task = async.spawn(function()
        pcall(async.sleep, 5000)
        local result = async.shield(function()
          async.spawn(function()
            async.sleep(5)
            order[#order + 1] = "task in the shield"
          end)
          async.sleep(2)
          order[#order + 1] = "shield"
          return "result"
        end)
        order[#order + 1] = result
        async.sleep(1)
        order[#order + 1] = "not reached"
      end)
      async.sleep(1)
      task:cancel()
      pcall(task.await, task)
    end)
    assert.are.same({ "shield", "task in the shield", "result" }, order)
  end)

  it("holds for a cancel that comes while it runs", function()
    async.run(function()
      local finished
      local task = async.spawn(function()
        async.shield(function()
          async.sleep(10)
          finished = true
        end)
      end)
      async.sleep(1)
      task:cancel()
      task:await()
      assert.is_true(finished)
    end)
  end)

  it("ends after its time with kind timeout", function()
    async.run(function()
      local started = async.now()
      local ok, err = pcall(async.shield, function() async.sleep(5000) end, 10)
      assert.is_false(ok)
      assert.is_true(errors.is(err, "timeout"))
      assert.matches("clean%-up did not end within 10 ms", tostring(err))
      assert.is_true(async.now() - started < 1000)
    end)
  end)
end)

describe("race", function()
  it("returns the index and the results of the first to end, after the others have ended", function()
    local ended = {}
    local function sleeper(i, ms)
      return function()
        local ok, err = pcall(async.sleep, ms)
        ended[i] = ok or err.kind
        return "result " .. i, nil, i
      end
    end
    local index, a, b, c = async.race(sleeper(1, 5000), sleeper(2, 5), sleeper(3, 5000))
    assert.are.equal(2, index)
    assert.are.same({ "result 2", nil, 2 }, { a, b, c })
    assert.are.same({ "cancelled", true, "cancelled" }, ended)
  end)

  it("raises the error of the first to end", function()
    local boom, cancelled = { "boom" }, nil
    local ok, err = pcall(async.race, function()
      async.sleep(2)
      error(boom)
    end, function()
      cancelled = not pcall(async.sleep, 5000)
    end)
    assert.is_false(ok)
    assert.are.equal(boom, err)
    assert.is_true(cancelled)
  end)

  it("has one winner, also when several end at once, and tells when a loser's clean-up fails", function()
    assert.are.same({ 1, "a" }, { async.race(function() return "a" end, function() return "b" end) })
    local ok, err = pcall(async.race, function() async.sleep(2) end, function()
      pcall(async.sleep, 1000)
      error("clean-up failed", 0)
    end)
    assert.is_false(ok)
    assert.are.equal("clean-up failed", err)
  end)

  it("is cancelled like any other wait", function()
    local ok, err = pcall(async.timeout, 5, async.race, function() async.sleep(1000) end)
    assert.is_false(ok)
    assert.are.equal("timeout", err.kind)
  end)

  it("needs functions", function()
    for _, args in ipairs { {}, { 5 }, { function() end, "x" } } do
      local ok, err = pcall(async.race, args[1], args[2])
      assert.is_false(ok)
      assert.are.equal("usage", err.kind)
    end
  end)
end)
