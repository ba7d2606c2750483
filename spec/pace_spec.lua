-- A fan-out against servers that limit the rate of requests.
local async = require "lbox.async"
local fault = require "spec.support.fault"
local lbox = require "lbox"

-- `limit` requests are let through in each window of 200 ms, the others are told to come back.
local ROUTES = [[
local async = require "lbox.async"
local limit, window, passed = 8, 0, 0

local function may_pass(reply)
  local now = async.now()
  if now - window >= 200 then
    window, passed = now, 0
  end
  passed = passed + 1
  if passed > limit then
    reply:json(429, { error = "too many requests" }, { ["Retry-After"] = "0.2" })
    return false
  end
  return true
end

routes["POST /v2/box"] = function(reply, request)
  if may_pass(reply) then
    reply:json(200, { id = "b" .. request.count, status = "idle" })
  end
end
routes["POST /v2/box/b/run/stream"] = function(reply, request)
  if may_pass(reply) then
    reply:begin()
    reply:event("run_start", { run_id = "r" .. request.count })
    reply:sleep(30)
    reply:event("done", { output = "ok" })
    reply:finish()
  end
end
routes["POST /v2/box/unlucky/run/stream"] = function(reply, request)
  if request.count <= 5 then
    return reply:json(429, { error = "too many requests" }, { ["Retry-After"] = "0" })
  end
  reply:begin()
  reply:event("done", { output = "ok" })
  reply:finish()
end
routes["POST /unlimited"] = function(reply)
  limit = math.huge
  reply:json(200, {})
end
routes["POST /v2/box/never/run/stream"] = function(reply)
  reply:json(429, { error = "too many requests" }, { ["Retry-After"] = "0.05" })
end
routes["POST /v2/box/tomorrow/run/stream"] = function(reply)
  reply:json(429, { error = "too many requests" }, { ["Retry-After"] = "86400" })
end
]]

describe("a fan-out", function()
  local server

  before_each(function()
    server = fault.start(ROUTES)
  end)

  after_each(function()
    server:stop()
    assert.is_true(async.idle())
  end)

  local function numbers(n)
    local list = {}
    for i = 1, n do
      list[i] = i
    end
    return list
  end

  it("slows down when the server refuses, and fails no item", function()
    local ids = {}
    lbox.map(numbers(60), function()
      ids[lbox.Box.create(server:options()).id] = true
    end, { concurrency = 60 })
    local n, asked = 0, #server:log("POST /v2/box")
    for _ in pairs(ids) do
      n = n + 1
    end
    assert.are.equal(60, n)
    -- One by one each of 60 would have been refused again and again: 60 + 52 + 44 + …
    assert.is_true(asked < 160, asked .. " requests")
  end)

  it("of agent runs slows down as well, and the runs go on side by side", function()
    local results = lbox.map(numbers(30), function()
      return server:box("b").agent:run({ prompt = "x" }).result
    end, { concurrency = 30 })
    for i = 1, 30 do
      assert.are.equal("ok", results[i])
    end
    assert.is_true(#server:log("POST /v2/box/b/run/stream") < 70)
  end)

  it("takes no tries from who is refused while others get through", function()
    lbox.map(numbers(25), function(i)
      if i == 1 then
        assert.are.equal("ok", server:box("unlucky").agent:run({ prompt = "x" }).result)
      else
        lbox.sleep(10)
        lbox.Box.get("b", server:options())
      end
    end, { concurrency = 4 })
    assert.are.equal(6, #server:log("POST /v2/box/unlucky/run/stream"))
  end)

  it("becomes faster again", function()
    local times = {}
    lbox.map(numbers(200), function(i)
      if i == 40 then
        local transfer = require("lbox.http").send { method = "POST", url = server.url .. "/unlimited" }
        transfer:wait(function(req) return req:done() end)
      end
      lbox.Box.create(server:options())
      times[#times + 1] = async.now()
    end, { concurrency = 20 })
    local slow, fast = times[40] - times[20], times[200] - times[180]
    assert.is_true(fast < slow / 2, ("%.0f ms, then %.0f ms"):format(slow, fast))
  end)

  it("gives up against a server that lets nobody through", function()
    local began = async.now()
    local _, failures = lbox.map(numbers(3), function()
      return server:box("never").agent:run { prompt = "x" }
    end, { on_error = "collect" })
    for i = 1, 3 do
      assert.are.equal(429, failures[i].status_code)
      assert.is_true(failures[i].retryable)
    end
    assert.is_true(async.now() - began < 30000)
  end)

  it("does not wait until tomorrow", function()
    local err = fault.raised(lbox.map, { 1 }, function()
      server:box("tomorrow").agent:run { prompt = "x" }
    end)
    assert.are.equal(429, err.status_code)
    assert.are.equal(1, #server:log("POST /v2/box/tomorrow/run/stream"))
  end)

  it("keeps the deadline of a request that waits for its turn", function()
    local began = async.now()
    local _, failures = lbox.map(numbers(40), function()
      lbox.Box.create(server:options { timeout = 500 })
    end, { concurrency = 40, on_error = "collect" })
    assert.is_true(async.now() - began < 1500)
    local n = 0
    for _, err in pairs(failures) do
      n = n + 1
      assert.is_true(err.status_code == 429 or err.kind == "timeout", tostring(err))
    end
    assert.is_true(n > 0)
  end)

  it("that is cancelled leaves nothing behind, and its clean-up does not wait its turn", function()
    local began = async.now()
    local err = fault.raised(lbox.timeout, 300, lbox.map, numbers(60), function()
      lbox.Box.create(server:options())
    end, { concurrency = 60 })
    assert.are.equal("timeout", err.kind)
    assert.is_true(async.now() - began < 1000)
  end)
end)
