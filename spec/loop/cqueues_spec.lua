-- On a controller of cqueues.
local async = require "lbox.async"
local cqueues = require "cqueues"
local lbox = require "lbox"
local replay = require "spec.support.replay"

describe("on a cqueues controller", function()
  local controller, reported

  before_each(function()
    controller, reported = cqueues.new(), {}
    async.on_error(function(text) reported[#reported + 1] = text end)
  end)

  after_each(function()
    async.on_error(nil)
    async.close()
    assert.are.same({}, reported)
  end)

  --- Runs `fn` in a coroutine of the controller that lbox rides on, and the controller to its end.
  local function run(fn)
    local ended = false
    controller:wrap(function()
      lbox.loop.use "cqueues"
      fn()
      ended = true
    end)
    assert(controller:loop(20))
    assert.is_true(ended)
    assert.are.equal(0, controller:count())
  end

  --- Counts in another coroutine, for 5 ms each.
  local function count_to(n)
    local counted = { n = 0 }
    controller:wrap(function()
      for i = 1, n do
        cqueues.sleep(0.005)
        counted.n = i
      end
    end)
    return counted
  end

  it("a call in one of its coroutines lets the others go on", function()
    local counted = count_to(5)
    local order = {}
    run(function()
      for i = 1, 3 do
        controller:wrap(function()
          lbox.sleep(40 - 10 * i)
          order[#order + 1] = i
        end)
      end
      lbox.sleep(60)
    end)
    assert.are.equal(5, counted.n)
    assert.are.same({ 3, 2, 1 }, order)
  end)

  it("tasks run beside its coroutines, which may await them", function()
    local counted = count_to(4)
    run(function()
      local task = lbox.spawn(function()
        lbox.sleep(40)
        return "done", counted.n
      end)
      local text, n = task:await()
      assert.are.equal("done", text)
      assert.is_true(n >= 1)
      assert.are.same({ 1, 2 }, { lbox.gather(function() return 1 end, function() lbox.sleep(5) return 2 end) })
      local ok, err = pcall(lbox.timeout, 5, lbox.sleep, 1000)
      assert.is_false(ok)
      assert.are.equal("timeout", err.kind)
    end)
  end)

  it("streams are read side by side in more coroutines than could turn the loop inside each other", function()
    local server = replay.start(1000)
    local read = 0
    run(function()
      local box = lbox.Box.get("replay", { base_url = server.url, api_key = "box_replay" })
      for _ = 1, 50 do
        controller:wrap(function()
          for chunk in box.agent:stream({ prompt = "x" }):chunks() do
            read = read + (chunk.type == "text-delta" and 1 or 0)
          end
        end)
      end
    end)
    server:stop()
    assert.are.equal(50000, read)
  end)

  it("a call outside of it runs it meanwhile", function()
    local counted = count_to(5)
    require("lbox.loop.cqueues").attach(controller)
    local give_up_at = lbox.now() + 5000
    while counted.n < 5 and lbox.now() < give_up_at do
      lbox.sleep(10)
    end
    assert.are.equal(5, counted.n)
    assert(controller:loop(5))
  end)

  it("needs one that runs", function()
    local ok, err = pcall(lbox.loop.use, "cqueues")
    assert.is_false(ok)
    assert.are.equal("no controller of cqueues is running: call lbox.loop.use inside of it", err.message)
  end)
end)
