local fault = require "spec.support.fault"
local lbox = require "lbox"
local raised = fault.raised

local ROUTES = [[
local json = require "lbox.json"
local function snapshot(id, status)
  return { id = id, name = "n", box_id = "b1", size_bytes = 7, status = status, created_at = 1 }
end
for _, id in ipairs { "slow", "broken", "lost", "stuck" } do
  routes["POST /v2/box/" .. id .. "/snapshots"] = function(reply) reply:json(200, snapshot("s1", "creating")) end
end
routes["GET /v2/box/slow/snapshots"] = function(reply, request)
  if request.count == 1 then
    reply:json(503, { error = "not now" }, { ["Retry-After"] = "0" })
  else
    local status = request.count < 4 and "creating" or "ready"
    reply:json(200, { snapshots = { snapshot("s0", "ready"), snapshot("s1", status) } })
  end
end
routes["GET /v2/box/broken/snapshots"] = function(reply)
  reply:json(200, { snapshots = { snapshot("s1", "error") } })
end
routes["GET /v2/box/lost/snapshots"] = function(reply) reply:text(200, '{"snapshots":null}') end
routes["GET /v2/box/stuck/snapshots"] = function(reply)
  reply:json(200, { snapshots = { snapshot("s1", "creating") } })
end
routes["POST /v2/box/quick/snapshots"] = function(reply) reply:json(200, snapshot("s1", "ready")) end
routes["POST /v2/box/silent/snapshots"] = function(reply) reply:json(200, {}) end
routes["DELETE /v2/box/quick/snapshots/s%2F1"] = function(reply) reply:json(200, {}) end
routes["DELETE /v2/box/snapshots"] = function(reply) reply:json(200, { deleted = 2 }) end
routes["POST /v2/box/from-snapshot"] = function(reply)
  reply:json(200, { id = "new", status = "creating", agent = "codex", model = "m" })
end
routes["GET /v2/box/new"] = function(reply)
  reply:json(200, { id = "new", status = "idle", agent = "codex", model = "m" })
end
]]

describe("a snapshot", function()
  local server

  setup(function()
    server = fault.start(ROUTES)
  end)

  teardown(function()
    server:stop()
  end)

  it("is waited for until it is ready", function()
    local snapshot = server:box("slow"):snapshot { name = "n" }
    assert.are.same({ "s1", "ready", 7 }, { snapshot.id, snapshot.status, snapshot.size_bytes })
    assert.are.same({ name = "n" }, server:sent("POST /v2/box/slow/snapshots").json)
    assert.are.equal("ready", server:box("quick"):snapshot({ name = "n" }).status)
  end)

  it("that was not made is no success", function()
    for id, message in pairs {
      broken = "snapshot s1 of box broken could not be created: its status is error",
      lost = "snapshot s1 of box lost could not be created: it is not in the list",
    } do
      local err = raised(function() server:box(id):snapshot { name = "n" } end)
      assert.are.same({ "api", message }, { err.kind, err.message })
    end
    assert.are.equal("api", raised(function() server:box("silent"):snapshot { name = "n" } end).kind)
    local started = lbox.now()
    local err = raised(function() server:box("stuck"):snapshot { name = "n", timeout = 400 } end)
    assert.are.equal("timeout", err.kind)
    assert.is_true(lbox.now() - started < 1500)
  end)

  it("is listed and deleted", function()
    assert.are.same({}, server:box("lost"):list_snapshots())
    assert.are.equal("s1", server:box("broken"):list_snapshots()[1].id)
    server:box("quick"):delete_snapshot("s/1")
    assert.are.equal(1, #server:log("DELETE /v2/box/quick/snapshots/s%2F1"))
  end)

  it("becomes a box with everything create takes", function()
    local box = lbox.Box.from_snapshot("s1", server:options {
      name = "restored", env = { A = "b" }, browser = true, skills = { "o/r/s" },
      git = { user_name = "Ada", user_email = "a@b" },
    })
    assert.are.same({ "new", "idle", "codex" }, { box.id, box.status, box.model_config.harness })
    assert.are.same({
      snapshot_id = "s1", name = "restored", env_vars = { A = "b" }, browser = true, skills = { "o/r/s" },
      git_user_name = "Ada", git_user_email = "a@b",
    }, server:sent("POST /v2/box/from-snapshot").json)
    assert.are.equal("usage", raised(lbox.Box.from_snapshot, "", server:options()).kind)
    assert.are.equal("usage", raised(lbox.Box.from_snapshot, nil, server:options()).kind)
  end)

  it("is deleted with others, but never all by mistake", function()
    local Box = lbox.Box
    assert.are.same({ deleted = 2 }, Box.delete_snapshots(server:options { snapshot_ids = { "s1", "s2" } }))
    local sent = server:sent "DELETE /v2/box/snapshots"
    assert.are.same({ json = { ids = { "s1", "s2" } }, query = "" }, { json = sent.json, query = sent.query })
    Box.delete_snapshots(server:options { all = true })
    local all = server:log "DELETE /v2/box/snapshots"
    assert.are.same({ "{}", "all=true" }, { all[#all].body, all[#all].query })
    for _, opts in ipairs { {}, { snapshot_ids = {} }, { snapshot_ids = { "s1", " " } }, { snapshot_ids = "" },
      { all = false }, { all = true, snapshot_ids = "s1" } } do
      assert.are.equal("usage", raised(Box.delete_snapshots, server:options(opts)).kind)
    end
    assert.are.equal(#all, #server:log "DELETE /v2/box/snapshots")
  end)
end)
