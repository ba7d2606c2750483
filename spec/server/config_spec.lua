-- What local boxes are given, and what is changed later.
local json = require "lbox.json"
local lbox = require "lbox"
local support = require "spec.support.local"
local Box = lbox.Box

local function raises(code, message, fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.are.equal(code, err.status_code, tostring(err))
  assert.is_truthy(err.message:find(message, 1, true), err.message)
end

describe("the environment of boxes to come", function()
  local server

  setup(function()
    server = support.start()
  end)

  teardown(function()
    server:stop()
  end)

  it("is kept, told masked, and given to boxes made from then on", function()
    local before = Box.create(server:client())
    Box.set_env("FIRST", "secret one", server:client())
    Box.set_env("SECOND", "two", server:client())
    Box.set_env("SECOND", "second", server:client())
    local listed = Box.list_env(server:client())
    assert.are.same({ FIRST = "********", SECOND = "********" }, listed)
    local after = Box.create(server:client { env = { SECOND = "its own" } })
    assert.are.equal("secret one, its own\n", after.exec:command("echo $FIRST, $SECOND").result)
    assert.are.equal(",\n", before.exec:command("echo $FIRST,$SECOND").result)
    local snapshot = after:snapshot { name = "x" }
    Box.set_all_env({ THIRD = "third", FIRST = "another" }, server:client())
    assert.are.same({ FIRST = "********", THIRD = "********" }, Box.list_env(server:client()))
    -- What the source had goes before what boxes get anyway.
    local restored = Box.from_snapshot(snapshot.id, server:client { env = { FOURTH = "4" } })
    assert.are.equal("secret one, its own, third, 4\n",
      restored.exec:command("echo $FIRST, $SECOND, $THIRD, $FOURTH").result)
    Box.delete_env("FIRST", server:client())
    assert.are.same({ THIRD = "********" }, Box.list_env(server:client()))
    raises(404, "there is no variable \"FIRST\"", Box.delete_env, "FIRST", server:client())
  end)

  it("outlives the server, and is never in the log", function()
    Box.set_all_env({ KEPT = "kept secret" }, server:client())
    server:kill("KILL")
    assert.is_nil(server:said():find("kept secret", 1, true))
    local again = support.start { dir = server.dir }
    os.remove(server.log)
    server = again
    assert.are.equal("kept secret\n", Box.create(server:client()).exec:command("echo $KEPT").result)
  end)

  it("refuses names that would change what runs, and says which", function()
    for _, name in ipairs { "PATH", "HOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "NODE_OPTIONS" } do
      raises(400, name .. " cannot be set", Box.set_env, name, "x", server:client())
      raises(400, name .. " cannot be set", Box.set_all_env, { [name] = "x", GOOD = "y" }, server:client())
    end
    raises(400, "\"1A\" is not a variable name", Box.set_env, "1A", "x", server:client())
    raises(400, "the value of A must be a string without NUL", Box.set_all_env, { A = "a\0b" }, server:client())
    raises(400, "BIG is too much", Box.set_env, "BIG", ("x"):rep(130000), server:client())
    assert.are.same({ KEPT = "********" }, Box.list_env(server:client()))
    assert.are.equal(400, (server:ask("PUT", "/v2/box/settings/env", "{}")))
    assert.are.equal(400, (server:ask("PUT", "/v2/box/settings/env/A", '{"value":1}')))
  end)
end)

describe("a local box", function()
  local server, box

  setup(function()
    server = support.start()
    box = Box.create(server:client { labels = { "one" } })
  end)

  teardown(function()
    server:stop()
  end)

  it("gets labels and loses them", function()
    assert.are.same({ "one", "two" }, box.labels:add("two"))
    raises(409, "Label already added", box.labels.add, box.labels, "two")
    assert.are.same({ "two" }, box.labels:remove("one"))
    raises(404, "no label \"one\"", box.labels.remove, box.labels, "one")
    assert.are.same({ "two" }, Box.get(box.id, server:client()).labels:list())
    raises(400, "label \"a b\": 1 to 20", box.labels.add, box.labels, "a b")
    raises(400, "1 to 20", box.labels.add, box.labels, ("x"):rep(21))
    for _, label in ipairs { "3", "4", "5", "6" } do
      box.labels:add(label)
    end
    raises(400, "at most 5 labels, got 6", box.labels.add, box.labels, "7")
    assert.are.equal(1, #Box.list(server:client { label = "6" }))
  end)

  it("gets another model and another custom harness", function()
    raises(400, "not \"none\"", function()
      local code, answer = server:ask("PUT", "/v2/box/" .. box.id .. "/config/custom-runner",
        '{"custom_runner":{"command":"x"}}')
      error({ status_code = code, message = json.decode(answer).error }, 0)
    end)
    local with_agent = Box.create(server:client { agent = { harness = "custom", model = "first",
      custom_harness = { command = "false" } } })
    with_agent:configure_model("second")
    with_agent:configure_custom_harness { command = "sh", args = { "-c",
      "printf 'event: done\\ndata: {\"output\":\"%s\"}\\n\\n' \"$4\"", "sh" } }
    assert.are.equal("second", with_agent.agent:run { prompt = "x" }.result)
    assert.are.equal("second", Box.get(with_agent.id, server:client()).model_config.model)
    for body, message in pairs {
      ['{"custom_runner":{}}'] = 'the field \\"command\\" is required',
      ['{"custom_runner":{"command":"x","protocol":"y"}}'] = 'protocol \\"y\\": only',
      ["{}"] = 'the field \\"custom_runner\\" is required',
    } do
      local code, answer = server:ask("PUT", "/v2/box/" .. with_agent.id .. "/config/custom-runner", body)
      assert.are.equal(400, code)
      assert.is_truthy(answer:find(message, 1, true), answer)
    end
    for _, command in ipairs { "/etc/x", "../../x", "bin/x", "/home/boxuser/../../etc/x", "/workspace/home/a/..",
      "/home/boxuser/", "/home/boxuser", "a\nb", ("x"):rep(5000) } do
      raises(400, "a name on PATH, or a path below /workspace/home/ or /home/boxuser/",
        with_agent.configure_custom_harness, with_agent, { command = command })
      raises(400, "a name on PATH, or a path below /workspace/home/ or /home/boxuser/", Box.create, server:client {
        agent = { harness = "custom", custom_harness = { command = command } } })
    end
    for _, command in ipairs { "x", "..x", "/workspace/home/a..b/x", "/home/boxuser/x y" } do
      with_agent:configure_custom_harness { command = command }
    end
  end)

  it("has the network policy that it was given last", function()
    local custom = { mode = "custom", allowed_domains = { "a.test", "*.b.test" }, denied_cidrs = { "93.184.216.0/24" } }
    box:update_network_policy(custom)
    assert.are.same(custom, Box.get(box.id, server:client()).network_policy)
    raises(400, "is not a name", box.update_network_policy, box, { mode = "custom", allowed_domains = { "a b" } })
    assert.are.same(custom, Box.get(box.id, server:client()).network_policy)
    box:update_network_policy { mode = "deny-all" }
    assert.are.same({ mode = "deny-all" }, Box.get(box.id, server:client()).network_policy)
  end)

  it("commits as whom it is told", function()
    assert.are.same({ 200, '{"git_user_email":"box@upstash.com","git_user_name":"Ada \\"L\\" B"}' },
      { server:ask("PUT", "/v2/box/" .. box.id .. "/config/git", '{"git_user_name":"Ada \\"L\\" B"}') })
    assert.are.same({ 200, '{"git_user_email":"ada@example.org","git_user_name":"Ada \\"L\\" B"}' },
      { server:ask("PUT", "/v2/box/" .. box.id .. "/git-config", '{"git_user_email":"ada@example.org"}') })
    assert.are.equal("Ada \"L\" B <ada@example.org>\n", box.exec:command("git init -q r && cd r && "
      .. "git commit -q --allow-empty -m x && git log --format='%an <%ae>'").result)
    local code, answer = server:ask("PUT", "/v2/box/" .. box.id .. "/config/git", '{"git_user_name":"a<b"}')
    assert.are.equal(400, code)
    assert.matches("no < or >", answer)
  end)

  it("commits as whom it was made for, also one made of a snapshot", function()
    local made = Box.create(server:client { git = { user_name = "Eve", user_email = "eve@example.org" } })
    local who = "git var GIT_AUTHOR_IDENT | sed 's/>.*/>/'"
    assert.are.equal("Eve <eve@example.org>\n", made.exec:command(who).result)
    local snapshot = made:snapshot { name = "x" }
    assert.are.equal("Eve <eve@example.org>\n",
      Box.from_snapshot(snapshot.id, server:client()).exec:command(who).result)
    local other = Box.from_snapshot(snapshot.id, server:client { git = { user_name = "Bob" } })
    assert.are.equal("Bob <eve@example.org>\n", other.exec:command(who).result)
  end)
end)
