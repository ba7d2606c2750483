local fault = require "spec.support.fault"
local lbox = require "lbox"

local ROUTES = [[
routes["POST /v2/box/b/run/stream"] = function(reply)
  reply:begin()
  reply:event("run_start", { run_id = "r1" })
  reply:event("text", { text = "so far" })
  reply:hold()
end
routes["POST /v2/box/done/run/stream"] = function(reply)
  reply:begin()
  reply:event("run_start", { run_id = "r1" })
  reply:event("done", { output = "done" })
  reply:finish()
end
routes["POST /v2/box/done/runs/r1/cancel"] = function(reply) reply:json(200, {}) end
routes["POST /v2/box/b/runs/r1/cancel"] = function(reply, request)
  if request.count == 1 then
    reply:json(200, {})
  else
    reply:json(409, { error = "already over" })
  end
end
routes["GET /v2/box/b/runs"] = function(reply, request)
  local over = request.count > 2
  reply:json(200, { runs = { { id = "r0" }, { id = "r1", status = over and "completed" or "running",
    output = over and " all \n" or nil, input_tokens = request.count, cost_usd = 2,
      duration_ms = 77 } } })
end
routes["POST /v2/box/lost/run/stream"] = routes["POST /v2/box/b/run/stream"]
routes["GET /v2/box/lost/runs"] = function(reply) reply:json(200, { runs = {} }) end
routes["POST /v2/box/slow/run/stream"] = routes["POST /v2/box/b/run/stream"]
routes["GET /v2/box/slow/runs"] = function(reply)
  reply:json(200, { runs = { { id = "r1", status = "running" } } })
end
routes["POST /v2/box/mute/run/stream"] = routes["POST /v2/box/b/run/stream"]
routes["POST /v2/box/mute/runs/r1/cancel"] = function(reply) reply:hold() end
routes["POST /v2/box/b/exec"] = function(reply) reply:json(200, { exit_code = 0, output = "" }) end
]]

describe("a run", function()
  local server

  setup(function()
    server = fault.start(ROUTES)
  end)

  teardown(function()
    server:stop()
  end)

  --- A run that is read up to its first text.
  local function started(id)
    local stream = server:box(id).agent:stream { prompt = "x" }
    stream:next()
    stream:next()
    return stream
  end

  it("is cancelled at the server, once confirmed, and later refusals do not raise", function()
    local stream = started("b")
    assert.is_true(stream:cancel())
    assert.are.equal("cancelled", stream.status)
    assert.are.equal("so far", stream.result)
    assert.is_false(stream:cancel())
    assert.are.equal("cancelled", stream.status)
  end)

  it("keeps its status when it is cancelled after its end", function()
    local run = server:box("done").agent:run { prompt = "x" }
    assert.is_true(run:cancel())
    assert.are.equal("completed", run.status)
    local stream = server:box("done").agent:stream { prompt = "x" }
    while stream:next() do end
    assert.is_true(stream:cancel())
    assert.are.equal("completed", stream.status)
  end)

  it("does not wait for ever for the answer to a cancel", function()
    local stream = started("mute")
    local began = lbox.now()
    assert.is_false(stream:cancel())
    assert.are.equal("cancelled", stream.status)
    assert.is_true(lbox.now() - began < 7000)
  end)

  it("of a command can be cancelled to no effect", function()
    local run = server:box("b").exec:command("x")
    assert.is_false(run:cancel())
    assert.are.equal("completed", run.status)
    assert.is_nil(run:wait())
  end)

  it("is waited for in the server's list after it was detached", function()
    local stream = started("b")
    stream:close()
    assert.are.equal("detached", stream.status)
    assert.is_nil(stream:wait())
    assert.are.equal("completed", stream.status)
    assert.are.equal("all", stream.result)
    assert.are.equal(2, stream.cost.total_usd)
    assert.are.equal(77, stream.cost.compute_ms)
  end)

  it("is waited for no longer than asked, and is not cancelled by that", function()
    local stream = started("slow")
    stream:close()
    local began = lbox.now()
    local err = fault.raised(stream.wait, stream, { timeout = 100 })
    assert.are.equal("timeout", err.kind)
    assert.are.equal("r1", err.run_id)
    assert.is_true(lbox.now() - began < 1000)
    assert.are.equal("detached", stream.status)
    assert.are.equal(0, #server:log("POST /v2/box/slow/runs/r1/cancel"))
  end)

  it("that the server's list does not have raises", function()
    local stream = started("lost")
    stream:close()
    local err = fault.raised(stream.wait, stream)
    assert.are.equal("stream", err.kind)
    assert.are.equal("lost", err.box_id)
  end)

  it("checks how it is waited for", function()
    local stream = started("b")
    assert.are.equal("usage", fault.raised(stream.wait, stream, { timeout = "x" }).kind)
    assert.are.equal("usage", fault.raised(stream.wait, stream, { tiemout = 1 }).kind)
    assert.matches("call it as stream:wait", fault.raised(stream.wait).message)
    stream:close()
  end)
end)
