-- Budgets shared by agent runs, against a server whose runs cost what their prompt says.
local async = require "lbox.async"
local fault = require "spec.support.fault"
local json = require "lbox.json"
local lbox = require "lbox"
local raised = require "spec.support.raised"

local ROUTES = [[
local function asked(request, name)
  return tonumber(request.body:match(name .. "=([%d.]+)"))
end

local function run(reply, request)
  local status = asked(request, "status")
  if status and (request.count == 1 or status ~= 429) then
    return reply:json(status, { error = "no" }, { ["Retry-After"] = status == 429 and "0.3" or nil })
  end
  reply:sleep(asked(request, "late") or 0)
  reply:begin()
  reply:event("run_start", { run_id = "run_" .. request.count })
  reply:event("text", { text = "so far" })
  if request.body:find("forever") then
    return reply:hold()
  end
  reply:sleep(asked(request, "ms") or 0)
  if request.body:find("cut") then
    return reply:cut()
  elseif request.body:find("silent") then
    reply:event("done", { output = "ok" })
    return reply:finish()
  end
  reply:event(request.body:find("fails") and "error" or "done", {
    output = "ok", error = "failed", input_tokens = asked(request, "tokens"), output_tokens = 1,
    total_cost_usd = asked(request, "usd"),
  })
  reply:finish()
end
for _, box in ipairs { "custom", "claude" } do
  routes["POST /v2/box/" .. box .. "/run/stream"] = run
  for i = 1, 9 do
    routes["POST /v2/box/" .. box .. "/runs/run_" .. i .. "/cancel"] = function(reply)
      reply:json(200, {})
    end
  end
end
routes["GET /v2/box/custom/runs"] = function(reply, request)
  reply:json(200, { runs = { { id = "run_1", status = "running", output_tokens = request.count } } })
end
routes["GET /v2/box/claude"] = function(reply)
  reply:json(200, { id = "claude", status = "idle", agent = "claude-code", model = "m" })
end
]]

describe("a budget", function()
  local server, agent

  before_each(function()
    server = fault.start(ROUTES)
    agent = server:box("custom").agent
  end)

  after_each(function()
    server:stop()
    assert.is_true(async.idle())
  end)

  local function run(prompt, budget)
    return agent:run { prompt = prompt, budget = budget }
  end

  local function cancels()
    local n = 0
    for _, request in ipairs(server:log()) do
      n = n + (request.name:find("/cancel$") and 1 or 0)
    end
    return n
  end

  --- Waits until the server was told to cancel so many runs.
  local function await_cancels(n)
    for _ = 1, 100 do
      if cancels() >= n then
        break
      end
      lbox.sleep(10)
    end
    assert.are.equal(n, cancels())
  end

  local function runs_started()
    return #server:log("POST /v2/box/custom/run/stream")
  end

  it("counts what runs cost and starts none when nothing is left", function()
    local budget = lbox.budget { usd = 1 }
    run("usd=0.4 tokens=10", budget)
    run("usd=0.6 tokens=10", budget)
    local err = raised("budget", run, "usd=0.1", budget)
    assert.are.equal("the budget is spent: $1.00 of $1.00", err.message)
    assert.are.equal("custom", err.box_id)
    assert.are.equal(2, runs_started())
    raised("budget", budget.check, budget)
  end)

  it("counts tokens in and out", function()
    local budget = lbox.budget { tokens = 200 }
    run("tokens=150", budget)
    run("tokens=60", budget)
    local err = raised("budget", run, "tokens=1", budget)
    assert.are.equal("the budget is spent: 212 of 200 tokens", err.message)
  end)

  it("counts failed runs and each try of one", function()
    local budget = lbox.budget { runs = 2 }
    local err = raised("budget", agent.run, agent,
      { prompt = "fails usd=0.5", max_retries = 5, budget = budget })
    assert.are.equal("the budget is spent: 2 of 2 runs", err.message)
    assert.are.equal(1, budget:report().usd)
    assert.are.equal(2, runs_started())
  end)

  it("does not count a run that the server refused", function()
    local budget = lbox.budget { runs = 1 }
    raised("api", run, "status=400", budget)
    raised("usage", agent.run, agent, { prompt = "x", budget = budget, extra = { a = print } })
    assert.are.same({}, budget:report().list)
    run("usd=1", budget)
  end)

  it("counts a run of which nobody knows whether it was started", function()
    local budget = lbox.budget { runs = 1 }
    local err = raised("budget", agent.run, agent, { prompt = "status=504", max_retries = 1, budget = budget })
    assert.are.equal("the budget is spent: 1 of 1 runs", err.message)
    assert.are.equal(1, runs_started())
    assert.are.equal(1, budget:report().unknown)
  end)

  it("is looked at again before a run that had to wait is started", function()
    local budget = lbox.budget { usd = 1 }
    local results, failures = lbox.map({ "status=429", "usd=1" }, function(prompt)
      return run(prompt, budget).result
    end, { on_error = "collect" })
    assert.are.equal("ok", results[2])
    assert.are.equal("budget", failures[1].kind)
    assert.are.equal(2, runs_started())
  end)

  it("ends the wait of a run that is still being opened", function()
    local began = async.now()
    local budget = lbox.budget { ms = 100 }
    local err = raised("budget", run, "late=1000 forever", budget)
    assert.matches("the run was not started$", err.message)
    assert.is_true(async.now() - began < 3000)
    assert.are.equal(1, cancels())
  end)

  it("ends the wait for a run whose stream was cut off", function()
    local budget = lbox.budget { ms = 300 }
    raised("budget", run, "cut", budget)
    assert.are.equal("cancelled", budget:report().list[1].status)
  end)

  it("says of whom no cost was told", function()
    local budget = lbox.budget { usd = 1 }
    run("silent about it", budget)
    local report = budget:report()
    assert.are.equal(1, report.unknown)
    assert.is_false(report.list[1].known)
  end)

  it("does not stop a run that has ended", function()
    local budget = lbox.budget { usd = 1 }
    lbox.run(function()
      local first = agent:stream { prompt = "usd=1", budget = budget }
      local second = agent:stream { prompt = "usd=1", budget = budget }
      lbox.sleep(100)
      while first:next() do end
      lbox.sleep(10)
      while second:next() do end
      assert.are.equal("completed", second.status)
    end)
    assert.are.equal(0, cancels())
    assert.are.equal(2, budget:report().usd)
  end)

  it("is spent after as many cents as it has", function()
    local budget = lbox.budget { usd = 1 }
    for _ = 1, 10 do
      run("usd=0.1", budget)
    end
    raised("budget", run, "usd=0.1", budget)
  end)

  it("without an end in dollars gives Claude Code no limit", function()
    local claude = server:box("claude").agent
    claude:run { prompt = "usd=1", budget = lbox.budget { usd = math.huge } }
    assert.is_nil(json.decode(server:log("POST /v2/box/claude/run/stream")[1].body).agent_options)
  end)

  it("cancels what was left behind also when the scope that made it is cancelled", function()
    lbox.scope(function(scope)
      local budget = lbox.budget { usd = 1 }
      local stream = agent:stream { prompt = "forever", budget = budget }
      stream:next()
      stream:close()
      lbox.shield(function()
        scope:cancel()
        run("usd=1", budget)
      end)
    end)
    assert.are.equal(1, cancels())
  end)

  it("cancels the runs under way when it is spent, here and at the server", function()
    local budget = lbox.budget { usd = 1 }
    local _, failures = lbox.map({ "usd=2 ms=50", "forever", "forever" }, function(prompt)
      return run(prompt, budget).result
    end, { on_error = "collect" })
    assert.is_nil(failures[1])
    for i = 2, 3 do
      assert.are.equal("budget", failures[i].kind)
      assert.are.equal("the budget is spent: $2.00 of $1.00; the run was cancelled", failures[i].message)
      assert.are.equal("so far", failures[i].partial)
      assert.truthy(failures[i].run_id:find("^run_"))
      assert.is_false(failures[i].retryable)
    end
    assert.are.equal(2, cancels())
  end)

  it("lets the last of the counted runs end", function()
    local budget = lbox.budget { runs = 2 }
    local results = lbox.map({ 1, 2 }, function()
      return run("ms=20", budget).result
    end)
    assert.are.same({ "ok", "ok", n = 2 }, results)
  end)

  it("cancels when its time is over, also what is still being opened", function()
    local budget = lbox.budget { ms = 100 }
    local began = async.now()
    local _, failures = lbox.map({ "forever", "late=200 forever" }, function(prompt)
      return run(prompt, budget)
    end, { on_error = "collect" })
    assert.truthy(failures[1].message:find("^the budget is spent: %d+ of 100 ms; the run was cancelled$"))
    assert.are.equal("budget", failures[2].kind)
    assert.is_true(async.now() - began < 2000)
    assert.are.equal(2, cancels())
  end)

  it("stops a stream that nobody reads, and the next read says so", function()
    local budget = lbox.budget { usd = 1 }
    lbox.run(function()
      local stream = agent:stream { prompt = "forever", budget = budget }
      run("usd=1", budget)
      await_cancels(1)
      raised("budget", stream.next, stream)
      raised("budget", stream.next, stream)
      assert.are.equal("cancelled", stream.status)
    end)
  end)

  it("stops a run that was left to go on alone", function()
    local budget = lbox.budget { usd = 1 }
    local stream = agent:stream { prompt = "forever", budget = budget }
    stream:next()
    stream:close()
    assert.are.equal("detached", budget:report().list[1].status)
    lbox.run(function()
      run("usd=1", budget)
      await_cancels(1)
    end)
    assert.are.equal("cancelled", budget:report().list[1].status)
  end)

  it("holds for every run in a map or a scope, together with those around it", function()
    local outer, inner = lbox.budget { runs = 10 }, lbox.budget { usd = 1 }
    lbox.scope(function()
      lbox.map({ "usd=0.25", "usd=0.25" }, function(prompt) run(prompt) end, { budget = inner })
      run("usd=5")
    end, { budget = outer })
    run("usd=7")
    assert.are.equal(5.5, outer:report().usd)
    assert.are.equal(0.5, inner:report().usd)
  end)

  it("lets no item of a map begin that it has nothing left for", function()
    local begun = {}
    local results, failures = lbox.map({ 1, 2, 3 }, function(i)
      begun[i] = true
      return run("usd=1").result
    end, { budget = lbox.budget { usd = 1 }, concurrency = 1, on_error = "collect" })
    assert.are.same({ true }, begun)
    assert.are.same({ "ok", n = 3 }, results)
    assert.are.equal("budget", failures[2].kind)
    assert.are.equal("budget", failures[3].kind)
  end)

  it("calls on_soft once, with the report, when most of it is spent", function()
    local reports = {}
    lbox.run(function()
      local budget = lbox.budget {
        usd = 10, soft = 0.5,
        on_soft = function(report) reports[#reports + 1] = report end,
      }
      run("usd=4.9", budget)
      lbox.sleep(0)
      assert.are.equal(0, #reports)
      run("usd=0.1", budget)
      run("usd=1", budget)
    end)
    assert.are.equal(1, #reports)
    assert.are.equal(5, reports[1].usd)
    assert.are.equal(5, reports[1].left.usd)
  end)

  it("calls on_soft when time alone has passed", function()
    local told
    local budget = lbox.budget { ms = 100, soft = 0.5, on_soft = function() told = async.now() end }
    local began = async.now()
    raised("budget", run, "forever", budget)
    assert.is_true(told - began >= 50 and async.now() - told >= 20)
  end)

  it("fails the scope it was made in when on_soft raises", function()
    local ok, err = pcall(lbox.run, function()
      run("usd=1", lbox.budget { usd = 1, on_soft = function() error("stop here", 0) end })
      lbox.sleep(1000)
    end)
    assert.is_false(ok)
    assert.are.equal("stop here", err)
  end)

  it("reports what each run spent, and of whom it is not known", function()
    local budget = lbox.budget { usd = 10, tokens = 1000 }
    run("usd=1 tokens=9", budget)
    pcall(run, "fails usd=2 tokens=9", budget)
    pcall(lbox.timeout, 50, run, "forever", budget)
    local report = budget:report()
    assert.are.same({ usd = 3, tokens = 20, runs = 3 },
      { usd = report.usd, tokens = report.tokens, runs = report.runs })
    assert.are.same({ usd = 7, tokens = 980 }, report.left)
    assert.are.same({ usd = 10, tokens = 1000 }, report.limits)
    assert.is_nil(report.spent)
    assert.are.equal(1, report.unknown)
    local statuses = {}
    for i, entry in ipairs(report.list) do
      assert.are.equal("run_" .. i, entry.run_id)
      assert.are.equal("custom", entry.box_id)
      statuses[i] = entry.status .. " " .. entry.usd .. " " .. tostring(entry.known)
    end
    assert.are.same({ "completed 1 true", "failed 2 true", "cancelled 0 false" }, statuses)
    assert.are.equal("$3.00 of $10.00, 20 of 1000 tokens", tostring(budget))
  end)

  it("hands what is left to Claude Code, which can stop itself", function()
    local claude = server:box("claude").agent
    local budget = lbox.budget { usd = 2 }
    local function cap(n, options)
      claude:run { prompt = "usd=0.5", budget = budget, options = options }
      local request = server:log("POST /v2/box/claude/run/stream")[n]
      return json.decode(request.body).agent_options
    end
    assert.are.same({ maxBudgetUsd = 2 }, cap(1))
    assert.are.same({ maxBudgetUsd = 1.5, maxTurns = 3 }, cap(2, { max_turns = 3 }))
    assert.are.same({ maxBudgetUsd = 0.25 }, cap(3, { max_budget_usd = 0.25 }))
    run("usd=0.1", budget)
    assert.is_nil(json.decode(server:log("POST /v2/box/custom/run/stream")[1].body).agent_options)
  end)

  it("refuses limits that are none", function()
    local function message(opts)
      return raised("usage", lbox.budget, opts).message
    end
    assert.are.equal("a budget needs a limit: usd, tokens, runs or ms", message {})
    assert.are.equal("a budget needs a limit: usd, tokens, runs or ms", message(nil))
    assert.are.equal("usd of a budget must be a number from 0 on, got -1", message { usd = -1 })
    assert.are.equal("runs of a budget must be a whole number, got 1.5", message { runs = 1.5 })
    assert.are.equal("soft of a budget must be above 0 and at most 1, got 2", message { usd = 1, soft = 2 })
    assert.are.equal('unknown option "token" (did you mean "tokens"?)', message { token = 1 })
    assert.are.equal("option budget of box.agent:run must be what lbox.budget returns, got a number",
      raised("usage", run, "x", 5).message)
  end)

  it("shows small amounts with their digits", function()
    local budget = lbox.budget { usd = 0.5 }
    run("usd=0.00123", budget)
    assert.are.equal("$0.0012 of $0.50", tostring(budget))
  end)

  it("of nothing starts nothing", function()
    raised("budget", run, "usd=1", lbox.budget { usd = 0 })
    assert.are.equal(0, runs_started())
  end)
end)
