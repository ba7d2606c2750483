local async = require "lbox.async"
local core = require "lbox.core"
local errors = require "lbox.errors"

-- A second engine's descriptor stands for any: readable while it is awake, and never writable.
describe("a watched descriptor", function()
  local other, watch

  before_each(function()
    other = core.engine()
    watch = async.fd(other:pollfd())
  end)

  after_each(function()
    watch:close()
    watch:close()
    assert.are.equal(0, async.pending())
    assert.is_true(async.idle())
    async.close()
    other:close()
  end)

  it("wakes the task that waits to read once it can", function()
    async.run(function()
      async.at(async.now() + 10, function() other:wake(true) end)
      local started = async.now()
      watch:wait("r")
      assert.is_true(async.now() - started >= 9)
      watch:wait("rw") -- still readable
      other:wake(false)
      local ok, err = pcall(async.timeout, 10, watch.wait, watch, "r")
      assert.is_false(ok)
      assert.is_true(errors.is(err, "timeout"))
      assert.is_true(async.idle())
      other:wake(true)
      watch:wait("r") -- a cancelled wait does not get in the way of the next
    end)
  end)

  it("serves one to read and one to write at a time, and no more", function()
    async.run(function()
      local reader = async.spawn(watch.wait, watch, "r")
      local writer = async.spawn(watch.wait, watch, "w")
      async.sleep(1)
      local ok, err = pcall(watch.wait, watch, "r")
      assert.is_false(ok)
      assert.is_true(errors.is(err, "usage"))
      other:wake(true)
      reader:await()
      assert.are.equal("running", writer.status)
      writer:cancel()
    end)
  end)

  it("raises in who waits when the watch is closed, and afterwards", function()
    local ok, err = pcall(async.scope, function(scope)
      scope:spawn(watch.wait, watch, "r")
      async.sleep(1)
      watch:close()
    end)
    assert.is_false(ok)
    assert.matches("was closed", tostring(err))
    assert.is_false(pcall(watch.wait, watch, "r"))
  end)

  it("refuses other modes", function()
    local ok, err = pcall(watch.wait, watch, "x")
    assert.is_false(ok)
    assert.is_true(errors.is(err, "usage"))
  end)
end)
