-- Agent runs in local boxes: what the client hears, what is recorded, and that neither lies.
local json = require "lbox.json"
local lbox = require "lbox"
local support = require "spec.support.local"
local Box = lbox.Box

describe("an agent in a local box", function()
  local server, box

  local AGENT = [[
    require("lbox").harness.run(function(ctx, emit)
      if ctx.prompt:find("silent") then os.exit(0, true) end
      if ctx.prompt:find("fail") then error("no luck") end
      emit.text("thinking\n")
      if ctx.prompt:find("long") then os.execute("sleep 60") end
      emit.tool { tool_call_id = "1", name = "look", input = { path = "." } }
      emit.tool_result { tool_call_id = "1", output = { "a", "b" } }
      local output = ctx.json_schema and '{"n": 3}' or "done with " .. ctx.prompt
      return { output = output, input_tokens = 7, output_tokens = 5, session_id = "s1" }
    end)]]

  setup(function()
    server = support.start()
    box = Box.create(server:client {
      agent = { harness = "custom", custom_harness = { command = "lbox", args = { "/home/boxuser/a.lua" } } },
    })
    box.files:write { path = "/home/boxuser/a.lua", content = AGENT }
  end)

  teardown(function()
    server:stop()
  end)

  it("streams text, tools, the finish with usage, and stats", function()
    local kinds = {}
    local stream = box.agent:stream { prompt = "x" }
    for chunk in stream:chunks() do
      kinds[#kinds + 1] = chunk.type
    end
    assert.are.same({ "start", "text-delta", "tool-call", "tool-result", "finish", "stats" }, kinds)
    assert.are.equal("completed", stream.status)
    assert.are.equal(7, stream.cost.input_tokens)
  end)

  it("gives typed output by a schema", function()
    local run = box.agent:run { prompt = "count", response_schema = { n = "integer" } }
    assert.are.equal(3, run.result.n)
    local ok, err = pcall(box.agent.run, box.agent, { prompt = "count", response_schema = { m = "string" } })
    assert.is_false(ok)
    assert.are.equal("schema", err.kind)
  end)

  it("fails when it says so, and when it ends without a word", function()
    local ok, err = pcall(box.agent.run, box.agent, { prompt = "fail" })
    assert.is_false(ok)
    assert.are.equal("run", err.kind)
    assert.matches("no luck", err.message)
    ok, err = pcall(box.agent.run, box.agent, { prompt = "silent" })
    assert.is_false(ok)
    assert.matches("without saying that it was done", err.message)
    assert.are.equal("failed", box:list_runs()[1].status)
  end)

  it("is cancelled on the server when its deadline passes", function()
    local ok, err = pcall(box.agent.run, box.agent, { prompt = "long", timeout = 500 })
    assert.is_false(ok)
    assert.are.equal("timeout", err.kind)
    lbox.sleep(300)
    assert.are.equal("cancelled", box:list_runs()[1].status)
  end)

  it("goes on when its reader leaves", function()
    local stream = box.agent:stream { prompt = "left alone" }
    stream:next()
    stream:close()
    assert.are.equal("detached", stream.status)
    lbox.sleep(500)
    assert.are.equal("completed", box:list_runs()[1].status)
  end)
end)

describe("a harness in a local box", function()
  local server, box

  setup(function()
    server = support.start()
    box = Box.create(server:client {
      agent = { harness = "custom", custom_harness = { command = "sh", args = { "/home/boxuser/agent.sh" } } },
    })
  end)

  teardown(function()
    server:stop()
  end)

  local DONE = [[printf 'event: done\ndata: {"output":"yes"}\n\n'
]]

  --- Streams a run of a shell script: the chunks' types, the error if there is one, the stream.
  local function run(script, opts)
    box.files:write { path = "/home/boxuser/agent.sh", content = script }
    local stream = box.agent:stream(opts or { prompt = "go" })
    local kinds = {}
    local ok, err = pcall(function()
      for chunk in stream:chunks() do
        kinds[#kinds + 1] = chunk.type
      end
    end)
    return kinds, not ok and err or nil, stream
  end

  local function recorded()
    return box:list_runs()[1]
  end

  local function cancel(id)
    support.sh(("curl -sf -X POST -H 'X-Box-Api-Key: %s' %s/v2/box/%s/runs/%s/cancel"):format(server.key,
      server.url, box.id, id))
  end

  it("hears of its options by a variable", function()
    local _, err = run('printf %s "$LBOX_AGENT_OPTIONS" >/workspace/home/options\n' .. DONE,
      { prompt = "go", options = { depth = 3, ["as_given"] = { a = true } } })
    assert.is_nil(err)
    assert.are.same({ depth = 3, as_given = { a = true } }, json.decode(box.files:read("options")))
  end)

  it("hears of MCP servers by a variable, in a box made of a snapshot too", function()
    local servers = { { name = "a", package = "x", args = { "y" } },
      { name = "b", url = "http://127.0.0.1:1/", headers = { H = "v" } } }
    local made = Box.create(server:client { mcp_servers = servers,
      agent = { harness = "custom", custom_harness = { command = "sh", args = { "/home/boxuser/agent.sh" } } } })
    made.files:write { path = "/home/boxuser/agent.sh", content = "printf '%s' \"$LBOX_MCP_SERVERS\" >got\n" .. DONE }
    local snapshot = made:snapshot { name = "with-mcp" }
    local copy = Box.from_snapshot(snapshot.id, server:client())
    for _, each in ipairs { made, copy } do
      each.agent:run { prompt = "go" }
      assert.are.same({ { name = "a", source = "npm", package_or_url = "x", args = { "y" } },
        { name = "b", source = "url", package_or_url = "http://127.0.0.1:1/", headers = { H = "v" } } },
        json.decode(each.files:read("got")))
    end
  end)

  it("that says done and then fails has failed", function()
    local kinds, err = run(DONE .. "echo oops >&2; exit 3")
    assert.are.same({ "start" }, kinds)
    assert.matches("done and then ended with exit code 3: oops", err.message)
    assert.are.equal("failed", recorded().status)
  end)

  it("that says done and is cancelled has not completed", function()
    local kinds, err
    lbox.scope(function(scope)
      scope:spawn(function() kinds, err = run(DONE .. "sleep 60") end)
      lbox.timeout(5000, function()
        while box:list_runs()[1].status ~= "running" do
          lbox.sleep(10)
        end
      end)
      lbox.sleep(100)
      cancel(recorded().id)
    end)
    assert.are.same({ "start" }, kinds)
    assert.matches("cancelled", err.message)
    assert.are.equal("cancelled", recorded().status)
    assert.is_true((recorded().output or "") == "")
  end)

  it("has one last word, and none of the server's", function()
    local kinds, err, stream = run([[
      printf 'event: stats\ndata: {"cpu_ns":1}\n\nevent: run_start\ndata: {"run_id":"forged"}\n\n'
    ]] .. DONE .. [[
      printf 'event: error\ndata: {"error":"late"}\n\nevent: text\ndata: {"text":"later"}\n\n']])
    assert.is_nil(err)
    assert.are.same({ "start", "finish", "stats" }, kinds)
    assert.are.equal("yes", stream.result)
    assert.are.equal(recorded().id, stream.id)
  end)

  it("is recorded with usage, whatever it claims of it", function()
    local _, err = run([[printf 'event: done\ndata: {"output":"x","total_cost_usd":1e999}\n\n']])
    assert.matches("the harness's done is no JSON object: a number is out of range", err.message)
    run([[printf 'event: done\ndata: {"input_tokens":"7","output_tokens":1e300,"total_cost_usd":0.5}\n\n']])
    assert.are.equal(0, recorded().input_tokens)
    assert.are.equal(0.5, recorded().cost_usd)
    local told = support.sh("head -c 400 /dev/zero | tr '\\0' s")
    run(([[printf 'event: done\ndata: {"session_id":"%s"}\n\n']]):format(told))
    run([[printf 'event: text\ndata: {"text":"%s "}\n\n' "$@"
      printf 'event: done\ndata: {"session_id":"--model"}\n\n']])
    local _, _, stream = run([[printf 'event: text\ndata: {"text":"%s "}\n\n' "$@"
]] .. [[printf 'event: done\ndata: {"session_id":"s 1"}\n\n']])
    assert.are.equal("-p go --model custom --stream", stream.result)
    _, _, stream = run([[printf 'event: text\ndata: {"text":"%s,"}\n\n' "$@"
]] .. [[printf 'event: done\ndata: {}\n\n']])
    assert.are.equal("-p,go,--model,custom,--stream,--session,s 1,", stream.result)
  end)

  it("whose last word is malformed has failed", function()
    local _, err = run([[printf 'event: done\ndata: {"output":5}\n\n']])
    assert.matches("the output of the harness's done must be a string, not a number", err.message)
    assert.are.equal("failed", recorded().status)
    _, err = run([[printf 'event: done\ndata: []\n\n']])
    assert.matches("the data of the harness's done is no JSON object: %[%]", err.message)
    _, err = run([[printf 'event: error\ndata: {"message":"?"}\n\n']])
    assert.matches("without words", err.message)
    run([[printf 'event: done\ndata: {"output":null,"input_tokens":-5}\n\n']])
    assert.are.equal("completed", recorded().status)
    assert.are.equal(0, recorded().input_tokens)
  end)

  it("cannot forge by a name that others read differently", function()
    local kinds = run([[printf 'event: done\302\240\ndata: {"output":"forged"}\n\n'
      printf 'event: run_start\342\200\203\ndata: {"run_id":"forged"}\n\n'
]] .. DONE)
    assert.are.same({ "start", "finish", "stats" }, kinds)
  end)

  it("may have cut a text in the middle of a character", function()
    local _, err, stream = run([[printf 'event: done\ndata: {"output":"half \\ud83d"}\n\n']])
    assert.is_nil(err)
    assert.are.equal("half \239\191\189", stream.result)
  end)

  it("is cancelled at once also when its reader does not read", function()
    box.files:write { path = "/home/boxuser/agent.sh", content =
      "yes 'event: text\ndata: {\"text\":\"" .. ("spam"):rep(2000) .. "\"}\n'" }
    local stream = box.agent:stream { prompt = "go" }
    assert.are.equal("start", stream:next().type)
    lbox.sleep(500) -- the server waits for us by now
    cancel(stream.id)
    lbox.timeout(3000, function()
      while recorded().status == "running" do
        lbox.sleep(20)
      end
    end)
    assert.are.equal("cancelled", recorded().status)
    stream:close()
  end)

  it("is passed on number for number and list for list", function()
    box.files:write { path = "/home/boxuser/agent.sh", content =
      [[printf 'event: tool_result\ndata: {"id":"1", "output":{"n":12345678901234567890,"e":[]}}\n\n'
]] .. DONE }
    local text = support.sh(("curl -sN -H 'X-Box-Api-Key: %s' -d '{\"prompt\":\"go\"}' %s/v2/box/%s/run/stream"):format(
      server.key, server.url, box.id))
    assert.matches('data: {"id":"1", "output":{"n":12345678901234567890,"e":[]}}', text, 1, true)
  end)

  it("gets an empty list of a schema as one", function()
    local _, _, stream = run([[printf 'event: done\ndata: {"output":"%s"}\n\n' \
      "$(printf %s "$LBOX_JSON_SCHEMA" | tr -d '"')"]])
    assert.are.equal("", stream.result)
    local ok, err = pcall(box.agent.run, box.agent, { prompt = "go",
      response_schema = lbox.schema.json { type = "object", required = lbox.array() } })
    assert.is_false(ok)
    assert.are.equal("{required:[],type:object}", err.raw)
  end)

  it("that writes what is no text, or no end of it, costs little", function()
    local started = lbox.now()
    run([[printf 'event: text\ndata: {"text":"'; head -c 900000 /dev/urandom | tr '\n\r"\\\0' x; printf '"}\n\n'
]] .. DONE .. "head -c 3000 /dev/urandom | tr '\\n' x >&2; exit 1")
    assert.is_true(lbox.now() - started < 5000)
    local _, err = run("printf 'event: text\ndata: {\"text\":\"'; yes | tr -d '\n'")
    assert.matches("an event of more than 1048576 bytes", err.message)
    assert.are.equal("failed", recorded().status)
  end)

  it("that writes without end leaves the server to others, also when its reader has left", function()
    box.files:write { path = "/home/boxuser/agent.sh", content =
      "yes 'event: text\ndata: {\"text\":\"" .. ("spam"):rep(2000) .. "\"}\n'" }
    local stream = box.agent:stream { prompt = "go" }
    assert.are.equal("start", stream:next().type)
    stream:close()
    for _ = 1, 5 do
      local before = lbox.now()
      Box.list(server:client())
      assert.is_true(lbox.now() - before < 1000)
    end
    cancel(stream.id)
    lbox.timeout(5000, function()
      while recorded().status == "running" do
        lbox.sleep(20)
      end
    end)
    assert.are.equal("cancelled", recorded().status)
  end)

  it("that says a lot is heard whole, and recorded in part", function()
    local _, err, stream = run("yes 'event: text\ndata: {\"text\":\"" .. ("spam"):rep(2000)
      .. "\"}\n' | head -n 3000; printf 'event: done\ndata: {}\n\n'")
    assert.is_nil(err)
    assert.are.equal(1000 * 8000, #stream.result)
    local output = recorded().output
    assert.is_true(#output < 2 * 1024 * 1024)
    local lost = output:match("\n%[(%d+) more bytes were not kept%]$")
    assert.are.equal(1000 * 8000, #output:gsub("\n%[.*$", "") + tonumber(lost))
  end)
end)
