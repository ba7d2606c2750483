-- The rules of doc/concurrency.md that need a server; the others are in spec/async/rules_spec.lua.
local async = require "lbox.async"
local fault = require "spec.support.fault"
local lbox = require "lbox"

local ROUTES = [[
local async = require "lbox.async"
local going_on, most_at_once, window, passed = 0, 0, 0, 0

routes["POST /v2/box/b/run/stream"] = function(reply, request)
  going_on = going_on + 1
  reply:sleep(request.body:find("late") and 300 or 0)
  reply:begin()
  reply:event("run_start", { run_id = "r" })
  if request.body:find("costs") then
    going_on = going_on - 1
    reply:event("done", { output = "ok", total_cost_usd = 1 })
    return reply:finish()
  end
  reply:hold()
end
routes["POST /v2/box/b/runs/r/cancel"] = function(reply)
  going_on = going_on - 1
  reply:json(200, {})
end
routes["GET /v2/box/b/status"] = function(reply)
  reply:json(200, { status = tostring(going_on) })
end
routes["POST /v2/box"] = function(reply, request)
  local now = async.now()
  if now - window >= 100 then
    window, passed = now, 0
  end
  passed = passed + 1
  if passed > 3 then
    return reply:json(429, {}, { ["Retry-After"] = "0.1" })
  end
  reply:json(200, { id = "b" .. request.count, status = "idle" })
end
]]

describe("rule", function()
  local server, box

  before_each(function()
    server = fault.start(ROUTES)
    box = server:box("b")
  end)

  after_each(function()
    server:stop()
    async.close()
  end)

  --- How many runs go on at the server.
  local function going_on()
    return tonumber(box:get_status().status)
  end

  local function run(prompt, budget)
    return box.agent:run { prompt = prompt, budget = budget }
  end

  it("27: a cancel reaches the server, answered or not", function()
    for _, prompt in ipairs { "x", "late" } do
      assert.are.equal("timeout", fault.raised(lbox.timeout, 50, run, prompt).kind)
      assert.are.equal(0, going_on())
    end
  end)

  it("28: a call that ends at its timeout is cleaned up beside its caller, before the scope is left", function()
    local began, returned = lbox.now(), nil
    lbox.scope(function()
      local err = fault.raised(box.agent.run, box.agent, { prompt = "late", timeout = 30 })
      assert.are.equal("timeout", err.kind)
      returned = lbox.now() - began
    end)
    assert.is_true(returned < 250, returned)
    assert.are.equal(0, going_on())
  end)

  it("29: a spent budget stops every run that carries it", function()
    local budget = lbox.budget { usd = 1 }
    local _, failures = lbox.map({ "x", "x", "costs" }, function(prompt)
      run(prompt)
    end, { budget = budget, on_error = "collect" })
    assert.are.same({ "budget", "budget" }, { failures[1].kind, failures[2].kind })
    assert.are.equal(0, going_on())
    assert.are.equal("budget", fault.raised(run, "costs", budget).kind)
  end)

  it("30: a map that is refused slows down as a whole and fails no item", function()
    local list = {}
    for i = 1, 30 do
      list[i] = i
    end
    local boxes = lbox.map(list, function()
      return lbox.Box.create(server:options())
    end, { concurrency = 30 })
    for i = 1, 30 do
      assert.truthy(boxes[i])
    end
    -- One by one, each four times: 30 + 27 + 24 + 21, and 18 items would fail.
    assert.is_true(#server:log("POST /v2/box") < 90)
  end)
end)
