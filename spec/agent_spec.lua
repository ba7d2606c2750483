local async = require "lbox.async"
local fault = require "spec.support.fault"
local json = require "lbox.json"
local lbox = require "lbox"

local ROUTES = [[
local function run(events)
  return function(reply, request)
    reply:begin()
    for _, event in ipairs(events) do
      reply:event(event[1], event[2])
    end
    reply:finish()
  end
end
local START = { "run_start", { run_id = "run_1" } }

routes["POST /v2/box/ok/run/stream"] = run {
  START,
  { "text", { text = " he said " } },
  { "text", '{"text": "\\"hi\\" \\u00e9"}' },
  { "text", { text = "" } },
  { "thinking", { text = "hm" } },
  { "thinking", { text = "" } },
  { "tool", { toolCallId = "t1", name = "Bash", input = { command = "ls", n = 1 } } },
  { "tool", '{"tool_use_id":"t2","input":null}' },
  { "tool_result", { id = "t1", output = { "a", false } } },
  { "tool_result", '{"tool_call_id":"t2","output":null}' },
  { "news", { a = 1 } },
  { "number", "7" },
  { "text", "{broken" },
  { "text", "5" },
  { "done", '{"output":null,"input_tokens":3,"output_tokens":2,"total_cost_usd":0.00123,'
    .. '"session_id":"s1"}' },
  { "stats", { cpu_ns = 5, memory_peak_bytes = 6 } },
}
routes["POST /v2/box/output/run/stream"] = run {
  START, { "text", { text = "on the way" } }, { "done", { output = "\n the end \n" } },
}
routes["POST /v2/box/fails/run/stream"] = run {
  START, { "text", { text = "so far" } },
  { "error", { error = "out of tokens, key box_spec_0123456789abcdef", input_tokens = 7,
    total_cost_usd = 0.5 } },
}
routes["POST /v2/box/mute/run/stream"] = run { START, { "error", "not json" } }
routes["POST /v2/box/typed/run/stream"] = run {
  START, { "done", { output = '\n {"name":"x","score":3,"note":null} ' } },
}
routes["POST /v2/box/prose/run/stream"] = run {
  START, { "text", { text = "Sure! Here it is" } }, { "done", { input_tokens = 1 } },
}
routes["POST /v2/box/flaky/run/stream"] = function(reply, request)
  if request.count == 1 then
    run { START, { "error", { error = "not now", input_tokens = 10, total_cost_usd = 1 } } }(reply)
  else
    run { START, { "done", { output = "ok", input_tokens = 5, total_cost_usd = 0.5 } } }(reply)
  end
end
routes["POST /v2/box/refused/run/stream"] = function(reply)
  reply:json(400, { error = "no key" })
end
routes["POST /v2/box/silent/run/stream"] = function(reply)
  reply:begin()
  reply:event("run_start", { run_id = "run/1" })
  reply:event("text", { text = "so far" })
  reply:hold()
end
routes["POST /v2/box/silent/runs/run%2F1/cancel"] = function(reply) reply:json(200, {}) end
routes["POST /v2/box/busy/run/stream"] = function(reply)
  reply:begin()
  reply:event("run_start", { run_id = "r" })
  while reply:event("text", { text = "x" }) do
    reply:sleep(5)
  end
end
routes["POST /v2/box/busy/runs/r/cancel"] = function(reply) reply:json(200, {}) end
routes["POST /v2/box/unborn/run/stream"] = function(reply) reply:hold() end
routes["POST /v2/box/sluggish/run/stream"] = function(reply)
  reply:begin()
  reply:event("run_start", { run_id = "r" })
  reply:hold()
end
routes["POST /v2/box/sluggish/runs/r/cancel"] = function(reply)
  reply:sleep(500)
  reply:json(200, {})
end
routes["POST /v2/box/late/run/stream"] = function(reply)
  reply:sleep(150)
  reply:begin()
  reply:event("thinking", { text = "hm" })
  reply:sleep(150)
  reply:event("run_start", { run_id = "late" })
  reply:hold()
end
routes["POST /v2/box/late/runs/late/cancel"] = function(reply, request)
  reply:json(request.count > 3 and 500 or 200, {})
end
routes["GET /v2/box/agentless"] = function(reply)
  reply:json(200, { id = "agentless", status = "idle" })
end
routes["GET /v2/box/claude"] = function(reply)
  reply:json(200, { id = "claude", status = "idle", agent = "claude-code", model = "m" })
end
routes["POST /v2/box/claude/run/stream"] = run { START, { "done", {} } }
routes["GET /v2/box/codex"] = function(reply)
  reply:json(200, { id = "codex", status = "idle", agent = "codex", model = "m" })
end
routes["POST /v2/box/codex/run/stream"] = run { START, { "done", {} } }
]]

describe("agent", function()
  local server

  setup(function()
    server = fault.start(ROUTES)
  end)

  teardown(function()
    server:stop()
    async.close() -- runs that were cancelled outside of tasks are cleaned up beside
  end)

  local function agent(id)
    return server:box(id).agent
  end

  local function run(id, opts)
    opts = opts or {}
    opts.prompt = opts.prompt or "do it"
    return agent(id):run(opts)
  end

  local function refused(...)
    return fault.raised(run, ...)
  end

  local function sent(id)
    local log = server:log(("POST /v2/box/%s/run/stream"):format(id))
    return json.decode(log[#log].body)
  end

  it("streams every kind of event as a chunk", function()
    local stream = agent("ok"):stream { prompt = "do it" }
    local chunks = {}
    for chunk in stream:chunks() do
      chunks[#chunks + 1] = chunk
    end
    assert.are.same({
      { type = "start", run_id = "run_1" },
      { type = "text-delta", text = " he said " },
      { type = "text-delta", text = '"hi" é' },
      { type = "reasoning", text = "hm" },
      { type = "tool-call", tool_call_id = "t1", tool_name = "Bash",
        input = { command = "ls", n = 1 } },
      { type = "tool-call", tool_call_id = "t2", tool_name = "", input = {} },
      { type = "tool-result", tool_call_id = "t1", output = { "a", false } },
      { type = "tool-result", tool_call_id = "t2", output = lbox.null },
      { type = "unknown", event = "news", data = { a = 1 } },
      { type = "unknown", event = "number", data = 7 },
      { type = "finish", output = "", session_id = "s1",
        usage = { input_tokens = 3, output_tokens = 2, cached_input_tokens = 0 } },
      { type = "stats", cpu_ns = 5, memory_peak_bytes = 6 },
    }, chunks)
    assert.are.equal("completed", stream.status)
    assert.are.equal('he said "hi" é', stream.result)
    assert.are.equal("run_1", stream.id)
    assert.are.equal("agent", stream.type)
    assert.are.equal(0.00123, stream.cost.total_usd)
    assert.is_nil(stream.exit_code)
  end)

  it("runs to the end: the output of done counts, else the text", function()
    local done = run("output")
    assert.are.equal("completed", done.status)
    assert.are.equal("the end", done.result)
    assert.are.equal("run_1", done.id)
    assert.are.equal(36, #agent("output"):stream({ prompt = "x" }).id)
    local text = run("ok")
    assert.are.equal('he said "hi" é', text.result)
    assert.are.equal(3, text.cost.input_tokens)
    assert.are.equal(2, text.cost.output_tokens)
    assert.is_true(text.cost.compute_ms > 0)
  end)

  it("sends prompt, directory and options", function()
    local box = server:box("ok")
    box.cwd = "/workspace/home/sub"
    box.agent:run { prompt = "do it", options = {}, extra = { later = true },
      headers = { ["X-A"] = "b" } }
    assert.are.same({ prompt = "do it", folder = "sub", later = true }, sent("ok"))
    local log = server:log("POST /v2/box/ok/run/stream")
    assert.are.equal("b", log[#log].headers["x-a"])
    assert.are.equal("text/event-stream", log[#log].headers.accept)
  end)

  it("spells top-level options as the harness wants them", function()
    local given = { max_turns = 3, systemPrompt = "s", thinking = { budget_tokens = 1 } }
    run("claude", { options = given })
    assert.are.same({ maxTurns = 3, systemPrompt = "s", thinking = { budget_tokens = 1 } },
      sent("claude").agent_options)
    run("codex", { options = { model_reasoning_effort = "low" } })
    assert.are.same({ model_reasoning_effort = "low" }, sent("codex").agent_options)
  end)

  it("calls back in the reading task, before the chunk is given out", function()
    local seen = {}
    local stream = agent("ok"):stream {
      prompt = "do it",
      on_tool_use = function(tool)
        lbox.sleep(1)
        seen[#seen + 1] = { "use", tool.tool_call_id, tool.name, tool.input.command or "none" }
      end,
      on_tool_result = function(result)
        seen[#seen + 1] = { "result", result.tool_call_id }
      end,
    }
    for chunk in stream:chunks() do
      if chunk.type == "tool-call" or chunk.type == "tool-result" then
        seen[#seen + 1] = chunk.tool_call_id
      end
    end
    assert.are.same({ { "use", "t1", "Bash", "ls" }, "t1", { "use", "t2", "", "none" }, "t2",
      { "result", "t1" }, "t1", { "result", "t2" }, "t2" }, seen)
  end)

  it("cancels the run when a callback raises, and raises that unchanged", function()
    local trouble = { "trouble" }
    local err = refused("ok", { on_tool_use = function() error(trouble, 0) end })
    assert.are.equal(trouble, err)
    assert.are.equal(1, #server:log("POST /v2/box/ok/runs/run_1/cancel"))
  end)

  it("raises what the agent reports, with what it cost", function()
    local err = refused("fails")
    assert.are.equal("run", err.kind)
    assert.are.equal("out of tokens, key [redacted]", err.message)
    assert.are.equal("run_1", err.run_id)
    assert.are.equal("fails", err.box_id)
    assert.are.equal("so far", err.partial)
    assert.are.equal(7, err.cost.input_tokens)
    assert.are.equal(0.5, err.cost.total_usd)
    assert.are.equal("run", refused("mute").kind)
  end)

  it("gives a failed stream its status and partial text", function()
    local stream = agent("fails"):stream { prompt = "x" }
    fault.raised(function()
      for _ in stream:chunks() do end
    end)
    assert.are.equal("failed", stream.status)
    assert.are.equal("so far", stream.result)
  end)

  it("validates typed output", function()
    local shape = { name = "string", score = "integer", note = "string?" }
    local typed = run("typed", { response_schema = shape })
    assert.are.same({ name = "x", score = 3 }, typed.result)
    assert.are.equal("completed", typed.status)
    assert.are.equal("object", sent("typed").json_schema.type)
    assert.are.same({ "name", "score" }, sent("typed").json_schema.required)
  end)

  it("raises output that does not match, with where and what came", function()
    local err = refused("typed", { response_schema = { name = "string", score = "string",
      note = "string?" } })
    assert.are.equal("schema", err.kind)
    assert.are.equal("$.score", err.path)
    assert.matches('^{"name":"x"', err.raw)
    assert.are.equal("run_1", err.run_id)
    err = refused("prose", { response_schema = { name = "string" } })
    assert.are.equal("schema", err.kind)
    assert.are.equal("$", err.path)
    assert.are.equal("Sure! Here it is", err.raw)
    assert.are.equal(1, err.cost.input_tokens)
  end)

  it("tries again only when asked to, and adds up the costs", function()
    assert.are.equal("run", refused("fails").kind)
    local before = #server:log("POST /v2/box/flaky/run/stream")
    local again = run("flaky", { max_retries = 3 })
    assert.are.equal(before + 2, #server:log("POST /v2/box/flaky/run/stream"))
    assert.are.equal("ok", again.result)
    assert.are.equal(15, again.cost.input_tokens)
    assert.are.equal(1.5, again.cost.total_usd)
  end)

  it("does not try again what cannot get better, or when there is no time", function()
    assert.are.equal(400, refused("refused", { max_retries = 3 }).status_code)
    assert.are.equal(1, #server:log("POST /v2/box/refused/run/stream"))
    local before = #server:log("POST /v2/box/fails/run/stream")
    assert.are.equal("run", refused("fails", { max_retries = 3, timeout = 500 }).kind)
    assert.are.equal(before + 1, #server:log("POST /v2/box/fails/run/stream"))
  end)

  it("keeps its deadline, cancels the run at the server, and does not try again", function()
    for _, opts in ipairs {
      { timeout = 100, max_retries = 3 }, { idle_timeout = 100, max_retries = 3 },
    } do
      local cancels = #server:log("POST /v2/box/silent/runs/run%2F1/cancel")
      local runs = #server:log("POST /v2/box/silent/run/stream")
      local started = lbox.now()
      local err = refused("silent", opts)
      assert.are.equal("timeout", err.kind)
      assert.matches("100 ms", err.message)
      assert.are.equal("run/1", err.run_id)
      assert.are.equal("so far", err.partial)
      assert.is_true(lbox.now() - started < 1000)
      assert.are.equal(cancels + 1, #server:log("POST /v2/box/silent/runs/run%2F1/cancel"))
      assert.are.equal(runs + 1, #server:log("POST /v2/box/silent/run/stream"))
    end
  end)

  it("has one deadline for a stream that never falls silent", function()
    local stream = agent("busy"):stream { prompt = "x", timeout = 100 }
    local err = fault.raised(function()
      for _ in stream:chunks() do end
    end)
    assert.are.equal("timeout", err.kind)
    assert.are.equal("cancelled", stream.status)
    assert.are.equal(1, #server:log("POST /v2/box/busy/runs/r/cancel"))
  end)

  it("keeps its deadline against a server that never answers", function()
    for _, opts in ipairs { { timeout = 80 }, { idle_timeout = 80 } } do
      local started = lbox.now()
      local err = refused("unborn", opts)
      assert.are.equal("timeout", err.kind)
      assert.matches("the run may have been started", err.message)
      assert.is_true(lbox.now() - started < 1000)
    end
  end)

  it("cancels the run at the server when the task is cancelled", function()
    local before = #server:log("POST /v2/box/silent/runs/run%2F1/cancel")
    assert.are.equal("timeout", fault.raised(lbox.timeout, 100, run, "silent").kind)
    assert.are.equal(before + 1, #server:log("POST /v2/box/silent/runs/run%2F1/cancel"))
    local first = lbox.spawn(function() return pcall(run, "silent") end)
    lbox.sleep(50)
    first:cancel("enough")
    pcall(first.await, first)
    assert.are.equal(before + 2, #server:log("POST /v2/box/silent/runs/run%2F1/cancel"))
  end)

  it("cancels a run that the server has not named yet", function()
    for try, ms in ipairs { 50, 200 } do -- before the answer began, and before the name
      assert.are.equal("timeout", fault.raised(lbox.timeout, ms, run, "late").kind)
      assert.are.equal(try, #server:log("POST /v2/box/late/runs/late/cancel"))
    end
    local stream = agent("late"):stream { prompt = "x" }
    assert.is_true(stream:cancel())
    assert.are.equal("late", stream.id)
  end)

  it("cancels the runs of a scope side by side", function()
    local began = lbox.now()
    fault.raised(lbox.timeout, 200, function()
      for _ = 1, 8 do
        agent("sluggish"):stream({ prompt = "x" }):next()
      end
      lbox.sleep(10000)
    end)
    assert.are.equal(8, #server:log("POST /v2/box/sluggish/runs/r/cancel"))
    assert.is_true(lbox.now() - began < 200 + 2 * 500)
  end)

  it("cancels a run whose stream nobody holds any more with its scope", function()
    local before = #server:log("POST /v2/box/silent/runs/run%2F1/cancel")
    fault.raised(lbox.timeout, 200, function()
      agent("silent"):stream({ prompt = "x" }):next()
      collectgarbage()
      collectgarbage()
      lbox.sleep(10000)
    end)
    assert.are.equal(before + 1, #server:log("POST /v2/box/silent/runs/run%2F1/cancel"))
  end)

  it("says when a run may go on because the server did not name it", function()
    local said = {}
    async.on_error(function(text) said[#said + 1] = text end)
    fault.raised(lbox.timeout, 50, run, "unborn")
    async.on_error(nil)
    assert.are.equal("a run may go on in box unborn: it was cancelled before the server named it", said[#said])
  end)

  it("says when a run may go on because its cancel failed", function()
    local said = {}
    async.on_error(function(text) said[#said + 1] = text end)
    pcall(lbox.timeout, 50, run, "late")
    async.on_error(nil)
    assert.are.equal(1, #said)
    assert.matches("^run late may go on in box late, it could not be cancelled: .*status 500", said[1])
  end)

  it("needs an agent, and says so without a request", function()
    local box = server:box("agentless")
    local before = #server:log()
    for _, name in ipairs { "run", "stream" } do
      local err = fault.raised(box.agent[name], box.agent, { prompt = "x" })
      assert.are.equal("usage", err.kind)
      assert.matches("^no agent configured", err.message)
    end
    assert.are.equal(before, #server:log())
  end)

  it("checks its arguments before any request", function()
    local it_agent = agent("ok")
    local before = #server:log()
    for _, each in ipairs {
      { {}, "prompt" },
      { { prompt = "" }, "prompt" },
      { { promt = "x" }, 'unknown option "promt" %(did you mean "prompt"%?%)' },
      { { prompt = "x", timeout = -1 }, "timeout" },
      { { prompt = "x", idle_timeout = "5" }, "idle_timeout" },
      { { prompt = "x", max_retries = -1 }, "max_retries" },
      { { prompt = "x", max_retries = 0.5 }, "max_retries" },
      { { prompt = "x", on_tool_use = 5 }, "on_tool_use" },
      { { prompt = "x", response_schema = { a = "strin" } }, "strin" },
      { { prompt = "x", response_schema = 5 }, "schema" },
    } do
      local err = fault.raised(it_agent.run, it_agent, each[1])
      assert.are.equal("usage", err.kind)
      assert.matches(each[2], err.message)
    end
    for _, key in ipairs { "response_schema", "max_retries" } do
      local err = fault.raised(it_agent.stream, it_agent, { prompt = "x", [key] = 1 })
      assert.matches("use box.agent:run", err.message)
    end
    assert.are.equal("usage", fault.raised(it_agent.run, it_agent).kind)
    assert.are.equal("usage", fault.raised(it_agent.run, it_agent, "prompt").kind)
    assert.are.equal(before, #server:log())
  end)
end)
