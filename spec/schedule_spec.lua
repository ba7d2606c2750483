local fault = require "spec.support.fault"
local lbox = require "lbox"
local raised = fault.raised

local SCHEDULE = [[{"id":"s1","box_id":"b1","type":"exec","cron":"0 9 * * *","status":"active","last_run_at":null,
  "total_runs":0,"total_failures":0,"created_at":1,"updated_at":1}]]

describe("schedule", function()
  local server, box

  setup(function()
    server = fault.answering {
      ["GET /v2/box/b1"] = '{"id":"b1","status":"idle","agent":"claude-code","model":"m"}',
      ["POST /v2/box/b1/schedules"] = SCHEDULE,
      ["GET /v2/box/b1/schedules"] = "[" .. SCHEDULE .. "]",
      ["GET /v2/box/b2/schedules"] = "[]",
      ["GET /v2/box/b1/schedules/s1"] = SCHEDULE,
      ["PATCH /v2/box/b1/schedules/s1"] = SCHEDULE,
      ["POST /v2/box/b1/schedules/s1/pause"] = "{}",
      ["POST /v2/box/b1/schedules/s1/resume"] = "{}",
      ["DELETE /v2/box/b1/schedules/s1"] = "{}",
      ["POST /v2/box/secret/schedules"] = { 400, '{"error":"bad header Bearer hook-s3cret"}' },
    }
    box = server:box "b1"
  end)

  teardown(function()
    server:stop()
  end)

  it("runs a command: a shell's, or a program and its arguments", function()
    local schedule = box.schedule:exec { cron = "0 9 * * *", command = "make report" }
    assert.are.equal("s1", schedule.id)
    assert.is_nil(schedule.last_run_at)
    assert.are.same({ type = "exec", cron = "0 9 * * *", command = { "sh", "-c", "make report" },
      folder = "/workspace/home" }, server:sent("POST /v2/box/b1/schedules").json)
    box.schedule:exec {
      cron = "* * * * *", command = { "date", "-u" }, folder = "logs", webhook_url = "https://example.com",
      webhook_headers = { A = "b" },
    }
    assert.are.same({ type = "exec", cron = "* * * * *", command = { "date", "-u" }, folder = "/workspace/home/logs",
      webhook_url = "https://example.com", webhook_headers = { A = "b" } },
      server:sent("POST /v2/box/b1/schedules").json)
  end)

  it("runs the agent, with its options as the harness spells them and the time limit of each run", function()
    box.schedule:agent {
      cron = "0 9 * * *", prompt = "tidy up", model = "m2", options = { max_turns = 3 }, timeout = 60000,
      webhook_headers = {},
    }
    assert.are.same({ type = "prompt", cron = "0 9 * * *", prompt = "tidy up", model = "m2", timeout = 60000,
      agent_options = { maxTurns = 3 }, folder = "/workspace/home" }, server:sent("POST /v2/box/b1/schedules").json)
  end)

  it("lists, reads, holds, lets go on and deletes", function()
    assert.are.equal("s1", box.schedule:list()[1].id)
    assert.are.same({}, server:box("b2").schedule:list())
    assert.are.equal("0 9 * * *", box.schedule:get("s1").cron)
    box.schedule:pause "s1"
    box.schedule:resume "s1"
    box.schedule:delete "s1"
    for _, name in ipairs { "POST /v2/box/b1/schedules/s1/pause", "POST /v2/box/b1/schedules/s1/resume",
      "DELETE /v2/box/b1/schedules/s1" } do
      assert.are.equal(1, #server:log(name))
    end
  end)

  it("changes what is given, clears what is given empty", function()
    local function updated(opts)
      box.schedule:update("s1", opts)
      local all = server:log("PATCH /v2/box/b1/schedules/s1")
      return (all[#all].body:gsub("\\/", "/"))
    end
    assert.are.equal('{"cron":"1 * * * *","timeout":5}', updated { cron = "1 * * * *", timeout = 5 })
    assert.are.equal('{"agent_options":null,"command":[],"folder":"","webhook_headers":{},"webhook_url":""}',
      updated { folder = "", webhook_headers = {}, webhook_url = "", command = {}, options = lbox.null })
    assert.are.equal('{"agent_options":{"maxTurns":1},"command":["sh","-c","ls"],"folder":"/workspace/home/x"}',
      updated { options = { max_turns = 1 }, folder = "x", command = "ls" })
    assert.are.equal("{}", updated {})
  end)

  it("never shows the headers of a webhook", function()
    local err = raised(function()
      server:box("secret").schedule:exec {
        cron = "* * * * *", command = "x", webhook_url = "https://e", webhook_headers = { A = "Bearer hook-s3cret" },
      }
    end)
    assert.is_nil(tostring(err):find("s3cret", 1, true), tostring(err))
  end)

  it("refuses what cannot be right, before any request", function()
    for message, fn in pairs {
      ['needs the option "cron"'] = function() box.schedule:exec { command = "x" } end,
      ['needs the option "command"'] = function() box.schedule:exec { cron = "* * * * *" } end,
      ["command must not be empty"] = function() box.schedule:exec { cron = "* * * * *", command = {} } end,
      ["prompt must not be empty"] = function() box.schedule:agent { cron = "* * * * *", prompt = "" } end,
      ["webhook_headers must be a table of strings"] = function()
        box.schedule:agent { cron = "* * * * *", prompt = "x", webhook_headers = { A = 1 } }
      end,
      ["the id of a schedule must not be empty"] = function() box.schedule:pause "" end,
      ['unknown option "type"'] = function() box.schedule:update("s1", { type = "exec" }) end,
      ["options of box.schedule:update must be a table"] = function() box.schedule:update("s1", { options = "x" }) end,
    } do
      local err = raised(fn)
      assert.are.equal("usage", err.kind)
      assert.is_truthy(err.message:find(message, 1, true), err.message)
    end
  end)
end)
