local fault = require "spec.support.fault"
local raised = fault.raised

describe("a box", function()
  local server, box

  setup(function()
    server = fault.answering {
      ["GET /v2/box/b1"] = '{"id":"b1","status":"idle","agent":"custom","model":"m","labels":["a","lbox:0123456789ab"],'
        .. '"enabled_skills":["o/r/s"]}',
      ["GET /v2/box/awake"] = '{"id":"awake","status":"idle","keep_alive":true,"agent":"codex","labels":null}',
      ["PUT /v2/box/b1/config/model"] = "{}",
      ["PUT /v2/box/b2/config/model"] = { 400, '{"error":"no such model"}' },
      ["PUT /v2/box/b1/config/custom-runner"] = "{}",
      ["PUT /v2/box/b1/config/network-policy"] = "{}",
      ["GET /v2/box/b1/startup"] = '{"init_command":"make"}',
      ["GET /v2/box/b2/startup"] = "{}",
      ["PUT /v2/box/b1/startup"] = "{}",
      ["DELETE /v2/box/b1/startup"] = "{}",
      ["POST /v2/box/b1/pause"] = "{}",
      ["POST /v2/box/b1/resume"] = '{"status":"running"}',
      ["POST /v2/box/b1/config/labels"] = '{"message":"Label added","labels":["lbox:0123456789ab","a","b"]}',
      ["POST /v2/box/b2/config/labels"] = { 409, '{"error":"Label already added"}' },
      ["DELETE /v2/box/b1/config/labels/a%3Ab"] = '{"message":"Label removed","labels":null}',
      ["POST /v2/box/b1/config/skills"] = "{}",
      ["DELETE /v2/box/b1/config/skills/o/r%20x/s"] = "{}",
      ["POST /v2/box/b1/preview"] = '{"url":"https://p","port":3000,"token":"t","username":null}',
      ["POST /v2/box/b2/preview"] = "{}",
      ["GET /v2/box/b1/preview"] = '{"previews":[{"id":"b1-3000","port":3000,"url":"https://p","basic_auth":false}]}',
      ["DELETE /v2/box/b1/preview/3000"] = "{}",
      ["GET /v2/box/b1/logs"] = '{"logs":[{"timestamp":5,"level":"info","source":"system","message":"up"}]}',
    }
    box = server:box "b1"
  end)

  teardown(function()
    server:stop()
  end)

  it("gets another model, and knows it", function()
    box:configure_model "m2"
    assert.are.same({ model = "m2" }, server:sent("PUT /v2/box/b1/config/model").json)
    assert.are.same({ harness = "custom", model = "m2" }, box.model_config)
    local other = server:box "b2"
    assert.are.equal(400, raised(function() other:configure_model "m3" end).status_code)
    assert.are.equal("none", other.model_config.model)
  end)

  it("gets another harness only if it has a custom one", function()
    box:configure_custom_harness { command = "lbox", args = { "a.lua" }, protocol = "box-sse-v1" }
    assert.are.same({ custom_runner = { command = "lbox", args = { "a.lua" }, protocol = "box-sse-v1" } },
      server:sent("PUT /v2/box/b1/config/custom-runner").json)
    local err = raised(function() server:box("awake"):configure_custom_harness { command = "lbox" } end)
    assert.are.same({ "usage", "box awake has the harness codex: only that of a custom one can be configured" },
      { err.kind, err.message })
    assert.are.equal("usage", raised(function() box:configure_custom_harness {} end).kind)
  end)

  it("gets another network policy, and knows it", function()
    assert.are.same({ mode = "allow-all" }, box.network_policy)
    box:update_network_policy { mode = "custom", allowed_domains = { "example.com" }, denied_cidrs = {} }
    local all = server:log "PUT /v2/box/b1/config/network-policy"
    assert.are.equal('{"allowed_domains":["example.com"],"denied_cidrs":[],"mode":"custom"}', all[1].body)
    assert.are.equal("custom", box.network_policy.mode)
    assert.are.equal("usage", raised(function() box:update_network_policy { allowed_domains = {} } end).kind)
  end)

  it("has an init command that is read, set and taken away", function()
    assert.are.equal("make", box:get_init_command())
    assert.are.equal("", server:box("b2"):get_init_command())
    box:set_init_command "npm start"
    assert.are.same({ init_command = "npm start" }, server:sent("PUT /v2/box/b1/startup").json)
    box:delete_init_command()
    assert.are.equal(1, #server:log "DELETE /v2/box/b1/startup")
    assert.are.equal("usage", raised(function() box:set_init_command "" end).kind)
  end)

  it("pauses and resumes, unless it is kept alive", function()
    box:pause()
    assert.are.equal("paused", box.status)
    box:resume()
    assert.are.equal("running", box.status)
    local err = raised(function() server:box("awake"):pause() end)
    assert.are.same({ "usage", "box awake is keep_alive: it cannot be paused" }, { err.kind, err.message })
    assert.are.equal(0, #server:log "POST /v2/box/awake/pause")
  end)

  it("has labels, without the one of its owner", function()
    assert.are.same({ "a" }, box.labels:list())
    assert.are.same({}, server:box("awake").labels:list())
    assert.are.same({ "a", "b" }, box.labels:add "b")
    assert.are.same({ label = "b" }, server:sent("POST /v2/box/b1/config/labels").json)
    assert.are.same({}, box.labels:remove "a:b")
    local err = raised(function() server:box("b2").labels:add "b" end)
    assert.are.same({ 409, true }, { err.status_code, err.message:find("Label already added", 1, true) ~= nil })
  end)

  it("has skills, whose ids keep their slashes", function()
    assert.are.same({ "o/r/s" }, box.skills:list())
    assert.are.same({}, server:box("awake").skills:list())
    box.skills:add "o/r/s"
    assert.are.same({ skill_id = "o/r/s" }, server:sent("POST /v2/box/b1/config/skills").json)
    box.skills:remove "o/r x/s"
    assert.are.equal(1, #server:log "DELETE /v2/box/b1/config/skills/o/r%20x/s")
    for _, id in ipairs { "", "o//s", "o/../s", "/" } do
      assert.are.equal("usage", raised(function() box.skills:remove(id) end).kind)
    end
  end)

  it("opens ports to the outside", function()
    local public = box:get_public_url(3000, { bearer_token = true, basic_auth = false })
    assert.are.same({ url = "https://p", port = 3000, token = "t" }, public)
    assert.are.same({ port = 3000, bearer_token = true, basic_auth = false },
      server:sent("POST /v2/box/b1/preview").json)
    box:get_public_url(3000)
    assert.are.same({ port = 3000 }, server:sent("POST /v2/box/b1/preview").json)
    assert.are.equal("b1-3000", box:list_public_urls()[1].id)
    box:delete_public_url(3000)
    assert.are.equal("api", raised(function() server:box("b2"):get_public_url(80) end).kind)
    for _, port in ipairs { 0, 65536, 1.5, "80" } do
      local err = raised(function() box:get_public_url(port) end)
      assert.is_truthy(err.message:find("port must be a whole number from 1 to 65535", 1, true), err.message)
    end
  end)

  it("has a log", function()
    assert.are.equal("up", box:logs({ offset = 0, limit = 10 })[1].message)
    assert.are.equal("offset=0&limit=10", server:sent("GET /v2/box/b1/logs").query)
    box:logs()
    assert.are.equal("", server:sent("GET /v2/box/b1/logs").query)
    assert.are.equal("usage", raised(function() box:logs { limit = -1 } end).kind)
  end)
end)
