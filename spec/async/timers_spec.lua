local timers = require "lbox.async.timers"

describe("the timer heap", function()
  local fired

  local function timer(name, at)
    return { at = at, slot = false, fire = function() fired[#fired + 1] = name end }
  end

  before_each(function()
    fired = {}
  end)

  it("fires what is due in order of time, and of adding when the time is the same", function()
    local heap = timers.new()
    local at = { c = 3, a = 1, b1 = 2, b2 = 2, b3 = 2, d = 9 }
    for _, name in ipairs { "c", "a", "b1", "b2", "b3", "d" } do
      heap:add(timer(name, at[name]))
    end
    heap:run(3)
    assert.are.same({ "a", "b1", "b2", "b3", "c" }, fired)
    assert.are.equal(9, heap:next_at())
  end)

  it("lets what a timer adds wait for the next run, even if it is overdue", function()
    local heap = timers.new()
    heap:add {
      at = 1, slot = false,
      fire = function() heap:add(timer("late", 0)) end,
    }
    heap:run(5)
    assert.are.same({}, fired)
    heap:run(5)
    assert.are.same({ "late" }, fired)
    assert.is_nil(heap:next_at())
  end)

  it("lets a timer take out another that is due in the same run", function()
    local heap = timers.new()
    local second = timer("second", 2)
    heap:add { at = 1, slot = false, fire = function() heap:remove(second) end }
    heap:add(second)
    heap:run(5)
    assert.are.same({}, fired)
    assert.are.equal(0, heap.n)
  end)

  it("keeps nothing of timers that were taken out", function()
    local heap = timers.new()
    for _ = 1, 1000 do
      local one = timer("never", 1e9)
      heap:add(one)
      heap:remove(one)
      heap:remove(one)
    end
    assert.are.equal(0, heap.n)
    assert.is_nil(heap[1])
  end)

  it("keeps its order through thousands of random adds and removes", function()
    local seed = 12345
    local function random(n)
      seed = (seed * 1103515245 + 12345) % 2147483648
      return math.floor(seed / 65536) % n + 1
    end
    local heap, inside = timers.new(), {}
    for _ = 1, 5000 do
      if #inside > 0 and random(3) == 1 then
        local i = random(#inside)
        heap:remove(inside[i])
        table.remove(inside, i)
      else
        local one = { at = random(100), slot = false }
        one.fire = function() fired[#fired + 1] = one end
        heap:add(one)
        inside[#inside + 1] = one
      end
    end
    local left = #inside
    heap:run(1000)
    assert.are.equal(left, #fired)
    for i = 2, #fired do
      local a, b = fired[i - 1], fired[i]
      assert.is_true(a.at < b.at or (a.at == b.at and a.number < b.number))
    end
  end)
end)

describe("two waits", function()
  it("that end at the very same time both end, the second begun after the first", function()
    local async = require "lbox.async"
    async.run(function()
      local function wait_until(at)
        local op = async.op()
        async.at(at, function() op:resolve() end)
        async.wait(op)
      end
      local at = async.now() + 5
      wait_until(at)
      local fallback = async.at(at + 2000, function() end) -- a lost one would wait for this
      wait_until(at)
      fallback:cancel()
      assert.is_true(async.now() - at < 1000)
    end)
  end)
end)
