local fault = require "spec.support.fault"
local lbox = require "lbox"
local raised = fault.raised
local EphemeralBox = lbox.EphemeralBox

local DATA = '{"id":"e1","status":"idle","ephemeral":true,"expires_at":99,"labels":["ci"]}'

describe("an ephemeral box", function()
  local server

  setup(function()
    server = fault.answering {
      ["POST /v2/box"] = DATA,
      ["POST /v2/box/from-snapshot"] = DATA,
      ["GET /v2/box/e1"] = DATA,
      ["GET /v2/box/lasting"] = '{"id":"b1","status":"idle"}',
      ["GET /v2/box/e1/status"] = '{"status":"running"}',
      ["POST /v2/box/e1/schedules"] = '{"id":"s1"}',
      ["POST /v2/box/e1/exec"] = '{"exit_code":0,"output":"hi\\n"}',
      ["DELETE /v2/box/e1"] = "{}",
      ["DELETE /v2/box"] = "{}",
    }
  end)

  teardown(function()
    server:stop()
  end)

  it("is made with its own options, and lives so many seconds", function()
    local box = EphemeralBox.create(server:options { ttl = 60, labels = { "ci" }, env = { A = "b" }, size = "large" })
    assert.are.same({ ephemeral = true, ttl = 60, labels = { "ci" }, env_vars = { A = "b" }, size = "large" },
      server:sent("POST /v2/box").json)
    assert.are.same({ "e1", 99, "ci", "small", "/workspace/home" },
      { box.id, box.expires_at, box.labels[1], box.size, box.cwd })
    assert.are.equal("lbox.EphemeralBox (e1)", tostring(box))
    EphemeralBox.from_snapshot("s1", server:options { ttl = 0 })
    assert.are.same({ ephemeral = true, ttl = 0, snapshot_id = "s1" }, server:sent("POST /v2/box/from-snapshot").json)
  end)

  it("runs commands, has files and schedules", function()
    local box = EphemeralBox.get_by_name("e1", server:options())
    assert.are.equal("hi\n", box.exec:command("echo hi").result)
    assert.are.equal("running", box:get_status().status)
    assert.are.equal(box, box:refresh())
    assert.are.equal("idle", box.status)
    assert.are.equal("s1", box.schedule:agent({ cron = "* * * * *", prompt = "x" }).id)
    box:delete()
    assert.are.equal("usage", raised(function() box:get_status() end).kind)
  end)

  it("says of what it does not have that it has none", function()
    local box = EphemeralBox.create(server:options())
    for _, name in ipairs { "git", "agent", "skills", "browser", "pause", "resume", "logs", "list_runs",
      "get_public_url", "configure_model",
      "set_init_command", "update_network_policy", "keep_alive", "model_config" } do
      local err = raised(function() return box[name] end)
      assert.are.same({ "usage", "an ephemeral box has no " .. name }, { err.kind, err.message })
    end
    assert.is_nil(box.name)
    assert.is_nil(box.no_such_thing)
  end)

  it("is not taken for a lasting one", function()
    local err = raised(EphemeralBox.get_by_name, "lasting", server:options())
    assert.are.same({ "usage", "box lasting is not ephemeral: use Box.get_by_name" }, { err.kind, err.message })
    assert.are.equal(99, lbox.Box.get("e1", server:options()).expires_at)
    assert.are.equal("usage", raised(EphemeralBox.create, server:options { keep_alive = true }).kind)
    EphemeralBox.delete_boxes(server:options { box_ids = "e1" })
    assert.are.same({ ids = { "e1" } }, server:sent("DELETE /v2/box").json)
  end)

  it("is deleted with the code that uses it", function()
    local deleted = #server:log "DELETE /v2/box/e1"
    local id = lbox.with_box(server:options { ephemeral = true, ttl = 5 }, function(box) return box.id end)
    assert.are.equal("e1", id)
    local sent = server:sent("POST /v2/box").json
    assert.are.same({ true, 5 }, { sent.ephemeral, sent.ttl })
    assert.is_truthy(sent.labels[1]:find("^lbox:"))
    lbox.with_box(server:options { snapshot = "s9" }, function(box) assert.is_table(box.git) end)
    assert.are.equal("s9", server:sent("POST /v2/box/from-snapshot").json.snapshot_id)
    assert.are.equal(deleted + 2, #server:log "DELETE /v2/box/e1")
    assert.are.equal("usage", raised(lbox.with_box, { ephemeral = "yes" }, print).kind)
  end)
end)
