-- The rules of doc/concurrency.md, each by its number. `script/test --mutate` breaks one after the other
-- in the code and expects the spec of that number to notice.
local async = require "lbox.async"
local errors = require "lbox.errors"
local raised = require "spec.support.raised"

local reported

before_each(function()
  reported = {}
  async.on_error(function(text) reported[#reported + 1] = text end)
end)

after_each(function()
  async.close()
  async.on_error(nil)
end)

local function at_most(ms, fn)
  local started = async.now()
  fn()
  assert.is_true(async.now() - started < ms, "it took " .. async.now() - started .. " ms")
end

describe("rule", function()
  it("1: a task is owned by the scope it was spawned in, and is the scope of its own", function()
    local inner, child
    async.scope(function(scope)
      inner = scope:spawn(function()
        child = async.spawn(async.sleep, 10000)
        async.sleep(10000)
      end)
      async.sleep(2)
      inner:cancel()
      pcall(inner.await, inner)
      assert.are.equal("cancelled", child.status)
    end)
  end)

  it("2: a scope is left after its tasks ended; then what it opened is closed, the latest first", function()
    local steps = {}
    async.scope(function(scope)
      async.on_close(function() steps[#steps + 1] = "first opened" end)
      async.on_close(function() steps[#steps + 1] = "last opened" end)
      scope:spawn(function()
        async.sleep(5)
        steps[#steps + 1] = "task"
      end)
    end)
    assert.are.same({ "task", "last opened", "first opened" }, steps)
  end)

  it("3: a task begins in the next turn, and not at all when it is cancelled before", function()
    local begun = 0
    async.scope(function(scope)
      scope:spawn(function() begun = begun + 1 end)
      local never = scope:spawn(function() begun = begun + 10 end)
      assert.are.equal(0, begun)
      never:cancel()
      async.sleep(1)
      assert.are.equal("cancelled", never.status)
    end)
    assert.are.equal(1, begun)
  end)

  it("4: outside of tasks an error that nobody awaits is reported and cancels nothing", function()
    local other = async.spawn(async.sleep, 10)
    async.spawn(function() error("nobody's") end)
    async.sleep(5)
    assert.are.equal(1, #reported)
    assert.matches("nobody's\nstack traceback", reported[1])
    other:await()
    assert.are.equal("done", other.status)
  end)

  it("5: nothing begins in a scope that was left", function()
    local left
    async.scope(function(scope) left = scope end)
    assert.matches("already left", raised("usage", left.spawn, left, print).message)
  end)

  it("6: others run only while a task waits", function()
    local other_ran = false
    async.scope(function(scope)
      scope:spawn(function() other_ran = true end)
      local started = async.now()
      repeat until async.now() - started > 5
      assert.is_false(other_ran)
      async.sleep(0)
      assert.is_true(other_ran)
    end)
  end)

  it("7: where nothing can yield a wait turns the loop, and others go on", function()
    local ticks = 0
    async.run(function()
      local ticker = async.spawn(function()
        while true do
          async.sleep(1)
          ticks = ticks + 1
        end
      end)
      assert.are.equal("done", (("x"):gsub("x", function()
        async.sleep(20)
        return "done"
      end)))
      ticker:cancel()
    end)
    assert.is_true(ticks >= 3, ticks .. " ticks")
    local function inside()
      return (("x"):gsub("x", function()
        async.spawn(inside)
        async.sleep(1000)
      end))
    end
    at_most(1000, function() assert.matches("wait inside each other", raised("usage", async.run, inside).message) end)
  end)

  it("8: when nobody can go on, that is an error which says where", function()
    assert.matches("nothing is left to wait for.*rules_spec", raised("usage", function()
      async.wait(async.op())
    end).message)
  end)

  it("9: a task that has run for 2 ms lets others in at the next checkpoint", function()
    local turns = 0
    async.scope(function(scope)
      local other = scope:spawn(function()
        while true do
          async.sleep(0)
          turns = turns + 1
        end
      end)
      local started = async.now()
      while async.now() - started < 30 do
        async.checkpoint()
      end
      other:cancel()
    end)
    assert.is_true(turns >= 3, turns .. " turns")
  end)

  it("10: only lbox resumes tasks, and they yield only to lbox; generators work", function()
    async.run(function()
      local generator = coroutine.wrap(function()
        for i = 1, 3 do
          async.sleep(1)
          coroutine.yield(i)
        end
      end)
      assert.are.same({ 1, 2, 3 }, { generator(), generator(), generator() })
    end)
    local answer
    assert.matches("only lbox may resume", raised("usage", async.scope, function(scope)
      local co
      scope:spawn(function()
        co = coroutine.running()
        async.sleep(5000)
      end)
      async.sleep(2)
      answer = select(2, coroutine.resume(co))
      async.sleep(5000)
    end).message)
    assert.is_true(errors.is(answer, "usage"))
    assert.matches("a task yielded to lbox", raised("usage", async.run, function() coroutine.yield() end).message)
  end)

  it("11: a task that raises fails its owner at once; who awaits it gets that very error", function()
    local boom, awaited = { "boom" }, nil
    at_most(1000, function()
      local ok, err = pcall(async.scope, function(scope)
        local failing = scope:spawn(function()
          async.sleep(2)
          error(boom)
        end)
        scope:spawn(function()
          awaited = select(2, pcall(failing.await, failing))
        end)
        async.sleep(5000)
      end)
      assert.is_false(ok)
      assert.are.equal(boom, err)
    end)
    assert.are.equal(boom, awaited)
  end)

  it("12: the first error is raised and cancels the rest, or lets it end", function()
    local first, ended = { "first" }, nil
    local function fail_twice(on_error)
      ended = false
      return select(2, pcall(async.scope, function(scope)
        scope:spawn(function()
          async.sleep(2)
          error(first)
        end)
        scope:spawn(function()
          pcall(async.sleep, 20)
          ended = async.cancelled() == nil
          error("second", 0)
        end)
      end, { on_error = on_error }))
    end
    assert.are.equal(first, fail_twice("cancel"))
    assert.is_false(ended)
    assert.are.equal(first, fail_twice("wait"))
    assert.is_true(ended)
  end)

  it("13: an error tells where it was raised and where it was awaited", function()
    local function raise_it() error(errors.new("run", "deep")) end
    local _, err = pcall(async.run, function()
      local inner = async.spawn(function() raise_it() end)
      local function await_it() inner:await() end
      await_it()
    end)
    assert.matches("raise_it.*awaited by:.*await_it", async.traceback(err))
  end)

  it("14: every wait in a cancelled scope raises the same object until the scope is left", function()
    local seen = {}
    async.scope(function(scope)
      scope:cancel("enough")
      for i = 1, 3 do
        seen[i] = raised("cancelled", async.sleep, 0)
      end
      seen[4] = raised("cancelled", async.scope, function() async.sleep(0) end)
    end)
    assert.are.equal("enough", seen[1].message)
    for i = 2, 4 do
      assert.are.equal(seen[1], seen[i])
    end
    async.sleep(0)
  end)

  it("15: the first reason stays", function()
    async.scope(function(scope)
      scope:cancel("first")
      scope:cancel("second")
      assert.are.equal("first", raised("cancelled", async.sleep, 0).message)
    end)
  end)

  it("16: what is there when the cancel comes is returned", function()
    local got, after
    async.scope(function(scope)
      local op = async.op()
      local task = scope:spawn(function()
        got = async.wait(op)
        after = select(2, pcall(async.sleep, 0))
      end)
      async.sleep(1)
      op:resolve("result")
      task:cancel()
    end)
    assert.are.equal("result", got)
    assert.is_true(errors.is(after, "cancelled"))
  end)

  it("17: a scope that was cancelled before its tasks had ended raises when it is left", function()
    async.scope(function(outer)
      local err = raised("cancelled", async.scope, function(inner)
        inner:spawn(function() pcall(async.sleep, 1000) end)
        async.sleep(1)
        outer:cancel("from outside")
      end)
      assert.are.equal("from outside", err.message)
    end)
  end)

  it("18: inside of a shield a cancel is not seen, for so long at most", function()
    local slept, err
    at_most(1000, function()
      async.scope(function(scope)
        scope:cancel()
        pcall(async.shield, function()
          async.sleep(5)
          slept = true
        end)
        err = select(2, pcall(async.shield, function() async.sleep(5000) end, 10))
      end)
    end)
    assert.is_true(slept)
    assert.is_true(errors.is(err, "timeout"))
  end)

  it("19: a time limit cancels and raises, unless the function returns all the same", function()
    at_most(1000, function() raised("timeout", async.timeout, 5, async.sleep, 5000) end)
    assert.are.equal("caught", async.timeout(5, function()
      pcall(async.sleep, 5000)
      return "caught"
    end))
    async.sleep(1)
  end)

  it("20: what is open hears whether its scope was left in peace or by a cancel", function()
    local heard = {}
    local function open(name)
      async.on_close(function(cancelled) heard[name] = cancelled and cancelled.kind or "peace" end)
    end
    async.scope(function() open("left") end)
    pcall(async.timeout, 5, function()
      open("timeout")
      async.sleep(1000)
    end)
    async.race(function()
      open("loser")
      async.sleep(1000)
    end, function() async.sleep(2) end)
    assert.are.same({ left = "peace", timeout = "cancelled", loser = "cancelled" }, heard)
  end)

  it("21: gather ends after all have ended, also when one fails", function()
    local cleaned
    local ok, err = pcall(async.gather, function()
      async.sleep(2)
      error("failed", 0)
    end, function()
      pcall(async.sleep, 1000)
      async.shield(function() async.sleep(5) end)
      cleaned = true
    end)
    assert.is_false(ok)
    assert.are.equal("failed", err)
    assert.is_true(cleaned)
  end)

  it("22: race returns the first to end, after the others have ended", function()
    local cleaned, index
    at_most(500, function()
      index = async.race(function()
        pcall(async.sleep, 1000)
        async.shield(function() async.sleep(5) end)
        cleaned = true
      end, function() async.sleep(2) end)
    end)
    assert.are.equal(2, index)
    assert.is_true(cleaned)
  end)

  it("23: map keeps to its limit and to the places of its items, and collects errors", function()
    local under_way, most = 0, 0
    local results, failed = async.map({ 5, 1, 3, 2, 4 }, function(ms, index)
      under_way = under_way + 1
      most = math.max(most, under_way)
      async.sleep(ms)
      under_way = under_way - 1
      if ms == 3 then
        error("three", 0)
      end
      return index * 10
    end, { concurrency = 2, on_error = "collect" })
    assert.are.equal(2, most)
    assert.are.same({ 10, 20, nil, 40, 50, n = 5 }, results)
    assert.are.same({ [3] = "three" }, failed)
  end)

  it("24: who waits longest is served first, who was cancelled not at all", function()
    local channel, served = async.channel(), {}
    async.scope(function(scope)
      local tasks = {}
      for i = 1, 4 do
        tasks[i] = scope:spawn(function()
          local value = channel:receive()
          served[#served + 1] = i .. value
        end)
        async.sleep(1)
      end
      tasks[2]:cancel()
      pcall(tasks[2].await, tasks[2])
      for _, value in ipairs { "a", "b", "c" } do
        channel:send(value)
      end
    end)
    assert.are.same({ "1a", "3b", "4c" }, served)
  end)

  it("25: run ends after everything that was spawned inside", function()
    local ended
    async.run(function()
      async.spawn(function()
        async.sleep(5)
        ended = true
      end)
    end)
    assert.is_true(ended)
  end)

  it("26: close cancels everything, gives it time to clean up, and not more", function()
    local cleaned, late
    async.spawn(function()
      pcall(async.sleep, 5000)
      async.shield(function() async.sleep(5) end)
      cleaned = true
    end)
    async.spawn(function()
      pcall(async.sleep, 5000)
      async.shield(function() async.sleep(4000) end)
      late = true
    end)
    async.sleep(1)
    at_most(1500, function() async.close(100) end)
    assert.is_true(cleaned)
    assert.is_nil(late)
    assert.are.equal(0, async.pending())
  end)
end)
