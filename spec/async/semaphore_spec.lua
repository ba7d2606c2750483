local async = require "lbox.async"
local raised = require "spec.support.raised"

after_each(function()
  assert.are.equal(0, async.pending())
  async.close()
end)

describe("a semaphore", function()
  it("lets in as many as it has permits, first come first served", function()
    local semaphore, inside, most, order = async.semaphore(3), 0, 0, {}
    async.scope(function(scope)
      for i = 1, 12 do
        scope:spawn(function()
          semaphore:with(function()
            order[#order + 1] = i
            inside = inside + 1
            most = math.max(most, inside)
            async.sleep(2)
            inside = inside - 1
          end)
        end)
      end
    end)
    assert.are.equal(3, most)
    for i = 1, 12 do
      assert.are.equal(i, order[i])
    end
  end)

  it("gets its permit back on every way out, and hands on what was returned or raised", function()
    local semaphore = async.semaphore(1)
    assert.are.same({ 1, nil, 3 }, { semaphore:with(function(a) return a, nil, 3 end, 1) })
    local boom = {}
    local ok, err = pcall(semaphore.with, semaphore, function() error(boom) end)
    assert.is_false(ok)
    assert.are.equal(boom, err)
    raised("timeout", async.timeout, 5, semaphore.with, semaphore, async.sleep, 1000)
    semaphore:acquire()
    semaphore:release()
  end)

  it("gives no permit to somebody who was cancelled", function()
    local semaphore = async.semaphore(1)
    semaphore:acquire()
    raised("timeout", async.timeout, 5, semaphore.acquire, semaphore)
    semaphore:release()
    async.timeout(100, semaphore.acquire, semaphore)
    semaphore:release()
  end)

  it("says when it is misused", function()
    local semaphore = async.semaphore(2)
    assert.matches("more often than acquired", raised("usage", semaphore.release, semaphore).message)
    for _, wrong in ipairs { 0, -1, 1.5, "3" } do
      raised("usage", async.semaphore, wrong)
    end
  end)
end)

describe("an event", function()
  it("lets everybody who waits go on, and who comes later too, until it is cleared", function()
    local event, went = async.event(), 0
    async.scope(function(scope)
      for _ = 1, 5 do
        scope:spawn(function()
          event:wait()
          went = went + 1
        end)
      end
      async.sleep(5)
      assert.are.equal(0, went)
      assert.is_false(event:is_set())
      event:set()
      event:wait()
    end)
    assert.are.equal(5, went)
    assert.is_true(event:is_set())
    event:clear()
    raised("timeout", async.timeout, 5, event.wait, event)
    assert.is_false(event.waiters.first)
  end)

  it("is no way around a cancel", function()
    local event = async.event()
    event:set()
    async.scope(function(scope)
      scope:cancel()
      raised("cancelled", event.wait, event)
    end)
  end)
end)
