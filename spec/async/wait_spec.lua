-- Waits where nothing can yield: the loop is turned on the spot.
local async = require "lbox.async"
local errors = require "lbox.errors"

after_each(function()
  assert.are.equal(0, async.pending())
  assert.is_true(async.idle())
  async.close()
end)

local function wait_a_bit(value)
  async.sleep(2)
  return value
end

-- Each place calls `wait_a_bit` once or more where a coroutine cannot yield, and returns a result.
local places = {
  ["a gsub callback"] = function()
    return (("abc"):gsub("%w", function(c) return wait_a_bit(c:upper()) end))
  end,
  ["a sort comparison"] = function()
    local list = { 3, 1, 2 }
    table.sort(list, function(a, b) return wait_a_bit(a < b) end)
    return table.concat(list)
  end,
  ["the chunk of a required module"] = function()
    package.preload.lbox_spec_module = function() return { value = wait_a_bit("loaded") } end
    local module = require "lbox_spec_module"
    package.loaded.lbox_spec_module, package.preload.lbox_spec_module = nil, nil
    return module.value
  end,
  ["a generator of the user's"] = function()
    local generator = coroutine.wrap(function()
      for i = 1, 3 do
        coroutine.yield(wait_a_bit(i))
      end
    end)
    return generator() .. generator() .. generator()
  end,
  ["a coroutine in a coroutine"] = function()
    return coroutine.wrap(function()
      return coroutine.wrap(function() return wait_a_bit("deep") end)()
    end)()
  end,
  ["a __tostring"] = function()
    return tostring(setmetatable({}, { __tostring = function() return wait_a_bit("text") end }))
  end,
  ["a for iterator"] = function()
    local n = 0
    for i in function(_, last) return last < 3 and wait_a_bit(last + 1) or nil end, nil, 0 do
      n = n + i
    end
    return n
  end,
  ["an __index"] = function()
    return setmetatable({}, { __index = function(_, key) return wait_a_bit(key) end }).field
  end,
  ["a pcall in an xpcall"] = function()
    return select(3, xpcall(function() return pcall(wait_a_bit, "caught") end, tostring))
  end,
  ["a handler of an error"] = function()
    return select(2, xpcall(error, function() return wait_a_bit("handled") end, "x"))
  end,
}
local expected = {
  ["a gsub callback"] = "ABC", ["a sort comparison"] = "123",
  ["the chunk of a required module"] = "loaded", ["a generator of the user's"] = "123",
  ["a coroutine in a coroutine"] = "deep", ["a __tostring"] = "text", ["a for iterator"] = 6,
  ["an __index"] = "field", ["a pcall in an xpcall"] = "caught",
  ["a handler of an error"] = "handled",
}

describe("a wait", function()
  for place, body in pairs(places) do
    it("in " .. place .. " works outside of tasks", function()
      assert.are.equal(expected[place], body())
    end)

    it("in " .. place .. " works in a task, while other tasks go on", function()
      local steps = 0
      async.run(function()
        local other = async.spawn(function()
          while true do
            steps = steps + 1
            async.sleep(0)
          end
        end)
        assert.are.equal(expected[place], body())
        assert.is_not_nil(async.current())
        other:cancel()
      end)
      assert.is_true(steps > 0)
    end)
  end

  it("is cancelled where it cannot yield as well", function()
    async.run(function()
      for _, how in ipairs { "gsub", "coroutine" } do
        local seen
        local task = async.spawn(function()
          local function wait()
            local _, err = pcall(async.sleep, 5000)
            seen = err
          end
          if how == "gsub" then
            string.gsub("x", "x", wait)
          else
            coroutine.wrap(wait)()
          end
        end)
        async.spawn(function()
          async.sleep(2)
          task:cancel(how)
        end)
        task:await()
        assert.is_true(errors.is(seen, "cancelled"))
        assert.are.equal(how, seen.message)
      end
    end)
  end)

  it("that nests ends last-in first-out, and the results are right", function()
    local order = {}
    async.run(function()
      local function nester(name, ms)
        return function()
          return (("x"):gsub("x", function()
            async.sleep(ms)
            order[#order + 1] = name
            return name
          end))
        end
      end
      local a, b, c = async.gather(nester("outer", 1), nester("middle", 5), nester("inner", 10))
      assert.are.same({ "outer", "middle", "inner" }, { a, b, c })
    end)
    assert.are.same({ "inner", "middle", "outer" }, order)
  end)

  it("that nests too deep is an error that names the first place and the last", function()
    local ok, err = pcall(async.scope, function(scope)
      for _ = 1, 60 do
        scope:spawn(function()
          string.gsub("x", "x", function() async.sleep(5000) end)
        end)
      end
    end)
    assert.is_false(ok)
    assert.is_true(errors.is(err, "usage"))
    assert.matches("calls wait inside each other where nothing can yield", err.message)
    local first, last = err.message:match("first at (%S+), the last at (%S+), and now")
    assert.matches("wait_spec.lua:%d+", first)
    assert.matches("wait_spec.lua:%d+", last)
    assert.are_not.equal(first, last)
  end)

  it("for what nobody can bring is an error, outside and inside of tasks", function()
    for _, wait in ipairs {
      function() async.wait(async.op()) end,
      function() async.run(function() async.wait(async.op()) end) end,
      function()
        async.run(function()
          string.gsub("x", "x", function() async.wait(async.op()) end)
        end)
      end,
      function()
        async.run(function()
          local a
          local b = async.spawn(function()
            async.sleep(1)
            a:await()
          end)
          a = async.spawn(function() b:await() end)
        end)
      end,
    } do
      local ok, err = pcall(wait)
      assert.is_false(ok)
      assert.is_true(errors.is(err, "usage"), tostring(err))
      assert.matches("nothing is left to wait for.*wait_spec.lua:%d+", err.message)
    end
  end)

  it("for an operation can come before or after it is settled", function()
    async.run(function()
      local before = async.op()
      before:resolve(1, nil, 3)
      before:resolve("ignored")
      before:reject("ignored")
      assert.are.same({ 1, nil, 3 }, { async.wait(before) })
      assert.is_true(before.settled)

      local after = async.op()
      async.at(async.now() + 2, function() after:reject("refused") end)
      assert.are.same({ false, "refused" }, { pcall(async.wait, after) })

      local empty = async.op()
      async.defer(function() empty:resolve() end)
      assert.are.equal(0, select("#", async.wait(empty)))
    end)
  end)

  it("for an operation is one task's", function()
    async.run(function()
      local op = async.op()
      local first = async.spawn(async.wait, op)
      async.sleep(1)
      local ok, err = pcall(async.wait, op)
      assert.is_false(ok)
      assert.is_true(errors.is(err, "usage"))
      op:resolve("mine")
      assert.are.equal("mine", first:await())
    end)
  end)
end)

describe("a user's coroutine that enters a scope", function()
  it("and yields in it does not disturb the task around", function()
    async.run(function()
      local steps = {}
      local generator = coroutine.wrap(function()
        async.timeout(20, function()
          for i = 1, 3 do
            coroutine.yield(i)
          end
          local _, err = pcall(async.sleep, 5000)
          steps[#steps + 1] = err.kind
        end)
        return "end"
      end)
      assert.are.equal(1, generator())
      async.sleep(30) -- the limit passes while the generator stands still
      assert.is_nil(async.cancelled())
      assert.are.equal(2, generator())
      assert.are.equal(3, generator())
      assert.are.equal("end", generator())
      assert.are.same({ "cancelled" }, steps)
      async.sleep(1)
    end)
  end)

  it("passes its scope on to coroutines it resumes itself", function()
    async.run(function()
      local kind = coroutine.wrap(function()
        local ok, err = pcall(async.timeout, 5, function()
          coroutine.wrap(function() async.sleep(5000) end)()
        end)
        assert.is_false(ok)
        return err.kind
      end)()
      assert.are.equal("timeout", kind)
    end)
  end)

  it("and never comes back ends with the scope it was in", function()
    local closed, task
    async.run(function()
      local generator = coroutine.wrap(function()
        async.scope(function(scope)
          task = scope:spawn(async.sleep, 5000)
          async.on_close(function() closed = true end)
          coroutine.yield()
        end)
      end)
      generator()
      async.sleep(1)
    end)
    assert.are.equal("cancelled", task.status)
    assert.is_true(closed)
  end)

  it("works outside of tasks, where the root scope stays as it was", function()
    local generator = coroutine.wrap(function()
      async.scope(function(scope)
        scope:spawn(async.sleep, 1)
        coroutine.yield("in the scope")
      end)
      return "left"
    end)
    assert.are.equal("in the scope", generator())
    local task = async.spawn(function() return "root" end)
    assert.are.equal("root", task:await())
    assert.are.equal("left", generator())
  end)
end)

describe("a callback of the loop", function()
  it("that raises is reported, and the loop goes on", function()
    local texts = {}
    async.on_error(function(text) texts[#texts + 1] = text end)
    async.at(async.now() + 1, function() error("in a timer") end)
    async.defer(function() error("deferred") end)
    async.sleep(10)
    async.on_error(nil)
    table.sort(texts)
    assert.are.equal(2, #texts)
    assert.matches("%d: in a timer", texts[1])
    assert.matches("%d: deferred", texts[2])
  end)

  it("is not in the scope of whoever turns the loop", function()
    async.run(function()
      pcall(async.timeout, 30, function()
        string.gsub("x", "x", function()
          local task
          async.defer(function() task = async.spawn(async.sleep, 60) end)
          pcall(async.sleep, 5000)
          assert.are.equal("running", task.status)
          async.shield(function() task:await() end)
          assert.are.equal("done", task.status)
        end)
      end)
    end)
  end)

  it("can be taken back", function()
    local ran = false
    async.at(async.now() + 1, function() ran = true end):cancel()
    async.sleep(5)
    assert.is_false(ran)
  end)
end)

describe("a checkpoint", function()
  local function spin_until(done)
    local stop_at = async.now() + 5000
    while not done() and async.now() < stop_at do
      async.checkpoint()
    end
  end

  local function start_ticker()
    local ticks = { n = 0 }
    return ticks, async.spawn(function()
      while true do
        async.sleep(1)
        ticks.n = ticks.n + 1
      end
    end)
  end

  it("lets others in once a task ran two milliseconds", function()
    async.run(function()
      local ticks, ticker = start_ticker()
      spin_until(function() return ticks.n >= 10 end)
      assert.are.equal(10, ticks.n)
      ticker:cancel()
    end)
  end)

  it("lets others in where it cannot yield", function()
    local ticks, ticker = start_ticker()
    spin_until(function() return ticks.n >= 10 end)
    assert.is_true(ticks.n >= 10)
    ticker:cancel()
    pcall(ticker.await, ticker)
  end)

  it("costs no turn before that", function()
    async.run(function()
      local ran = false
      async.spawn(function() ran = true end)
      async.checkpoint()
      async.checkpoint()
      assert.is_false(ran)
    end)
  end)
end)
