-- The four calls by which any event loop drives lbox, and the choice of the loop.
local async = require "lbox.async"
local core = require "lbox.core"
local errors = require "lbox.errors"
local loop = require "lbox.loop"

describe("the four calls of any event loop", function()
  local host

  -- A host that polls one descriptor, here with an engine of its own.
  before_each(function()
    host = core.engine()
  end)

  after_each(function()
    host:close()
    async.close()
  end)

  local function readable(ms)
    local watch = host:watch(loop.pollfd())
    watch:arm(loop.events())
    host:step(ms)
    local events = watch:events()
    watch:close()
    while host:ready() do
      events = events or nil
    end
    return events ~= nil
  end

  it("say that nothing is to be done when nothing is", function()
    assert.is_nil(loop.timeout())
    assert.is_false(readable(0))
    assert.is_false(loop.step())
  end)

  it("run a task to its end, with sleeps of its own", function()
    local steps = 0
    local task = async.spawn(function()
      for _ = 1, 3 do
        async.sleep(3)
        steps = steps + 1
      end
    end)
    assert.are.equal(0, loop.timeout())
    assert.is_true(readable(0))
    local waits = 0
    while task.status == "running" do
      assert.is_true(readable(1000), "the descriptor stayed quiet")
      loop.step(0)
      waits = waits + 1
      assert.is_true(waits < 50, "the descriptor is readable without a cause")
    end
    assert.are.equal(3, steps)
    assert.is_nil(loop.timeout())
    assert.is_false(readable(0))
  end)

  it("keep the descriptor readable while there is more", function()
    local function busy()
      async.defer(busy)
    end
    busy()
    for _ = 1, 5 do
      assert.is_true(readable(0))
      assert.is_true(loop.step(0))
    end
  end)

  it("know how long it is until the next timer", function()
    local timer = async.at(async.now() + 500, function() end)
    local ms = loop.timeout()
    assert.is_true(ms > 300 and ms <= 501, tostring(ms))
    timer:cancel()
    loop.step(0)
    assert.is_nil(loop.timeout())
  end)

  it("let step wait itself, at most as long as it was told", function()
    local started = async.now()
    loop.step(15)
    local took = async.now() - started
    assert.is_true(took >= 14 and took < 500, took .. " ms")
    async.spawn(function() end)
    started = async.now()
    loop.step(5000)
    assert.is_true(async.now() - started < 1000)
  end)

  it("know what a call that blocked left to do", function()
    local function busy()
      async.defer(busy)
    end
    async.at(async.now() + 5, busy)
    async.sleep(5)
    assert.are.equal(0, loop.timeout())
    assert.is_true(readable(0))
  end)

  it("and a call that blocks may take turns", function()
    local task = async.spawn(function()
      async.sleep(5)
      return "done"
    end)
    loop.step(0)
    async.sleep(1)
    loop.step(0)
    assert.are.equal("done", task:await())
  end)
end)

describe("the choice of the loop", function()
  after_each(function()
    async.close()
  end)

  it("takes a table of four functions", function()
    local calls = {}
    loop.use {
      wait = function(done)
        calls.wait = (calls.wait or 0) + 1
        while not done() do
          loop.step(100)
        end
      end,
      breathe = function() loop.step(0) end,
      touch = function() calls.touch = (calls.touch or 0) + 1 end,
      stop = function() calls.stop = (calls.stop or 0) + 1 end,
    }
    assert.are.equal(7, async.run(function()
      async.sleep(2)
      return 7
    end))
    assert.is_true(calls.wait > 0 and calls.touch > 0)
    assert.is_nil(calls.stop)
    loop.use "poll"
    assert.are.equal(1, calls.stop)
    local waits = calls.wait
    async.sleep(1)
    assert.are.equal(waits, calls.wait)
  end)

  it("says what is wrong with another", function()
    for _, case in ipairs {
      { "libevent", 'no event loop "libevent"' }, { nil, "no event loop nil" },
      { {}, "needs the function wait" },
    } do
      local ok, err = pcall(loop.use, case[1])
      assert.is_false(ok)
      assert.is_true(errors.is(err, "usage"))
      assert.matches(case[2], tostring(err), 1, true)
    end
  end)
end)
