local async = require "lbox.async"
local raised = require "spec.support.raised"

after_each(function()
  assert.are.equal(0, async.pending())
  async.close()
end)

describe("a channel", function()
  it("gives every value to one receiver, in the order they were sent", function()
    local channel, got = async.channel(2), {}
    async.scope(function(scope)
      for _ = 1, 3 do
        scope:spawn(function()
          for value in channel:values() do
            got[#got + 1] = value
            async.sleep(1)
          end
        end)
      end
      for i = 1, 50 do
        channel:send(i)
      end
      channel:close()
    end)
    for i = 1, 50 do
      assert.are.equal(i, got[i])
    end
  end)

  it("without a capacity holds its sender until the value is received", function()
    local channel, steps = async.channel(), {}
    async.scope(function(scope)
      scope:spawn(function()
        channel:send(false)
        steps[#steps + 1] = "sent"
      end)
      async.sleep(5)
      steps[#steps + 1] = "receiving"
      assert.is_false(channel:receive())
    end)
    assert.are.same({ "receiving", "sent" }, steps)
  end)

  it("holds a sender while it is full, and not beyond", function()
    local channel, sent = async.channel(2), 0
    async.scope(function(scope)
      scope:spawn(function()
        for i = 1, 4 do
          channel:send(i)
          sent = i
        end
      end)
      async.sleep(5)
      assert.are.equal(2, sent)
      assert.are.equal(1, channel:receive())
      async.sleep(5)
      assert.are.equal(3, sent)
      for i = 2, 4 do
        assert.are.equal(i, channel:receive())
      end
    end)
    local endless = async.channel(math.huge)
    for i = 1, 10000 do
      endless:send(i)
    end
    assert.are.equal(1, endless:receive())
  end)

  it("that is closed gives what is left, then nil, and takes nothing", function()
    local channel = async.channel(3)
    channel:send("a")
    channel:send("b")
    channel:close()
    channel:close()
    assert.are.equal("a", channel:receive())
    assert.are.equal("b", channel:receive())
    assert.is_nil(channel:receive())
    assert.is_nil(channel:receive())
    assert.matches("closed", raised("usage", channel.send, channel, 1).message)
  end)

  it("that is closed ends whoever waits", function()
    local full, empty = async.channel(), async.channel()
    async.scope(function(scope)
      scope:spawn(function()
        assert.matches("closed", raised("usage", full.send, full, 1).message)
      end)
      scope:spawn(function()
        assert.is_nil(empty:receive())
      end)
      async.sleep(5)
      full:close()
      empty:close()
    end)
  end)

  it("forgets who was cancelled: no value is lost on them, and none of theirs arrives", function()
    local channel = async.channel()
    async.scope(function(scope)
      for _ = 1, 3 do
        raised("timeout", async.timeout, 2, channel.receive, channel)
      end
      for i = 1, 3 do
        raised("timeout", async.timeout, 2, channel.send, channel, "never " .. i)
      end
      scope:spawn(channel.send, channel, "kept")
      assert.are.equal("kept", channel:receive())
      assert.is_false(channel.senders.first)
      assert.is_false(channel.receivers.first)
    end)
  end)

  it("loses no value to a receiver that is cancelled in the same moment", function()
    local channel, got = async.channel(), {}
    async.scope(function(scope)
      local receiver = scope:spawn(function()
        pcall(function() got[#got + 1] = channel:receive() end)
      end)
      async.sleep(2)
      receiver:cancel()
      scope:spawn(channel.send, channel, "value")
      async.sleep(2)
      if not got[1] then
        got[1] = channel:receive()
      end
    end)
    assert.are.same({ "value" }, got)
  end)

  it("is used outside of tasks too", function()
    local channel = async.channel()
    local task = async.spawn(function()
      channel:send("from a task")
      return channel:receive()
    end)
    assert.are.equal("from a task", channel:receive())
    channel:send("from outside")
    assert.are.equal("from outside", task:await())
  end)

  it("says what cannot be sent and what is no capacity", function()
    assert.matches("nil cannot be sent", raised("usage", function() async.channel(1):send(nil) end).message)
    for _, wrong in ipairs { -1, 0.5, "2", 0 / 0 } do
      raised("usage", async.channel, wrong)
    end
  end)

  it("that nobody sends to is a deadlock, not a hang", function()
    assert.matches("nothing is left to wait for", raised("usage", function() async.channel():receive() end).message)
  end)
end)
