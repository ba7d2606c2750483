local async = require "lbox.async"
local errors = require "lbox.errors"

describe("waiting", function()
  it("blocks outside tasks, and in a task lets others run", function()
    local started = async.now()
    async.sleep(20)
    assert.is_true(async.now() - started >= 19)
    local order = {}
    async.run(function()
      async.spawn(function()
        order[#order + 1] = "other"
      end)
      async.sleep(5)
      order[#order + 1] = "first"
    end)
    assert.are.same({ "other", "first" }, order)
  end)

  it("works where nothing can yield: gsub, sort, a user's own coroutine", function()
    async.run(function()
      assert.are.equal("aabb", (("ab"):gsub("%w", function(c)
        async.sleep(1)
        return c .. c
      end)))
      local next_item = coroutine.wrap(function()
        for i = 1, 3 do
          async.sleep(1)
          coroutine.yield(i)
        end
      end)
      assert.are.same({ 1, 2, 3 }, { next_item(), next_item(), next_item() })
    end)
  end)

  it("is an error when nothing can ever come", function()
    local ok, err = pcall(async.run, function()
      async.wait(async.op())
    end)
    assert.is_false(ok)
    assert.matches("nothing is left to wait for", tostring(err))
  end)
end)

describe("tasks", function()
  it("give their results to whoever awaits them", function()
    assert.are.equal(3, async.run(function()
      local task = async.spawn(function(a, b)
        async.sleep(1)
        return a + b
      end, 1, 2)
      return task:await()
    end))
  end)

  it("fail their scope at once, with the very error", function()
    local trouble = errors.new("run", "trouble")
    local ok, err = pcall(async.run, function()
      async.spawn(function()
        async.sleep(1)
        error(trouble, 0)
      end)
      async.sleep(5000)
    end)
    assert.is_false(ok)
    assert.are.equal(trouble, err)
    assert.matches("async_spec", err.traceback)
  end)

  it("end only after what they spawned", function()
    local ended = false
    async.run(function()
      async.spawn(function()
        async.sleep(10)
        ended = true
      end)
    end)
    assert.is_true(ended)
  end)

  it("keep raising once they are cancelled", function()
    local raised = 0
    local task = async.spawn(function()
      for _ = 1, 3 do
        local ok, err = pcall(async.sleep, 1000)
        raised = raised + ((not ok and errors.is(err, "cancelled")) and 1 or 0)
      end
      async.sleep(1)
    end)
    async.sleep(1)
    task:cancel("enough")
    local ok, err = pcall(task.await, task)
    assert.is_false(ok)
    assert.are.equal("cancelled", err.kind)
    assert.are.equal("cancelled", task.status)
    assert.are.equal(3, raised)
  end)

  it("may clean up in a shield, for a while", function()
    local cleaned, late = false, nil
    local task = async.spawn(function()
      local _, cancelled = pcall(async.sleep, 1000)
      async.shield(function()
        async.sleep(5)
        cleaned = true
      end)
      _, late = pcall(async.shield, function() async.sleep(1000) end, 5)
      error(cancelled, 0)
    end)
    async.sleep(1)
    task:cancel()
    pcall(task.await, task)
    assert.is_true(cleaned)
    assert.is_true(errors.is(late))
  end)
end)

describe("combinators", function()
  it("gather results, or raise the first error", function()
    local a, b = async.gather(function() async.sleep(5) return 1 end, function() return 2 end)
    assert.are.same({ 1, 2 }, { a, b })
    local ok, err = pcall(async.gather, function() async.sleep(1000) end, function() error("no", 0) end)
    assert.is_false(ok)
    assert.are.equal("no", err)
  end)

  it("map within their bound, in order", function()
    local active, most = 0, 0
    local results = async.map({ 1, 2, 3, 4, 5, 6 }, function(x)
      active = active + 1
      most = math.max(most, active)
      async.sleep(7 - x)
      active = active - 1
      return x * x
    end, { concurrency = 2 })
    assert.are.equal(2, most)
    assert.are.equal("1,4,9,16,25,36", table.concat(results, ","))
    assert.are.equal(6, results.n)
  end)

  it("collect errors by item when asked to", function()
    local results, failures = async.map({ 1, 2, 3 }, function(x)
      if x == 2 then
        error("bad", 0)
      end
      return x
    end, { on_error = "collect" })
    assert.are.same({ 1, 3 }, { results[1], results[3] })
    assert.are.same({ [2] = "bad" }, failures)
  end)

  it("raise a timeout and cancel what was waited for", function()
    local ok, err = pcall(async.timeout, 10, async.sleep, 1000)
    assert.is_false(ok)
    assert.are.equal("timeout", err.kind)
    assert.are.equal(5, async.timeout(1000, function() return 5 end))
  end)

  it("leave no task behind", function()
    async.sleep(1)
    local before = async.pending()
    pcall(async.run, function()
      for _ = 1, 10 do
        async.spawn(function() async.sleep(1000) end)
      end
      error("stop", 0)
    end)
    assert.are.equal(before, async.pending())
  end)
end)
