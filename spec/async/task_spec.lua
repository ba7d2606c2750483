local async = require "lbox.async"
local errors = require "lbox.errors"

describe("a task", function()
  local reported

  before_each(function()
    reported = {}
    async.on_error(function(text) reported[#reported + 1] = text end)
  end)

  after_each(function()
    assert.are.equal(0, async.pending())
    async.on_error(nil)
    async.close()
  end)

  it("gives its results to whoever awaits it, all of them and as often as asked", function()
    async.run(function()
      local task = async.spawn(function(...) return select("#", ...), nil, ..., nil end, 7, nil)
      assert.are.equal("running", task.status)
      local function check(...)
        assert.are.equal(4, select("#", ...))
        assert.are.same({ 2, nil, 7, nil }, { ... })
      end
      check(task:await())
      assert.are.equal("done", task.status)
      check(task:await())
    end)
  end)

  it("passes every count of arguments and results", function()
    async.run(function()
      for n = 0, 5 do
        local args = {}
        for i = 1, n do
          args[i] = i
        end
        local task = async.spawn(function(...) return ... end, (table.unpack or unpack)(args, 1, n))
        assert.are.equal(n, select("#", task:await()))
      end
    end)
  end)

  it("begins after the one that spawned it waits, in the order of spawning", function()
    local order = {}
    async.run(function()
      for i = 1, 5 do
        async.spawn(function() order[#order + 1] = i end)
      end
      assert.are.same({}, order)
      async.sleep(0)
    end)
    assert.are.same({ 1, 2, 3, 4, 5 }, order)
  end)

  it("ends after the tasks it spawned", function()
    local ended = {}
    async.run(function()
      local outer = async.spawn(function()
        async.spawn(function()
          async.sleep(10)
          ended[#ended + 1] = "inner"
        end)
        return "result"
      end)
      assert.are.equal("result", outer:await())
      ended[#ended + 1] = "outer"
    end)
    assert.are.same({ "inner", "outer" }, ended)
  end)

  it("wakes several awaiters with the same result", function()
    async.run(function()
      local task = async.spawn(function()
        async.sleep(5)
        return {}
      end)
      local a, b, c = async.gather(
        function() return task:await() end,
        function() return task:await() end,
        function() return task:await() end)
      assert.are.equal(a, b)
      assert.are.equal(b, c)
    end)
  end)

  it("goes on when one who awaited it is cancelled", function()
    async.run(function()
      local task = async.spawn(function()
        async.sleep(20)
        return "fine"
      end)
      for _ = 1, 3 do
        assert.is_false(pcall(async.gather,
          function() async.timeout(1, task.await, task) end,
          function() async.timeout(2, task.await, task) end))
      end
      assert.is_false(task.awaiter)
      assert.are.same({}, task.awaiters or {})
      assert.are.equal("fine", task:await())
    end)
  end)

  it("is named after its function, and prints its state", function()
    async.run(function()
      local task = async.spawn(function() end)
      assert.matches("task_spec.lua:%d+", task.name)
      assert.matches("task_spec.lua:%d+ %(running%)", tostring(task))
      task:await()
      assert.matches("%(done%)", tostring(task))
      assert.are.equal("main", async.current().name)
    end)
    assert.is_nil(async.current())
  end)

  it("cannot await itself", function()
    local ok, err = pcall(async.run, function()
      async.current():await()
    end)
    assert.is_false(ok)
    assert.is_true(errors.is(err, "usage"))
  end)

  it("cannot be started in a scope that was left", function()
    local kept
    async.scope(function(scope) kept = scope end)
    local ok, err = pcall(kept.spawn, kept, function() end)
    assert.is_false(ok)
    assert.matches("already left", tostring(err))
  end)

  it("needs a function to run, also a callable table", function()
    for _, call in ipairs { async.spawn, async.run, async.scope } do
      local ok, err = pcall(call, 5)
      assert.is_false(ok)
      assert.matches("must be a function, got number", tostring(err))
    end
    local callable = setmetatable({}, { __call = function(_, x) return x + 1 end })
    assert.are.equal(3, async.run(callable, 2))
  end)

  describe("that fails", function()
    it("raises the very same object in whoever awaits it", function()
      local boom = {}
      async.run(function()
        local ok, err = pcall(async.scope, function(scope)
          scope:spawn(function() error(boom) end):await()
        end)
        assert.is_false(ok)
        assert.are.equal(boom, err)
      end)
    end)

    it("fails its owner at once, awaited or not", function()
      local seen
      local started = async.now()
      local ok, err = pcall(async.run, function()
        async.spawn(function()
          async.sleep(5)
          error("child", 0)
        end)
        local _, inner = pcall(async.sleep, 5000)
        seen = inner
        error(inner, 0)
      end)
      assert.is_false(ok)
      assert.are.equal("child", err)
      assert.is_true(errors.is(seen, "cancelled"))
      assert.are.equal("child", seen.cause)
      assert.is_true(async.now() - started < 2000)
    end)

    it("cannot be hidden by a pcall around its await", function()
      local ok, err = pcall(async.run, function()
        local task = async.spawn(function() error("child", 0) end)
        assert.are.same({ false, "child" }, { pcall(task.await, task) })
        return "as if nothing had happened"
      end)
      assert.is_false(ok)
      assert.are.equal("child", err)
    end)

    it("is status failed; a nil error stays nil", function()
      async.run(function()
        local task
        local ok, err = pcall(async.scope, function(scope)
          task = scope:spawn(function() error(nil) end)
        end)
        assert.is_false(ok)
        -- A Lua may put a message in its place; none may turn it into a success.
        assert.is_true(err == nil or type(err) == "string")
        assert.are.equal("failed", task.status)
      end)
    end)

    it("tells the host as a string with a traceback when nobody owns or awaits it", function()
      local function deep() error("unheard") end
      local task = async.spawn(function() deep() end)
      async.spawn(function() async.sleep(5) end)
      async.sleep(10)
      assert.are.equal("failed", task.status)
      assert.are.equal(1, #reported)
      assert.are.equal("string", type(reported[1]))
      assert.matches("task_spec.lua:%d+: unheard", reported[1])
      assert.matches("stack traceback:.*task_spec.lua:%d+: in .*deep", reported[1])
      assert.not_matches("lbox/async", reported[1])
    end)

    it("is not told to the host when somebody outside of tasks awaits it", function()
      local task = async.spawn(function()
        async.sleep(1)
        error("heard", 0)
      end)
      assert.are.same({ false, "heard" }, { pcall(task.await, task) })
      assert.are.same({}, reported)
    end)

    it("leaves the other tasks outside of scopes alone", function()
      local other = async.spawn(function()
        async.sleep(10)
        return "fine"
      end)
      async.spawn(function() error("alone", 0) end)
      assert.are.equal("fine", other:await())
      assert.are.equal(1, #reported)
    end)

    it("reports any value, also one that cannot be printed", function()
      local broken = setmetatable({}, { __tostring = function() error "no" end })
      async.spawn(function() error(broken) end)
      async.spawn(function() error({}) end)
      async.sleep(2)
      assert.are.equal(2, #reported)
      assert.matches("error object is a table value", reported[1])
    end)
  end)

  describe("whose coroutine somebody else touches", function()
    it("fails clearly when it yields to the scheduler, and ends what is in it", function()
      local closed, child
      local ok, err = pcall(async.run, function()
        async.on_close(function() closed = true end)
        child = async.spawn(function() async.sleep(5000) end)
        async.sleep(0)
        coroutine.yield("mine")
      end)
      assert.is_false(ok)
      assert.is_true(errors.is(err, "usage"))
      assert.matches("a task yielded to lbox", tostring(err))
      assert.matches("task_spec.lua:%d+", err.traceback)
      assert.are.equal("cancelled", child.status)
      assert.is_true(closed)
    end)

    it("raises in the task and tells the other one when it is resumed", function()
      local co, answers, caught
      async.run(function()
        local victim = async.spawn(function()
          co = coroutine.running()
          local _, err = pcall(async.sleep, 5000)
          caught = err
          async.sleep(1) -- unharmed otherwise
          return "went on"
        end)
        async.sleep(1)
        answers = { { coroutine.resume(co, "x") }, { coroutine.resume(co, "y") } }
        assert.are.equal("went on", victim:await())
      end)
      assert.matches("resumed by code outside lbox", tostring(caught))
      for _, answer in ipairs(answers) do
        assert.is_true(answer[1])
        assert.are.equal(caught, answer[2])
      end
    end)

    local close = rawget(coroutine, "close") -- LuaJIT has none, so nobody there can close one
    if close then
      it("fails when it is closed from outside, and ends what is in it", function()
        local child
        local ok, err = pcall(async.run, function()
          local victim = async.spawn(function()
            child = async.spawn(function() async.sleep(5000) end)
            async.sleep(20)
          end)
          async.sleep(1)
          close(victim.co)
          async.sleep(5000)
        end)
        assert.is_false(ok)
        assert.matches("was ended by code outside lbox", tostring(err))
        assert.are.equal("cancelled", child.status)
      end)
    end
  end)
end)
