local async = require "lbox.async"
local fault = require "spec.support.fault"
local json = require "lbox.json"
local lbox = require "lbox"

local Box = lbox.Box

local ROUTES = [[
routes["POST /v2/box"] = function(reply, request)
  if request.body:find("lost", 1, true) then
    reply:cut()
  elseif request.body:find("silent", 1, true) then
    reply:hold()
  elseif request.body:find("taken", 1, true) then
    reply:sleep(100)
    reply:json(409, { id = "late-box", error = "the name is taken" })
  elseif request.body:find("late", 1, true) then
    reply:sleep(150)
    reply:json(200, { id = "late-box", status = "idle" })
  elseif request.body:find("leaky", 1, true) then
    reply:json(400, { error = "bad env s3cr3t-value and key sk-0123456789abcdef0 in the request" })
  elseif request.body:find("slow", 1, true) then
    reply:json(200, { id = "slow-box", status = "creating" })
  elseif request.body:find("broken", 1, true) then
    reply:json(200, { id = "broken-box", status = "creating" })
  elseif request.body:find("gone", 1, true) then
    reply:json(200, { id = "gone-box", status = "creating" })
  elseif request.body:find("foreign", 1, true) then
    reply:json(200, { id = "foreign-box", status = "creating" })
  elseif request.body:find("stuck", 1, true) then
    reply:json(200, { id = "stuck-box", status = "creating" })
  elseif request.body:find("nameless", 1, true) then
    reply:json(200, { status = "idle" })
  else
    reply:json(200, { id = "new-box", status = "idle", agent = "custom", model = "m",
      news = { 1 } })
  end
end
routes["GET /v2/box/slow-box"] = function(reply, request)
  if request.count == 1 then
    reply:json(500, { error = "not now" })
  else
    reply:json(200, { id = "slow-box", status = request.count < 3 and "creating" or "idle" })
  end
end
routes["GET /v2/box/broken-box"] = function(reply)
  reply:json(200, { id = "broken-box", status = "error" })
end
routes["GET /v2/box/gone-box"] = function(reply) reply:json(404, { error = "no such box" }) end
routes["GET /v2/box/foreign-box"] = function(reply) reply:json(401, { error = "no such key" }) end
routes["GET /v2/box/stuck-box"] = function(reply)
  reply:json(200, { id = "stuck-box", status = "creating" })
end
routes["DELETE /v2/box/stuck-box"] = function(reply) reply:json(200, {}) end
routes["DELETE /v2/box/late-box"] = function(reply, request)
  reply:json(request.count == 1 and 200 or 500, {})
end
routes["GET /v2/box/full"] = function(reply)
  reply:text(200, '{"id":"full","name":"n","size":"large","keep_alive":true, "status":"paused",'
    .. '"agent":null,"model":null,"network_policy":{"mode":"deny-all"},"expires_at":12,"labels":null}')
end
routes["GET /v2/box/plain"] = function(reply) reply:json(200, { id = "plain", status = "idle" }) end
routes["GET /v2/box/a%20b%2Fc"] = function(reply)
  reply:json(200, { id = "named", status = "idle" })
end
routes["GET /v2/box/gone"] = function(reply) reply:json(404, { error = "box not found" }) end
routes["GET /v2/box"] = function(reply, request)
  if request.query == "label=none%20of%26these" then
    reply:text(200, "null")
  else
    reply:text(200, '[{"id":"b1","name":null},{"id":"b2"}]')
  end
end
routes["DELETE /v2/box"] = function(reply) reply:json(200, {}) end
routes["DELETE /v2/box/plain"] = function(reply) reply:json(200, {}) end
routes["GET /v2/box/plain/status"] = function(reply) reply:json(200, { status = "running" }) end
routes["GET /v2/box/plain/runs"] = function(reply)
  reply:text(200, '{"runs":[{"id":"r2","type":"shell","cpu_ns":null},{"id":"r1"}]}')
end
routes["GET /v2/box/full/runs"] = function(reply) reply:text(200, '{"runs":null}') end
routes["POST /v2/box/plain/runs/r%2F1/cancel"] = function(reply) reply:json(200, {}) end
routes["POST /v2/box/plain/exec"] = function(reply, request)
  local reasons = { [""] = "No such file or directory", file = "Not a directory", entry = "Permission denied" }
  local kind = request.body:match("nope%-?(%l*)")
  reply:json(200, not kind and { exit_code = 0, output = "" } or { exit_code = 2, output = "",
    error = "ls: cannot access: " .. reasons[kind] .. "\n" })
end
routes["POST /v2/box/plain/exec-stream"] = function(reply)
  reply:begin()
  reply:chunk("going on")
  reply:hold()
end
]]

describe("Box", function()
  local server

  setup(function()
    server = fault.start(ROUTES)
  end)

  teardown(function()
    server:stop()
  end)

  local function create(opts)
    return Box.create(server:options(opts))
  end

  local function refused(opts)
    return fault.raised(create, opts)
  end

  local function last_body(name)
    local log = server:log(name)
    return json.decode(log[#log].body)
  end

  describe("create", function()
    it("sends nothing but what was given", function()
      local box = create()
      assert.are.equal("new-box", box.id)
      assert.are.equal("idle", box.status)
      assert.are.equal("small", box.size)
      assert.is_false(box.keep_alive)
      assert.are.same({ mode = "allow-all" }, box.network_policy)
      assert.are.same({ harness = "custom", model = "m" }, box.model_config)
      assert.are.equal("/workspace/home", box.cwd)
      assert.are.equal("{}", server:log("POST /v2/box")[1].body)
    end)

    it("sends every option under its name on the wire", function()
      create {
        name = "n", labels = { "a" }, runtime = "python", size = "large", keep_alive = true,
        init_command = "", browser = true, env = {},
          attach_headers = { ["api.x.com"] = { K = "v" } },
        agent = { harness = lbox.Agent.CLAUDE_CODE, model = lbox.ClaudeCode.SONNET_4_5,
          api_key = "STORED_KEY" },
        git = { token = "t", user_name = "u", user_email = "e" },
        network_policy = { mode = "custom", allowed_domains = { "x.com" }, denied_cidrs = {} },
        skills = { "o/r/s" },
        mcp_servers = { { name = "a", package = "@p/q", args = {} },
          { name = "b", url = "http://u" } },
        extra = { later = 1 },
      }
      local log = server:log("POST /v2/box")
      assert.are.equal('{"agent":"claude-code","agent_api_key":"STORED_KEY",'
        .. '"attach_headers":{"api.x.com":{"K":"v"}},"browser":true,"env_vars":{},'
        .. '"git_user_email":"e","git_user_name":"u","github_token":"t","init_command":"",'
        .. '"keep_alive":true,"labels":["a"],"later":1,'
        .. '"mcp_servers":[{"args":[],"name":"a","package_or_url":"@p\\/q","source":"npm"},'
        .. '{"name":"b","package_or_url":"http:\\/\\/u","source":"url"}],'
        .. '"model":"anthropic\\/claude-sonnet-4-5","name":"n",'
        .. '"network_policy":{"allowed_domains":["x.com"],"denied_cidrs":[],"mode":"custom"},'
        .. '"runtime":"python","size":"large","skills":["o\\/r\\/s"]}', log[#log].body)
    end)

    it("leaves out what is empty or false, but not an empty env", function()
      create { name = "", labels = {}, skills = {}, mcp_servers = {}, keep_alive = false,
        browser = false,
        git = {}, env = {} }
      assert.are.same({ env_vars = {} }, last_body("POST /v2/box"))
    end)

    it("sends a custom harness as a runner, its model custom unless named", function()
      create { agent = { harness = "custom", custom_harness = { command = "lbox", args = {} } } }
      local log = server:log("POST /v2/box")
      assert.are.equal('{"agent":"custom","custom_runner":{"args":[],"command":"lbox"},'
        .. '"model":"custom"}',
        log[#log].body)
    end)

    it("refuses what cannot be right, before any request", function()
      local before = #server:log()
      local wrong = {
        { { promt = 1 }, 'unknown option "promt"' },
        { { labls = {} }, 'unknown option "labls" %(did you mean "labels"%?%)' },
        { { name = 5 }, "name .* must be a string, got number" },
        { { agent = { model = "m" } }, "agent.harness is required" },
        { { agent = { harness = "codex" } }, "agent.model is required" },
        { { agent = { harness = "custom" } }, "agent.custom_harness is required" },
        { { agent = { harnes = "x" } }, "did you mean \"harness\"" },
        { { agent = { harness = "custom", custom_harness = {} } }, "command" },
        { { network_policy = {} }, "mode" },
        { { mcp_servers = { { name = "x" } } }, "package or url" },
        { { env = { A = 1 } }, "env must be a table of strings" },
        { { attach_headers = { h = "v" } }, "attach_headers" },
        { { timeout = -1 }, "timeout" },
        { { timeout = "1" }, "timeout" },
      }
      for _, each in ipairs(wrong) do
        local err = refused(each[1])
        assert.are.equal("usage", err.kind)
        assert.matches(each[2], err.message)
      end
      assert.are.equal(before, #server:log())
    end)

    it("waits until the box is ready, whatever a look at it says", function()
      local box = create { name = "slow" }
      assert.are.equal("idle", box.status)
      assert.are.equal(3, #server:log("GET /v2/box/slow-box"))
    end)

    it("raises with the id of a box that failed or is never ready", function()
      local err = refused { name = "broken" }
      assert.are.equal("api", err.kind)
      assert.are.equal("broken-box", err.box_id)
      local started = lbox.now()
      err = refused { name = "stuck", timeout = 400 }
      assert.are.equal("timeout", err.kind)
      assert.are.equal("stuck-box", err.box_id)
      assert.is_true(lbox.now() - started < 2000)
    end)

    it("says that a box may exist when its answer is lost, and asks only once", function()
      local before = #server:log("POST /v2/box")
      local err = refused { name = "lost" }
      assert.are.equal("network", err.kind)
      assert.matches("a box may have been created", err.message)
      err = refused { name = "silent", timeout = 80 }
      assert.are.equal("timeout", err.kind)
      assert.matches("a box may have been created", err.message)
      assert.are.equal(before + 2, #server:log("POST /v2/box"))
    end)

    it("deletes the box when it is cancelled, answered or not", function()
      for name, ms in pairs { late = 50, stuck = 300 } do
        assert.are.equal("timeout", fault.raised(lbox.timeout, ms, create, { name = name }).kind)
        assert.are.equal(1, #server:log("DELETE /v2/box/" .. name .. "-box"))
      end
    end)

    it("waits no longer for a box that is gone, or that it may not see", function()
      local err = refused { name = "gone" }
      assert.are.equal("no such box (404)", err.message)
      assert.are.equal(3, #server:log("GET /v2/box/gone-box"))
      assert.are.equal(401, refused({ name = "foreign" }).status_code)
      assert.are.equal(1, #server:log("GET /v2/box/foreign-box"))
    end)

    it("deletes no box of others when the server said no meanwhile", function()
      local before = #server:log("DELETE /v2/box/late-box")
      fault.raised(lbox.timeout, 50, create, { name = "taken" })
      assert.are.equal(before, #server:log("DELETE /v2/box/late-box"))
    end)

    it("says when a box may be left after a cancel", function()
      local said = {}
      async.on_error(function(text) said[#said + 1] = text end)
      fault.raised(lbox.timeout, 50, create, { name = "late" })
      fault.raised(lbox.timeout, 50, create, { name = "silent" })
      async.on_error(nil)
      assert.matches("^box late%-box is left, it could not be deleted: .*status 500", said[1])
      assert.matches("^a box may be left: nobody waits for its creation", said[2])
    end)

    it("shows no secret of the request in an error", function()
      local err = refused { name = "leaky", env = { A = "s3cr3t-value" } }
      assert.are.equal(400, err.status_code)
      assert.are.equal("bad env [redacted] and key [redacted] in the request (400)", err.message)
    end)

    it("refuses an answer without an id", function()
      assert.matches("not what a Box API answers", refused({ name = "nameless" }).message)
    end)
  end)

  describe("get", function()
    it("reads the box's fields, null as nil", function()
      local box = server:box("full")
      assert.are.equal("n", box.name)
      assert.are.equal("large", box.size)
      assert.is_true(box.keep_alive)
      assert.are.equal("paused", box.status)
      assert.are.same({ mode = "deny-all" }, box.network_policy)
      assert.are.same({}, box.model_config)
      assert.are.equal(12, box.expires_at)
      assert.are.equal("lbox.Box (full)", tostring(box))
    end)

    it("encodes the id and takes names", function()
      assert.are.equal("named", Box.get_by_name("a b/c", server:options()).id)
    end)

    it("refuses ids that would ask for something else", function()
      local before = #server:log()
      for _, id in ipairs { "", "  ", ".", "..", "a\0b" } do
        assert.are.equal("usage", fault.raised(Box.get, id, server:options()).kind)
      end
      assert.are.equal("usage", fault.raised(Box.get, nil, server:options()).kind)
      assert.are.equal("usage", fault.raised(Box.get, 5, server:options()).kind)
      assert.are.equal(before, #server:log())
    end)

    it("raises what the server says of an unknown box", function()
      local err = fault.raised(Box.get, "gone", server:options())
      assert.is_true(lbox.is_error(err, "api"))
      assert.are.equal(404, err.status_code)
      assert.are.equal("gone", err.box_id)
      assert.are.equal("lbox: api: box not found (404)", tostring(err))
      assert.is_false(err.retryable)
    end)
  end)

  it("lists what there is, by label", function()
    assert.are.same({ { id = "b1" }, { id = "b2" } }, Box.list(server:options()))
    assert.are.same({}, Box.list(server:options { label = "none of&these" }))
    assert.matches("extra", fault.raised(Box.list, server:options { extra = {} }).message)
  end)

  it("deletes several, never none", function()
    Box.delete_boxes(server:options { box_ids = "a" })
    assert.are.same({ ids = { "a" } }, last_body("DELETE /v2/box"))
    Box.delete_boxes(server:options { box_ids = { "a", "b" } })
    assert.are.same({ ids = { "a", "b" } }, last_body("DELETE /v2/box"))
    local before = #server:log()
    for _, ids in ipairs { {}, "", " ", { "a", "" }, { 5 } } do
      local err = fault.raised(Box.delete_boxes, server:options { box_ids = ids })
      assert.are.equal("lbox: usage: box_ids must contain at least one non-empty id", tostring(err))
    end
    assert.are.equal("usage", fault.raised(Box.delete_boxes, server:options()).kind)
    assert.are.equal(before, #server:log())
  end)

  it("says how a call is written when dot and colon are mixed up", function()
    local box = server:box("plain")
    assert.are.equal("call it as box:get_status(…)", fault.raised(box.get_status).message)
    assert.are.equal("call it as box:cd(…)", fault.raised(box.cd, "x").message)
    assert.are.equal("call it as box.exec:command(…)", fault.raised(box.exec.command, "ls").message)
    assert.are.equal("call it as box.agent:run{…}",
      fault.raised(box.agent.run, { prompt = "p" }).message)
    assert.are.equal("call it as Box.create{…}", fault.raised(Box.create, Box, {}).message)
    assert.are.equal("call it as Box.get(…)", fault.raised(Box.get, Box, "id").message)
  end)
end)

describe("a box", function()
  local server, box

  setup(function()
    server = fault.start(ROUTES)
  end)

  teardown(function()
    server:stop()
  end)

  before_each(function()
    box = server:box("plain")
  end)

  it("tells its status and remembers it", function()
    assert.are.same({ status = "running" }, box:get_status())
    assert.are.equal("running", box.status)
    assert.are.equal(box, box:refresh())
    assert.are.equal("idle", box.status)
  end)

  it("lists and cancels runs", function()
    assert.are.same({ { id = "r2", type = "shell" }, { id = "r1" } }, box:list_runs())
    assert.are.same({}, server:box("full"):list_runs())
    assert.is_nil(box:cancel_run("r/1"))
    assert.are.equal(404, fault.raised(box.cancel_run, box, "r2").status_code)
    assert.are.equal("usage", fault.raised(box.cancel_run, box, " ").kind)
  end)

  it("changes its directory to one that is there", function()
    local function listed()
      local log = server:log("POST /v2/box/plain/exec")
      return json.decode(log[#log].body)
    end
    box:cd("src/../lib/./x")
    assert.are.equal("/workspace/home/lib/x", box.cwd)
    assert.are.same({ command = { "ls", "-d", "--", "/workspace/home/lib/x/." } }, listed())
    box:cd("../../../../../tmp")
    assert.are.equal("/tmp", box.cwd)
    box:cd("/")
    assert.are.equal("/", box.cwd)
    local err = fault.raised(box.cd, box, "nope")
    assert.are.equal("cd: nope: No such file or directory", err.message)
    assert.are.equal("cd: nope-file: Not a directory", fault.raised(box.cd, box, "nope-file").message)
    assert.are.equal("cd: nope-entry: Permission denied", fault.raised(box.cd, box, "nope-entry").message)
    assert.are.equal("/", box.cwd)
    assert.are.equal("usage", fault.raised(box.cd, box, "").kind)
  end)

  it("can do nothing after close, which needs no server", function()
    local stream = box.exec:stream("sleep 100")
    assert.are.equal("going on", stream:next().data)
    box:close()
    assert.are.equal("detached", stream.status)
    assert.are.equal("going on", stream.result)
    for _, call in ipairs {
      function() box:get_status() end,
      function() box:refresh() end,
      function() box:list_runs() end,
      function() box:cd("x") end,
      function() box.exec:command("ls") end,
      function() box.files:read("x") end,
      function() box.agent:run { prompt = "x" } end,
    } do
      local err = fault.raised(call)
      assert.are.equal("lbox: usage: box plain is closed", tostring(err))
      assert.are.equal("plain", err.box_id)
    end
    local before = #server:log()
    assert.is_nil(box:close())
    assert.is_nil(box:delete())
    assert.are.equal(before, #server:log())
  end)

  it("is closed when it was deleted", function()
    local before = #server:log("DELETE /v2/box/plain")
    assert.is_nil(box:delete())
    assert.is_nil(box:delete())
    assert.are.equal(before + 1, #server:log("DELETE /v2/box/plain"))
    assert.matches("is closed", fault.raised(box.get_status, box).message)
  end)

  it("checks the options of every call", function()
    assert.matches("did you mean \"timeout\"",
      fault.raised(box.get_status, box, { timout = 1 }).message)
    assert.are.equal("usage", fault.raised(box.delete, box, { timeout = -1 }).kind)
  end)
end)
