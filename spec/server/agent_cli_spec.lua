-- CLIs of agents as the server meets them: found or not, with a key or not, and telling the truth or not. The CLI is
-- a shell script of the specs'; spec/agents has the real ones.
local json = require "lbox.json"
local lbox = require "lbox"
local support = require "spec.support.local"
local Box = lbox.Box

local KEY = "sk-spec-0123456789abcdef"
local RESULT = '{"type":"result","subtype":"success","is_error":false,"result":"yes","session_id":"s-1"}'

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

describe("the CLI of an agent", function()
  local server, dir

  --- Makes the CLI; what it runs is read from a file of the box, so that specs can change it.
  local function install(path, head)
    support.sh("mkdir -p " .. path:match("^(.*)/"))
    write(path, (head or "#!/bin/sh\n") .. ". /workspace/home/script\n")
    support.sh("chmod 755 " .. path)
  end

  local function create(more)
    local opts = { agent = { harness = "claude-code", model = "anthropic/m-1", api_key = KEY } }
    for name, value in pairs(more or {}) do
      opts[name] = value
    end
    return Box.create(server:client(opts))
  end

  setup(function()
    dir = support.directory()
    install(dir .. "/agents/bin/claude")
    -- What else this machine has is not found.
    support.sh(("mkdir %s/path && ln -s $(command -v bwrap) %s/path/ && chmod -R a+rX %s"):format(dir, dir, dir))
    server = support.start { args = "--agents " .. dir .. "/agents",
      prefix = ("env PATH=%s/path HOME=/nonexistent"):format(dir) }
  end)

  teardown(function()
    server:stop()
    os.execute("rm -rf " .. dir)
  end)

  --- Runs a script in the place of the CLI; returns the run, or the error.
  local function run(box, script, opts)
    box.files:write { path = "/workspace/home/script", content = script }
    opts = opts or {}
    opts.prompt = opts.prompt or "go"
    local ok, result = pcall(box.agent.run, box.agent, opts)
    return ok and result, not ok and result or nil
  end

  local function say(...)
    local lines = {}
    for i, line in ipairs { ... } do
      lines[i] = "cat <<'E'\n" .. line .. "\nE\n"
    end
    return table.concat(lines)
  end

  it("has completed when it says its result and then ends with 0", function()
    local box = create()
    assert.are.equal("yes", run(box, say("what is this?", RESULT)).result)
    assert.matches("1 lines of the harness are no JSON", server:said())
    local _, err = run(box, say(RESULT) .. "echo oops >&2; exit 3")
    assert.matches("done and then ended with exit code 3: oops", err.message)
    _, err = run(box, "echo what happened; exit 0")
    assert.matches("exit code 0 without saying that it was done: what happened", err.message)
    _, err = run(box, say(RESULT) .. "kill -9 $$")
    assert.matches("exit code 137", err.message)
    assert.are.equal("yes", run(box, ("printf '%%s' '%s'"):format(RESULT)).result)
  end)

  it("is given the prompt, whatever it is, on its stdin", function()
    local box = create()
    local prompt = "--help\n$(touch x) `y` 'z' \"\n"
    run(box, "cat >got; echo \"$*\" >args; env >vars\n" .. say(RESULT), { prompt = prompt })
    assert.are.equal(prompt, box.files:read("got"))
    assert.matches("--model=m-1\n", box.files:read("args"), 1, true)
    assert.is_nil(box.files:read("args"):find(KEY, 1, true))
    assert.matches("\nANTHROPIC_API_KEY=" .. KEY, "\n" .. box.files:read("vars"), 1, true)
  end)

  it("is given its options, and refused others", function()
    local box = create()
    run(box, "echo \"$*\" >args; env >vars\n" .. say(RESULT), { options = { max_turns = 3, effort = "low",
      disallowed_tools = { "Bash", "Edit" }, thinking = { type = "enabled", budgetTokens = 2000 },
      system_prompt = "You are\na mole." } })
    local args = box.files:read("args")
    assert.is_nil(args:find("mole", 1, true))
    assert.are.equal("You are\na mole.", box.files:read(args:match("%-%-system%-prompt%-file=(%S+)")))
    for _, word in ipairs { "--max-turns=3", "--effort=low", "--disallowed-tools=Bash,Edit" } do
      assert.matches(word, args, 1, true)
    end
    assert.matches("MAX_THINKING_TOKENS=2000", box.files:read("vars"), 1, true)
    for options, why in pairs {
      [{ max_turns = "many" }] = "maxTurns must be a whole number",
      [{ effort = "huge" }] = "effort must be one of low, medium, high",
      [{ thinking = true }] = "thinking must be",
      [{ colour = "red" }] = 'no option "colour": there are agents,',
    } do
      local _, err = run(box, say(RESULT), { options = options })
      assert.are.equal(400, err.status_code)
      assert.matches(why, err.message, 1, true)
    end
  end)

  it("hears of MCP servers, whose headers and URLs are in its environment only", function()
    local secret = "Bearer mcp-0123456789"
    local box = create { mcp_servers = {
      { name = "files", package = "@scope/files@1.2", args = { "/tmp", "${HOME}" } },
      { name = "far", url = "https://me:pass-0123@mcp.example/x?y=${Z}&tok=tok-0123",
        headers = { Authorization = secret } } } }
    local script = "echo \"$*\" >args; env >vars\n"
    run(box, script .. say(RESULT))
    local config = json.decode(box.files:read("args"):match("%-%-mcp%-config=(%b{})"))
    assert.are.same({ type = "stdio", command = "npx",
      args = { "--yes", "--fetch-retries=1", "--fetch-retry-mintimeout=1000", "@scope/files@1.2", "/tmp",
        "${LBOX_MCP_1}" } }, config.mcpServers.files)
    assert.are.same({ type = "http", url = "${LBOX_MCP_3}", headers = { Authorization = "${LBOX_MCP_2}" } },
      config.mcpServers.far)
    local vars = "\n" .. box.files:read("vars")
    for _, line in ipairs { "LBOX_MCP_1=${HOME}", "LBOX_MCP_2=" .. secret,
      "LBOX_MCP_3=https://me:pass-0123@mcp.example/x?y=${Z}&tok=tok-0123" } do
      assert.matches("\n" .. line .. "\n", vars, 1, true)
    end
    for text, told in pairs { ["mcp-0123456789"] = "[redacted]", ["tok-0123 is wrong"] = "[redacted] is wrong",
      ["https://me:pass-0123@mcp.example/x?y=${Z}&tok=tok-0123"] = "https://[redacted]@mcp.example/x?[redacted]",
      ["no pass-0123"] = "no [redacted]" } do
      local _, err = run(box, ("echo 'cannot: %s' >&2; exit 1"):format(text))
      assert.matches("cannot: " .. told, err.message, 1, true)
    end
    -- It goes on without one, and says so.
    local servers = '[{"name":"far","status":"failed"},{"name":"x","status":"pending"}]'
    box.files:write { path = "script", content = say(
      '{"type":"system","subtype":"init","mcp_servers":' .. servers .. "}", RESULT) }
    local warnings = {}
    for chunk in box.agent:stream { prompt = "go" }:chunks() do
      warnings[#warnings + 1] = chunk.event == "warning" and chunk.data.message or nil
    end
    assert.are.same({ 'the MCP server "far" cannot be used' }, warnings)
  end)

  it("is refused MCP servers that are none", function()
    local function refusal(...)
      local status, answer = server:ask("POST", "/v2/box", json.encode { mcp_servers = json.array { ... } })
      return ("%d: %s"):format(status, json.decode(answer).error or "")
    end
    local function of(more)
      local one = { name = "a", source = "npm", package_or_url = "x" }
      for name, value in pairs(more) do
        one[name] = value
      end
      return one
    end
    for want, servers in pairs {
      ['400: mcp_servers[0]: name "a b": 1 to 64 of A-Z a-z 0-9 _ -'] = { of { name = "a b" } },
      ['400: mcp_servers: there are two of the name "a"'] = { of {}, of {} },
      ['400: mcp_servers[0]: source "pip": npm or url'] = { of { source = "pip" } },
      ['400: mcp_servers[0]: package "--x" is none of npm\'s'] = { of { package_or_url = "--x" } },
      ['400: mcp_servers[0]: package "" is none of npm\'s'] = { of { package_or_url = "" } },
      ['400: mcp_servers[0]: headers go with the source url'] = { of { headers = { A = "b" } } },
      ['400: mcp_servers[1]: url "x": an http or https URL'] = { of {}, of { name = "b", source = "url" } },
      ['400: mcp_servers[0]: the header A must be a string without control characters'] =
        { of { source = "url", package_or_url = "http://x", headers = { A = "b\n" } } },
      ['400: mcp_servers[0] must be an object'] = { 1 },
      ['400: the field "args" must be a list of strings'] = { of { args = { a = "b" } } },
    } do
      assert.matches(want, refusal(table.unpack(servers)), 1, true)
    end
    assert.are.equal(400, (server:ask("POST", "/v2/box", '{"mcp_servers":{"a":1}}')))
    local many = {}
    for i = 1, 21 do
      many[i] = of { name = "n" .. i }
    end
    assert.matches("400: at most 20 MCP servers, got 21", refusal(table.unpack(many)), 1, true)
  end)

  it("is missing: creating says how to install it", function()
    local ok, err = pcall(create, { agent = { harness = "codex", model = "openai/x", api_key = KEY } })
    assert.is_false(ok)
    assert.are.equal(422, err.status_code)
    assert.matches("npm install -g @openai/codex", err.message, 1, true)
  end)

  it("went away: the run says so, and commands still run", function()
    local box = create()
    os.execute(("mv %s/agents/bin %s/agents/gone"):format(dir, dir))
    local _, err = run(box, "")
    os.execute(("mv %s/agents/gone %s/agents/bin"):format(dir, dir))
    assert.are.equal(422, err.status_code)
    assert.matches("npm install -g @anthropic-ai/claude-code", err.message, 1, true)
    assert.are.equal("ok\n", box.exec:command("echo ok").result)
  end)

  it("of a harness that nobody knows is refused", function()
    local ok, err = pcall(create, { agent = { harness = "kodex", model = "x" } })
    assert.is_false(ok)
    assert.are.equal(400, err.status_code)
    assert.matches('no harness "kodex": claude-code,', err.message, 1, true)
  end)

  it("needs a key: of the box, of its environment, or a stored one", function()
    local agent = { harness = "claude-code", model = "anthropic/m-1" }
    local box = create { agent = agent }
    local vars = "env | grep ^ANTHROPIC >vars\n" .. say(RESULT)
    local _, err = run(box, vars)
    assert.are.equal(422, err.status_code)
    assert.matches("no key for anthropic: pass agent.api_key when the box is created, or give the box "
      .. "ANTHROPIC_API_KEY in its env", err.message, 1, true)

    local own = create { agent = agent, env = { ANTHROPIC_API_KEY = "sk-own-0123456789" } }
    run(own, vars)
    assert.are.equal("ANTHROPIC_API_KEY=sk-own-0123456789\n", own.files:read("vars"))

    local function credentials(method, path, body)
      local out = support.sh(("curl -s -X %s -H 'X-Box-Api-Key: %s' -d '%s' %s/v2/box/agent-credentials%s"):format(
        method, server.key, body or "", server.url, path or ""))
      return json.decode(out)
    end
    local wanting = create { agent = { harness = "claude-code", model = "m-1", api_key = lbox.BoxApiKey.STORED_KEY } }
    _, err = run(wanting, vars)
    assert.matches("none is stored on this machine", err.message, 1, true)
    assert.matches("no provider", credentials("POST", nil, '{"provider":"acme","api_key":"k"}').error)
    credentials("POST", nil, '{"provider":"anthropic","api_key":"sk-stored-0123456789"}')
    local listed = credentials("GET").credentials
    assert.are.equal("anthropic", listed[1].provider)
    assert.are.equal("sk-st", listed[1].key_prefix)
    for _, each in ipairs { wanting, box } do
      run(each, vars)
      assert.are.equal("ANTHROPIC_API_KEY=sk-stored-0123456789\n", each.files:read("vars"))
    end
    credentials("DELETE", "/anthropic")
    assert.are.same({}, credentials("GET").credentials)

    local ok
    ok, err = pcall(create, { agent = { harness = "claude-code", model = "m", api_key = "UPSTASH_KEY" } })
    assert.is_false(ok)
    assert.are.equal(422, err.status_code)
    assert.matches("no managed key", err.message, 1, true)
  end)

  it("does not get its key told, whatever it says", function()
    local box = create()
    local _, err = run(box, ("echo 'bad key %s' >&2; exit 1"):format(KEY))
    assert.matches("bad key [redacted]", err.message, 1, true)
    _, err = run(box, say(('{"type":"result","subtype":"error","is_error":true,"result":"bad key %s"}'):format(KEY)))
    assert.matches("bad key [redacted]", err.message, 1, true)
    assert.is_nil(json.encode(box:list_runs()):find(KEY, 1, true))
    assert.is_nil(server:said():find(KEY, 1, true))
  end)

  it("is elsewhere than at its own provider", function()
    local box = create { agent = { harness = "claude-code", model = "openrouter/anthropic/m-2", api_key = KEY } }
    run(box, "env | grep ^ANTHROPIC | sort >vars; echo \"$*\" >args\n" .. say(RESULT))
    assert.are.equal("ANTHROPIC_API_KEY=\nANTHROPIC_AUTH_TOKEN=" .. KEY
      .. "\nANTHROPIC_BASE_URL=https://openrouter.ai/api\n", box.files:read("vars"))
    assert.matches("--model=anthropic/m-2", box.files:read("args"), 1, true)
  end)

  it("gets files of a prompt, also from a form", function()
    local box = create()
    local path = os.tmpname()
    write(path, "from here")
    local script = "cat >got\n" .. say(RESULT)
    run(box, script, { files = { path } })
    os.remove(path)
    local at = box.files:read("got"):match("\n%- (/home/boxuser/.lbox/prompts/%S+)")
    assert.are.equal("from here", box.files:read(at))
    run(box, script, { files = {
      { data = "YQ==", media_type = "text/plain", filename = "../../etc/x" },
      { data = "Yg==", media_type = "text/plain", filename = "x" },
    } })
    local first, second = box.files:read("got"):match("\n%- (%S+)\n%- (%S+)")
    assert.matches("/home/boxuser/.lbox/prompts/[^/]+/x$", first)
    assert.matches("/2%-x$", second)
    assert.are.equal("ab", box.files:read(first) .. box.files:read(second))
    local many = {}
    for i = 1, 11 do
      many[i] = { data = "YQ==", media_type = "text/plain" }
    end
    local _, err = run(box, script, { files = many })
    assert.are.equal(400, err.status_code)
  end)

  it("gets ten files of 10 MiB with a prompt, and no larger one", function()
    local box = create()
    local path, paths = os.tmpname(), {}
    for i = 1, 10 do
      paths[i] = path
    end
    support.sh("head -c 10485760 /dev/zero >" .. path)
    local done = run(box, "cat >/dev/null; cat ~/.lbox/prompts/*/* | wc -c >size\n" .. say(RESULT), { files = paths })
    assert.are.equal("yes", done.result)
    assert.are.equal("104857600\n", box.files:read("size"))
    support.sh("echo >>" .. path)
    local _, err = run(box, say(RESULT), { files = { path } })
    os.remove(path)
    assert.are.equal(413, err.status_code)
    assert.matches("files[0] is larger than 10485760 bytes", err.message, 1, true)
  end)

  it("may be a script of an npm package, which comes with what lies beside it and no more", function()
    local root = dir .. "/agents/node_modules/"
    install(root .. "@openai/codex/bin/codex.js")
    write(root .. "@openai/codex/package.json",
      '{"name":"@openai/codex","optionalDependencies":{"needed":"1","no":"1"}}')
    for name in ("needed other"):gmatch("%w+") do
      support.sh("mkdir -p " .. root .. name)
      write(root .. name .. "/package.json", ('{"name":"%s"}'):format(name))
    end
    support.sh(("mkdir -p %s.bin && ln -s ../@openai/codex/bin/codex.js %s.bin/codex && chmod -R a+rX %s"):format(root,
      root, dir))
    local box = create { agent = { harness = "codex", model = "openai/x", api_key = KEY } }
    assert.are.equal("/run/lbox/agents/codex/node_modules/@openai/codex/bin/codex.js\n",
      box.exec:command("readlink -f $(command -v codex)").result)
    assert.are.equal("@openai\nneeded\n", box.exec:command("ls /run/lbox/agents/codex/node_modules").result)
  end)

  describe("of Cursor, by the output that is documented,", function()
    local SESSION = '"session_id":"c6b62c6f-7ead-4fd6-9922-e952131177ff"'
    local TOLD = '{"type":"result","subtype":"success","duration_ms":5234,"duration_api_ms":5234,"is_error":false,'
      .. '"result":"Read it. Wrote it.",' .. SESSION .. ',"request_id":"10e11780"}'
    local box

    setup(function()
      install(dir .. "/agents/bin/cursor-agent")
    end)

    before_each(function()
      box = create { agent = { harness = "cursor", model = "cursor/gpt-5.2", api_key = KEY } }
    end)

    it("tells of text, tools and the end", function()
      local chunks = {}
      box.files:write { path = "script", content = "printf '%s\\n' \"$@\" >args; env >vars\n" .. say(
        '{"type":"system","subtype":"init","apiKeySource":"env","cwd":"/workspace/home",' .. SESSION
          .. ',"model":"GPT-5.2","permissionMode":"default"}',
        '{"type":"user","message":{"role":"user","content":[{"type":"text","text":"go"}]},' .. SESSION .. "}",
        '{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":"Read it. "}]},'
          .. SESSION .. "}",
        '{"type":"tool_call","subtype":"started","call_id":"t1","tool_call":{"readToolCall":{"args":{"path":"a.md"}}},'
          .. SESSION .. "}",
        '{"type":"tool_call","subtype":"completed","call_id":"t1","tool_call":{"readToolCall":{"args":{"path":"a.md"},'
          .. '"result":{"success":{"content":"# A","totalLines":1}}}},' .. SESSION .. "}",
        '{"type":"tool_call","subtype":"completed","call_id":"t2","tool_call":{"function":{"name":"grep",'
          .. '"arguments":"{\\"pattern\\":\\"x\\"}","result":{"error":{"message":"no"}}}},' .. SESSION .. "}",
        '{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":"Wrote it."}]},'
          .. SESSION .. "}", TOLD) }
      for chunk in box.agent:stream { prompt = "--help" }:chunks() do
        chunks[#chunks + 1] = chunk
      end
      local kinds = {}
      for i, chunk in ipairs(chunks) do
        kinds[i] = chunk.type
      end
      assert.are.same({ "start", "text-delta", "tool-call", "tool-result", "tool-call", "tool-result", "text-delta",
        "finish", "stats" }, kinds)
      assert.are.same({ "read", { path = "a.md" } }, { chunks[3].tool_name, chunks[3].input })
      assert.are.same({ content = "# A", totalLines = 1 }, chunks[4].output)
      assert.are.same({ "grep", { pattern = "x" } }, { chunks[5].tool_name, chunks[5].input })
      assert.are.same({ error = { message = "no" } }, chunks[6].output)
      assert.are.equal("Read it. Wrote it.", chunks[8].output)
      assert.are.equal("--print\n--output-format=stream-json\n--force\n--model=gpt-5.2\n --help\n",
        box.files:read("args"))
      assert.matches("\nCURSOR_API_KEY=" .. KEY, "\n" .. box.files:read("vars"), 1, true)
      run(box, "printf '%s\\n' \"$@\" >args\n" .. say(TOLD))
      assert.matches("\n--resume=c6b62c6f-7ead-4fd6-9922-e952131177ff\n", box.files:read("args"), 1, true)
    end)

    it("has failed when it ends without its result or says so, and begins a new session then", function()
      run(box, say(TOLD))
      local _, err = run(box, "echo 'ActionRequiredError: no plan' >&2; exit 1")
      assert.matches("exit code 1 without saying that it was done: ActionRequiredError: no plan", err.message, 1, true)
      run(box, "printf '%s\\n' \"$@\" >args\n" .. say(TOLD))
      assert.is_nil(box.files:read("args"):find("--resume", 1, true))
      _, err = run(box, say('{"type":"result","subtype":"error","is_error":true,"result":"out of luck"}'))
      assert.matches("out of luck", err.message, 1, true)
    end)

    it("gives typed output by a schema that is in the prompt", function()
      local done = run(box, say('{"type":"result","subtype":"success","is_error":false,'
        .. '"result":"```json\\n{\\"n\\":3}\\n```"}'), { response_schema = { n = "integer" } })
      assert.are.same({ n = 3 }, done.result)
    end)

    it("refuses options and MCP servers, which it cannot be told of", function()
      local _, err = run(box, say(TOLD), { options = { max_turns = 1 } })
      assert.are.equal(400, err.status_code)
      assert.matches('Cursor has no option "max_turns": it takes none', err.message, 1, true)
      local ok
      ok, err = pcall(create, { mcp_servers = { { name = "a", package = "b" } },
        agent = { harness = "cursor", model = "cursor/x", api_key = KEY } })
      assert.is_false(ok)
      assert.are.equal(501, err.status_code)
      assert.matches("write them to ~/.cursor/mcp.json in the box", err.message, 1, true)
    end)
  end)
end)
