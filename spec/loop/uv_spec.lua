-- On the loop of a plain luv program.
local async = require "lbox.async"
local loop = require "lbox.loop"
local uv = require "luv"

describe("on a libuv loop", function()
  local reported

  before_each(function()
    reported = {}
    async.on_error(function(text) reported[#reported + 1] = text end)
    loop.use "uv"
  end)

  after_each(function()
    async.on_error(nil)
    async.close()
    uv.run "nowait"
    assert.is_false(uv.loop_alive())
  end)

  local function ticker(ms)
    local ticks = { n = 0 }
    local timer = uv.new_timer()
    timer:start(ms, ms, function()
      ticks.n = ticks.n + 1
    end)
    function ticks.stop()
      timer:stop()
      timer:close()
    end
    return ticks
  end

  it("tasks run while the host runs its loop, which ends by itself when they did", function()
    local order = {}
    async.spawn(function()
      for i = 1, 3 do
        async.sleep(3)
        order[i] = i
      end
    end)
    uv.run()
    assert.are.same({ 1, 2, 3 }, order)
    assert.is_false(uv.loop_alive())
  end)

  it("a blocking call runs the host's loop meanwhile", function()
    local ticks = ticker(2)
    local stop_at = async.now() + 5000
    while ticks.n < 5 and async.now() < stop_at do
      async.sleep(10)
    end
    ticks.stop()
    assert.is_true(ticks.n >= 5, ticks.n .. " ticks")
  end)

  it("a busy task does not hold up the host's timers", function()
    local ticks = ticker(2)
    async.spawn(function()
      local stop_at = async.now() + 5000
      while ticks.n < 5 and async.now() < stop_at do
        async.checkpoint()
      end
      ticks.stop()
    end)
    uv.run()
    assert.is_true(ticks.n >= 5, ticks.n .. " ticks")
  end)

  it("many busy tasks together do not either", function()
    local ticks = ticker(2)
    local left = 30
    for _ = 1, left do
      async.spawn(function()
        for _ = 1, 3 do
          local stop_at = async.now() + 1
          while async.now() < stop_at do
            async.current()
          end
          async.sleep(0)
        end
        left = left - 1
        if left == 0 then
          ticks.stop()
        end
      end)
    end
    uv.run()
    -- 90 ms of work in turns of 8 ms; with all tasks in every turn the timer would come 4 times.
    assert.is_true(ticks.n >= 8, ticks.n .. " ticks")
  end)

  it("a task started in a callback of the host runs", function()
    local done
    local timer = uv.new_timer()
    timer:start(2, 0, function()
      timer:close()
      async.spawn(function()
        async.sleep(2)
        done = true
      end)
    end)
    uv.run()
    assert.is_true(done)
  end)

  it("a wait that cannot yield works inside a task that the host's loop runs", function()
    local text
    async.spawn(function()
      text = string.gsub("ab", "%w", function(c)
        async.sleep(2)
        return c:upper()
      end)
    end)
    uv.run()
    assert.are.equal("AB", text)
  end)

  it("an error of a task is reported as a string, and the loop goes on", function()
    local fine
    async.spawn(function() error({ "a table" }) end)
    async.spawn(function()
      async.sleep(5)
      fine = true
    end)
    uv.run()
    assert.is_true(fine)
    assert.are.equal(1, #reported)
    assert.are.equal("string", type(reported[1]))
  end)

  it("closing in the middle leaves no handle open", function()
    async.spawn(async.sleep, 5000)
    local timer = uv.new_timer()
    timer:start(5, 0, function()
      timer:close()
      async.close(0)
    end)
    uv.run()
    assert.are.equal(0, async.pending())
  end)
end)
