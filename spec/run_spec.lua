local fault = require "spec.support.fault"
local lbox = require "lbox"

local ROUTES = [[
routes["POST /v2/box/wide/run/stream"] = function(reply)
  reply:begin()
  reply:event("run_start", { run_id = "r1" })
  reply:event("done", { output = " a" .. (" "):rep(1000000) .. "b " })
  reply:finish()
end
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
routes["GET /v2/box/b/logs"] = function(reply)
  reply:json(200, { logs = { { timestamp = 1, level = "info", message = "before" },
    { timestamp = os.time() + 60, level = "info", message = "during" } } })
end
routes["GET /v2/box/lost/runs"] = function(reply) reply:json(200, { runs = {} }) end
routes["POST /v2/box/slow/run/stream"] = routes["POST /v2/box/b/run/stream"]
routes["GET /v2/box/slow/runs"] = function(reply)
  reply:json(200, { runs = { { id = "r1", status = "running" } } })
end
routes["POST /v2/box/mute/run/stream"] = routes["POST /v2/box/b/run/stream"]
routes["POST /v2/box/mute/runs/r1/cancel"] = function(reply) reply:hold() end
routes["POST /v2/box/hook/run"] = function(reply) reply:json(200, { status = "accepted", run_id = "r7" }) end
routes["GET /v2/box/hook/runs"] = function(reply, request)
  local over = request.count > 2
  reply:json(200, { runs = { { id = "r8", type = "shell", status = "failed", output = "no\n", created_at = 50 },
    { id = "r7", type = "agent", status = over and "completed" or "running", output = over and " well " or nil,
      input_tokens = 3, cost_usd = 0.5, created_at = 40 } } })
end
routes["POST /v2/box/odd/run"] = routes["POST /v2/box/hook/run"]
routes["GET /v2/box/odd/runs"] = function(reply, request)
  local status = request.count > 2 and "running" or nil
  reply:json(200, { runs = { { id = "r7", status = status, output = { request.count } } } })
end
routes["GET /v2/box/hook/logs"] = function(reply)
  reply:json(200, { logs = { { timestamp = 49, level = "info", source = "agent", message = "before" },
    { timestamp = 50, level = "warn", source = "agent", message = "during" } } })
end
routes["POST /v2/box/hook/runs/r7/cancel"] = function(reply) reply:json(200, {}) end
routes["POST /v2/box/silent/run"] = function(reply) reply:json(200, { status = "accepted" }) end
routes["POST /v2/box/late/run"] = function(reply)
  reply:sleep(1000)
  reply:json(200, { status = "accepted", run_id = "r9" })
end
routes["POST /v2/box/late/runs/r9/cancel"] = function(reply) reply:json(200, {}) end
routes["POST /v2/box/leaky/run"] = function(reply) reply:json(400, { error = "bad header hook-s3cret" }) end
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

  it("keeps its result as it was between white space, at once however much of it there is", function()
    local run = server:box("wide").agent:run { prompt = "x", timeout = 5000 }
    assert.are.equal("a" .. (" "):rep(1000000) .. "b", run.result)
  end)

  it("with a webhook is not waited for, and comes back when asked for", function()
    local box = server:box("hook")
    local run = box.agent:run {
      prompt = "x", options = { max_turns = 1 }, response_schema = { a = "string" },
      webhook = { url = "https://example.com", headers = { A = "b" } },
    }
    assert.are.same({ "r7", "running", "" }, { run.id, run.status, run.result })
    local sent = server:sent("POST /v2/box/hook/run").json
    assert.are.same({ url = "https://example.com", headers = { A = "b" } }, sent.webhook)
    assert.are.same({ "x", "object" }, { sent.prompt, sent.json_schema.type })
    run:wait()
    assert.are.same({ "completed", "well", 0.5 }, { run.status, run.result, run.cost.total_usd })
    run = box:get_run("r7")
    assert.are.same({ "r7", "agent", "completed", "well" }, { run.id, run.type, run.status, run.result })
    assert.is_true(run:cancel())
    assert.are.equal("completed", run.status)
  end)

  it("of a command comes back as the server has it, with what the box logged since", function()
    local run = server:box("hook"):get_run("r8")
    assert.are.same({ "command", "failed", "no\n" }, { run.type, run.status, run.result })
    assert.are.same({ { timestamp = "1970-01-01T00:00:50.000Z", level = "warn", message = "during" } }, run:logs())
    local err = fault.raised(function() server:box("hook"):get_run("r0") end)
    assert.are.same({ "api", "run r0 is not in the list of box hook" }, { err.kind, err.message })
    assert.are.equal("usage", fault.raised(function() server:box("hook"):get_run("") end).kind)
  end)

  it("tells what the box logged also while it is read", function()
    local stream = started("b")
    local logs = stream:logs()
    assert.are.same({ 1, "during" }, { #logs, logs[1].message })
    stream:close()
  end)

  it("whose server says nothing that makes sense of it is no run that is over", function()
    local run = server:box("odd", { timeout = 600 }).agent:run { prompt = "x", webhook = { url = "https://e" } }
    local began = lbox.now()
    local err = fault.raised(run.wait, run)
    assert.are.equal("stream", err.kind)
    assert.are.equal("running", run.status)
    assert.is_true(lbox.now() - began < 5000)
  end)

  it("with a webhook refuses what goes with waiting, and tells no secret", function()
    local box = server:box("hook")
    for _, name in ipairs { "timeout", "max_retries", "idle_timeout" } do
      local err = fault.raised(function()
        box.agent:run { prompt = "x", webhook = { url = "https://e" }, [name] = 1 }
      end)
      assert.is_truthy(err.message:find("with webhook does not take " .. name, 1, true), err.message)
    end
    assert.are.equal("usage", fault.raised(function() box.agent:run { prompt = "x", webhook = {} } end).kind)
    local hooked = { prompt = "x", webhook = { url = "https://e" } }
    assert.are.equal("usage", fault.raised(function() box.agent:stream(hooked) end).kind)
    assert.are.equal("api", fault.raised(function() server:box("silent").agent:run(hooked) end).kind)
    local err = fault.raised(function()
      server:box("leaky").agent:run { prompt = "x", webhook = { url = "https://e", headers = { A = "hook-s3cret" } } }
    end)
    assert.is_nil(tostring(err):find("s3cret", 1, true), tostring(err))
  end)

  it("with a webhook is cancelled with its starter, and counts in budgets", function()
    -- Long enough for the request to leave also on a busy machine, and too short for the answer.
    local err = fault.raised(lbox.timeout, 500, function()
      server:box("late").agent:run { prompt = "x", webhook = { url = "https://e" } }
    end)
    assert.are.equal("timeout", err.kind)
    local give_up = lbox.now() + 5000
    while #server:log "POST /v2/box/late/runs/r9/cancel" == 0 and lbox.now() < give_up do
      lbox.sleep(20)
    end
    assert.are.equal(1, #server:log "POST /v2/box/late/runs/r9/cancel")
    local budget = lbox.budget { runs = 1 }
    server:box("hook").agent:run { prompt = "x", webhook = { url = "https://e" }, budget = budget }
    assert.are.equal("r7", budget:report().list[1].run_id)
    assert.are.equal("budget", fault.raised(function()
      server:box("hook").agent:run { prompt = "x", webhook = { url = "https://e" }, budget = budget }
    end).kind)
  end)

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
