-- What every agent CLI does in a local box, whichever it is. The CLIs are those in build/agents (script/test agents
-- installs them); the model is scripted.
local assert = require "luassert"
local json = require "lbox.json"
local lbox = require "lbox"
local models = require "spec.support.model_server"
local support = require "spec.support.local"
local Box = lbox.Box

local M = {}

M.KEY = "sk-spec-0123456789abcdef"
local KEY = M.KEY

-- Names the files of a box that have the key, or the secret of an MCP server, in them, and does not itself.
local WRITTEN = "{ k=0123456789; grep -rlaE \"(sk-spec|mcp)-$k\" ~ /workspace /tmp /var/tmp 2>/dev/null || true; }"

-- An MCP server as a program of node's, whose tool adds two numbers.
local ADDER = [[#!/usr/bin/env node
const say = (id, result) => console.log(JSON.stringify({ jsonrpc: "2.0", id, result }));
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (method === "initialize")
    say(id, { protocolVersion: params.protocolVersion, capabilities: { tools: {} },
      serverInfo: { name: "adder", version: "1" } });
  else if (method === "tools/list")
    say(id, { tools: [{ name: "add", description: "Adds.", inputSchema: { type: "object",
      properties: { a: { type: "number" }, b: { type: "number" } } } }] });
  else if (method === "tools/call")
    say(id, { content: [{ type: "text", text: `${params.arguments.a + params.arguments.b} by `
      + process.argv.slice(2).join("|") }] });
  else if (id !== undefined)
    say(id, {});
});
]]

--- The environment of a box whose model is at a port of this machine.
function M.env_of(port)
  local url = "http://127.0.0.1:" .. port
  return { ANTHROPIC_BASE_URL = url, OPENAI_BASE_URL = url .. "/v1", CLAUDE_CODE_MAX_RETRIES = "0" }
end

local env_of = M.env_of

--- The chunks of a run by their type, in order, and the error if there was one.
local function follow(stream, on_chunk)
  local chunks = { order = {} }
  local ok, err = pcall(function()
    for chunk in stream:chunks() do
      chunks.order[#chunks.order + 1] = chunk.type
      chunks[chunk.type] = chunks[chunk.type] or {}
      table.insert(chunks[chunk.type], chunk)
      if on_chunk then
        on_chunk(chunk)
      end
    end
  end)
  return chunks, not ok and err or nil
end

--- Describes it.
---@param harness string
---@param model string
---@param how { options: table, costs: boolean|nil, session_of_folder: boolean|nil, lost_mcp: string|nil,
---  url_told: boolean|nil }  all options it has, whether it says what a run costs, whether a session belongs to a
---  folder, what becomes of a run whose MCP server cannot be used (it "fails", "warns" of it, or goes on without a
---  word), and whether an MCP server's URL is in its command line
function M.behaves(harness, model, how)
  local busted = require "busted"
  local it, setup, teardown, before_each = busted.it, busted.setup, busted.teardown, busted.before_each
  local server, box, llm

  setup(function()
    llm = models.start()
    server = support.start { args = ("--agents %s --host-port %d"):format(os.getenv("LBOX_AGENTS"), llm:port()) }
    support.skill(server.dir .. "/data/skills/acme/tools/digger", "Knows how to dig at Quarry-77.")
  end)

  teardown(function()
    server:stop()
    llm:stop()
  end)

  before_each(function()
    if box then
      box:delete()
    end
    box = Box.create(server:client { agent = { harness = harness, model = model, api_key = KEY },
      env = env_of(llm:port()) })
  end)

  --- The newest run of the agent, as it is recorded.
  local function recorded()
    for _, run in ipairs(box:list_runs()) do
      if run.type == "agent" then
        return run
      end
    end
  end

  --- Waits until that has ended; returns it.
  local function ended()
    return lbox.timeout(5000, function()
      while recorded().status == "running" do
        lbox.sleep(20)
      end
      return recorded()
    end)
  end

  it("writes a file", function()
    llm:script { { write = "/workspace/home/hello.txt", content = "hello from a model" }, { text = "Written." } }
    local run = box.agent:run { prompt = "write hello" }
    assert.are.equal("Written.", run.result)
    assert.are.equal("hello from a model", box.files:read("/workspace/home/hello.txt"))
  end)

  it("has its key in its environment, and nothing else has", function()
    llm:script { { run = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' >lines; " .. WRITTEN .. " >files" }, { text = "ok" } }
    box.agent:run { prompt = "look" }
    -- Not even during the run: who cancels it ends it with no time to clean up.
    assert.are.equal("", box.files:read("/workspace/home/files"))
    assert.are.equal("", box.exec:command(WRITTEN).result)
    local headers = json.encode(llm:asked()[1].headers)
    assert.matches(KEY, headers, 1, true)
    local lines = box.files:read("/workspace/home/lines")
    assert.matches("/run/lbox/agents/", lines, 1, true)
    assert.is_nil(lines:find(KEY, 1, true))
    assert.is_nil(server:said():find(KEY, 1, true))
    assert.is_nil(json.encode(Box.list(server:client())):find(KEY, 1, true))
    assert.is_nil(box.exec:command("env").result:find(KEY, 1, true))
  end)

  it("runs a command as the box's user and tells of it", function()
    llm:script { { text = "Let me look.", run = "id -un; echo $((40 + 2)) >made; cat made" },
      { text = "It is 42." } }
    local chunks, err = follow(box.agent:stream { prompt = "compute" })
    assert.is_nil(err)
    assert.are.equal("start", chunks.order[1])
    assert.are.equal("stats", chunks.order[#chunks.order])
    local call, result = chunks["tool-call"][1], chunks["tool-result"][1]
    assert.are.equal(1, #chunks["tool-call"])
    assert.are.equal(call.tool_call_id, result.tool_call_id)
    assert.matches("id -un", json.encode(call.input), 1, true)
    assert.matches("boxuser", json.encode(result.output), 1, true)
    assert.matches("42", json.encode(result.output), 1, true)
    assert.are.equal("It is 42.", chunks.finish[1].output)
    assert.are.equal("42\n", box.exec:command("cat made").result)
  end)

  it("works in the folder it is given", function()
    box.files:mkdir("/workspace/home/sub")
    box:cd("sub")
    llm:script { { run = "pwd >where" }, { text = "ok" } }
    box.agent:run { prompt = "where" }
    assert.are.equal("/workspace/home/sub\n", box.files:read("/workspace/home/sub/where"))
  end)

  it("tells what it thinks and says as it comes", function()
    llm:script { { think = "Hmm.", text = "Hello." } }
    local chunks = follow(box.agent:stream { prompt = "greet" })
    assert.are.equal("Hello.", chunks["text-delta"][1].text)
    assert.are.equal("Hmm.", chunks.reasoning and chunks.reasoning[1].text)
  end)

  it("gives typed output by a schema", function()
    llm:script { { run = "true" }, { structured = { name = "lbox", count = 3 } }, { text = "done" } }
    local run = box.agent:run { prompt = "describe", response_schema = { name = "string", count = "integer" },
      files = { { data = "aGVsbG8=", media_type = "text/plain", filename = "schema.json" } } }
    assert.are.same({ name = "lbox", count = 3 }, run.result)
    assert.are.equal("hello", box.exec:command("cat $(find ~/.lbox/prompts -name schema.json)").result)
    assert.are.same({ name = "lbox", count = 3 }, json.decode(recorded().output))
  end)

  it("goes on with the session", function()
    llm:script { { text = "I remember." } }
    local first = follow(box.agent:stream { prompt = "the word is xylophone" })
    llm:script { { text = "It was xylophone." } }
    if not how.session_of_folder then
      box:cd("/tmp")
    end
    local second, err = follow(box.agent:stream { prompt = "which word?" })
    assert.is_nil(err)
    assert.matches("xylophone", llm:asked()[1].body, 1, true)
    assert.matches("I remember", llm:asked()[1].body, 1, true)
    assert.are.equal(first.finish[1].session_id, second.finish[1].session_id)
    assert.are.equal(second.finish[1].session_id, recorded().session_id)
    if how.session_of_folder then
      box:cd("/tmp")
      llm:script { { run = "pwd >/tmp/where" }, { text = "What word?" } }
      box.agent:run { prompt = "which word?" }
      assert.are.equal("/tmp\n", box.files:read("/tmp/where"))
      assert.is_nil(llm:asked()[1].body:find("xylophone", 1, true))
    end
  end)

  it("says that a session is gone, and begins a new one after that", function()
    llm:script { { text = "one" } }
    box.agent:run { prompt = "one" }
    box.exec:command("rm -rf ~/.claude ~/.codex ~/.local/share/opencode")
    llm:script { { text = "two" }, { text = "three" } }
    local ok, err = pcall(box.agent.run, box.agent, { prompt = "two" })
    assert.is_false(ok)
    assert.are.equal("run", err.kind)
    assert.are.equal("failed", recorded().status)
    assert.matches("^%a+%.?$", box.agent:run { prompt = "three" }.result)
  end)

  it("says what it used and what that cost, also of a run that goes on with a session", function()
    llm:script { { run = "true" }, { text = "one" }, { text = "two" } }
    local first = box.agent:run { prompt = "one" }
    local second = box.agent:run { prompt = "two" }
    assert.are.same({ 200, 40, 10 },
      { first.cost.input_tokens, first.cost.cached_input_tokens, first.cost.output_tokens })
    assert.are.same({ 100, 20, 5 },
      { second.cost.input_tokens, second.cost.cached_input_tokens, second.cost.output_tokens })
    assert.are.equal(100, recorded().input_tokens)
    if how.costs then
      assert.is_true(second.cost.total_usd > 0)
      assert.is_true(math.abs(first.cost.total_usd - 2 * second.cost.total_usd) < 1e-9)
      assert.are.equal(second.cost.total_usd, recorded().cost_usd)
    else
      assert.are.equal(0, second.cost.total_usd)
    end
  end)

  it("fails when the model does, and does not tell the key", function()
    llm:script { { status = 400, error = "no such thing, says the model to " .. KEY } }
    local chunks, err = follow(box.agent:stream { prompt = "fail" })
    assert.are.equal("run", err.kind)
    assert.matches("no such thing, says the model", err.message, 1, true)
    assert.is_nil(chunks.finish)
    local run = recorded()
    assert.are.equal("failed", run.status)
    assert.matches("no such thing", run.error_message, 1, true)
    assert.is_nil(err.message:find(KEY, 1, true))
    assert.is_nil(json.encode(box:list_runs()):find(KEY, 1, true))
  end)

  it("is cancelled in the middle of a command, with everything that it started", function()
    llm:script { { run = "setsid sleep 4711 & sleep 4712" }, { text = "never" } }
    local stream = box.agent:stream { prompt = "sleep" }
    local chunks
    lbox.scope(function(scope)
      scope:spawn(function() chunks = follow(stream) end)
      lbox.timeout(20000, function()
        repeat
          lbox.sleep(50)
        until tonumber(box.exec:command("pgrep -fc '^sleep 471[12]$' || true").result) >= 2
      end)
      stream:cancel()
    end)
    assert.is_nil(chunks.finish)
    assert.are.equal("cancelled", ended().status)
    assert.are.equal("0\n", box.exec:command("pgrep -fc '[s]leep 471|[/]run/lbox/agents' || true").result)
  end)

  it("is cancelled while the model is slow", function()
    llm:script { { hold = true } }
    local stream, chunks = box.agent:stream { prompt = "slow" }, nil
    lbox.scope(function(scope)
      scope:spawn(function() chunks = follow(stream) end)
      lbox.timeout(20000, function()
        while not llm:asked()[1] do
          lbox.sleep(50)
        end
      end)
      stream:cancel()
    end)
    assert.is_nil(chunks.finish)
    assert.are.equal("cancelled", ended().status)
    assert.are.equal("0\n", box.exec:command("pgrep -fc '[/]run/lbox/agents' || true").result)
    assert.are.equal("", box.exec:command(WRITTEN).result)
  end)

  it("has the tools of MCP servers: of a package in its folder, and of one that is reached by HTTP", function()
    local secret = "Key mcp-0123456789"
    local own = Box.create(server:client { agent = { harness = harness, model = model, api_key = KEY },
      env = env_of(llm:port()), mcp_servers = {
        { name = "adder", package = "adds", args = { "${HOME}", "{env:HOME}", "a b" } },
        { name = "shouter", url = env_of(llm:port()).ANTHROPIC_BASE_URL .. "/mcp?tok=mcp-0123456789&x=${HOME}",
          headers = { ["X-Mcp-Key"] = secret } },
      } })
    own.files:write { path = "node_modules/adds/package.json",
      content = '{"name":"adds","version":"1.0.0","bin":{"adds":"main.js"}}' }
    own.files:write { path = "node_modules/adds/main.js", content = ADDER }
    own.exec:command("cd node_modules; chmod +x adds/main.js; mkdir .bin; ln -s ../adds/main.js .bin/adds")
    llm:script { { mcp = "adder", call = "add", input = { a = 40, b = 2 } },
      { mcp = "shouter", call = "shout", input = { text = "hello" } },
      { run = WRITTEN .. " >files; cat /proc/[0-9]*/cmdline | tr '\\0' ' ' >lines" }, { text = "ok" } }
    local chunks, err = follow(own.agent:stream { prompt = "add, and shout" })
    assert.is_nil(err)
    assert.matches("adder", chunks["tool-call"][1].tool_name, 1, true)
    assert.matches("42 by ${HOME}|{env:HOME}|a b", json.encode(chunks["tool-result"][1].output), 1, true)
    assert.matches("HELLO", json.encode(chunks["tool-result"][2].output), 1, true)
    local lines = own.files:read("lines"):gsub("/mcp%?tok=mcp%-0123456789", function(url)
      return how.url_told and "" or url
    end)
    assert.is_nil(lines:find("mcp-0123456789", 1, true))
    assert.are.equal("", own.files:read("files") .. own.exec:command("rm lines; " .. WRITTEN).result)
    own:delete()
  end)

  it("knows soon that an MCP server is out of reach", function()
    local own = Box.create(server:client { agent = { harness = harness, model = model, api_key = KEY },
      env = env_of(llm:port()), mcp_servers = { { name = "nowhere", package = "a-package-that-is-out-of-reach" } } })
    llm:script { { text = "ok" } }
    local chunks, err = follow(own.agent:stream { prompt = "go", timeout = 45000 })
    own:delete()
    if how.lost_mcp == "fails" then
      assert.are.equal("run", err.kind)
      assert.matches("required MCP servers failed to initialize: nowhere", err.message, 1, true)
      return
    end
    assert.is_nil(err)
    assert.are.equal("ok", chunks.finish[1].output)
    assert.are.equal(how.lost_mcp == "warns" and 'the MCP server "nowhere" cannot be used' or nil,
      chunks.unknown and chunks.unknown[1].data.message)
  end)

  it("is told of skills, also of those a live box gets", function()
    box.skills:add("acme/tools/digger")
    llm:script { { run = "cat ~/.claude/skills/*/SKILL.md" }, { text = "ok" } }
    box.agent:run { prompt = "dig" }
    assert.matches("Quarry-77", llm:asked()[1].body, 1, true)
    assert.matches("Do it.", llm:asked()[2].body, 1, true)
  end)

  it("is given files", function()
    llm:script { { text = "seen" } }
    box.agent:run { prompt = "look at this", files = {
      { data = "aGVsbG8=", media_type = "text/plain", filename = "note.txt" },
    } }
    local body = llm:asked()[1].body
    assert.matches("note.txt", body, 1, true)
    local path = box.exec:command("find ~/.lbox/prompts -name note.txt").result
    assert.are.equal("hello", box.files:read(path:match("^[^\n]+")))
  end)

  it("takes every option that it has", function()
    llm:script { { text = "with options" } }
    assert.are.equal("with options", box.agent:run({ prompt = "go", options = how.options }).result)
  end)

  it("refuses options it does not have", function()
    local ok, err = pcall(box.agent.run, box.agent, { prompt = "x", options = { no_such = 1 } })
    assert.is_false(ok)
    assert.are.equal(400, err.status_code)
    assert.matches("no_?[sS]uch", err.message)
  end)

  it("is on the box's PATH, read-only", function()
    assert.matches("^/run/lbox/agents/bin/", box.exec:command(
      "command -v claude || command -v codex || command -v opencode").result)
    local mounts = box.exec:command("grep -c ' /run/lbox/agents/[^ ]* [^ ]* ro,' /proc/self/mounts").result
    assert.is_true(tonumber(mounts) >= 1)
    assert.are.equal("0\n", box.exec:command("grep -c ' /run/lbox/agents/[^ ]* [^ ]* rw,' /proc/self/mounts").result)
  end)
end

return M
