-- Schedules of local boxes. So that nobody waits for a minute to begin, specs put the next time of a
-- schedule a moment ahead, in the database of the server.
local lbox = require "lbox"
local receiver = require "spec.support.receiver"
local sqlite = require "lbox.server.sqlite"
local support = require "spec.support.local"
local Box = lbox.Box

describe("a schedule of a local box", function()
  local server, box, hook

  local function change(sql, ...)
    local db = sqlite.open(server.dir .. "/data/lbox.db")
    db:run(sql, ...)
    db:close()
  end

  --- Makes a schedule due in a second, by the server's clock.
  local function make_due(id)
    change("UPDATE schedules SET next_at = ? WHERE id = ?", os.time() + 1, id)
    box.schedule:update(id, {}) -- the server looks at its times again
  end

  local function wait_for(what, fn)
    local ok, err = pcall(lbox.timeout, 8000, function()
      while not fn() do
        lbox.sleep(50)
      end
    end)
    assert(ok, what .. ": " .. tostring(err))
  end

  local function ended(id, runs)
    local schedule
    wait_for("no end of run " .. runs, function()
      schedule = box.schedule:get(id)
      return schedule.total_runs == runs and schedule.last_run_status
    end)
    return schedule
  end

  local function refusal(fn, ...)
    local ok, err = pcall(fn, box.schedule, ...)
    assert.is_false(ok, "it did not fail")
    return ("%s: %s"):format(err.status_code, err.message)
  end

  local AGENT = [[
    while [ $# -gt 1 ]; do case $1 in -p) prompt=$2;; --model) model=$2;; esac; shift; done
    [ "$prompt" = slow ] && sleep 60
    printf 'event: text\ndata: {"text":"hi"}\n\nevent: done\ndata: {"output":"%s by %s","input_tokens":3}\n\n' \
      "$prompt" "$model"]]

  setup(function()
    server = support.start()
    box = Box.create(server:client {
      agent = { harness = "custom", custom_harness = { command = "sh", args = { "/home/boxuser/agent.sh" } } },
    })
    box.files:write { path = "/home/boxuser/agent.sh", content = AGENT }
    hook = receiver.start()
  end)

  before_each(function()
    hook.told, hook.statuses = {}, {}
    for _, each in ipairs(box.schedule:list()) do
      box.schedule:delete(each.id)
    end
  end)

  teardown(function()
    hook.listener:stop()
    server:stop()
  end)

  it("that cannot count a run has no record of it, and runs later", function()
    local made = box.schedule:exec { cron = "0 0 1 1 *", command = "echo counted" }
    local function records()
      local db = sqlite.open(server.dir .. "/data/lbox.db")
      local row = db:row("SELECT count(*) AS n FROM runs WHERE schedule_id = ?", made.id)
      db:close()
      return row.n
    end
    change("CREATE TRIGGER refuse BEFORE UPDATE OF total_runs ON schedules BEGIN SELECT RAISE(ABORT, 'no'); END")
    make_due(made.id)
    wait_for("it did not become due", function() return server:said():find("schedules: .*: no") end)
    assert.are.equal(0, records())
    change("DROP TRIGGER refuse")
    assert.are.equal("completed", ended(made.id, 1).last_run_status)
    assert.are.equal(1, records())
  end)

  it("is made, read, changed, held and deleted", function()
    local made = box.schedule:exec { cron = "0 9 * * mon-fri", command = "echo hello", webhook_url = hook.url,
      webhook_headers = { ["X-Secret"] = "s" } }
    assert.are.same({ id = made.id, box_id = box.id, customer_id = "local", type = "exec", cron = "0 9 * * mon-fri",
      command = { "sh", "-c", "echo hello" }, folder = "/workspace/home", status = "active", webhook_url = hook.url,
      webhook_headers = { ["X-Secret"] = "s" }, total_runs = 0, total_failures = 0, created_at = made.created_at,
      updated_at = made.updated_at }, made)
    assert.are.same(made, box.schedule:get(made.id))
    local other = box.schedule:agent { cron = "* * * * *", prompt = "p", model = "m", timeout = 5000,
      options = { maxTurns = 3 }, folder = "sub" }
    assert.are.equal("/workspace/home/sub", other.folder)
    assert.are.same({ made, other }, box.schedule:list())

    box.schedule:pause(made.id)
    assert.are.equal("paused", box.schedule:get(made.id).status)
    box.schedule:resume(made.id)
    assert.are.equal("active", box.schedule:get(made.id).status)

    local changed = box.schedule:update(made.id, { cron = "0 10 * * *", webhook_url = "", webhook_headers = {},
      folder = "/tmp" })
    assert.are.equal("0 10 * * *", changed.cron)
    assert.are.equal("/tmp", changed.folder)
    assert.are.same({ "sh", "-c", "echo hello" }, changed.command)
    assert.is_nil(changed.webhook_url or changed.webhook_headers)
    changed = box.schedule:update(other.id, { options = lbox.null, timeout = 0, folder = "" })
    assert.is_nil(changed.agent_options or changed.timeout)
    assert.are.equal("/workspace/home", changed.folder)
    assert.are.equal("m", changed.model)
    assert.is_nil(box.schedule:update(other.id, { model = "" }).model)

    box.schedule:delete(made.id)
    assert.matches("^404: schedule \"" .. made.id .. "\" not found", refusal(box.schedule.get, made.id))
    assert.are.equal(1, #box.schedule:list())
  end)

  it("is refused with what is wrong", function()
    assert.matches('^400: cron "61 %* %* %* %*": the minute "61": 61 is not within 0%-59',
      refusal(box.schedule.exec, { cron = "61 * * * *", command = "true" }))
    assert.matches("^400: webhook_url \"ftp://x\"",
      refusal(box.schedule.exec, { cron = "* * * * *", command = "true", webhook_url = "ftp://x" }))
    assert.matches("control characters", refusal(box.schedule.exec, { cron = "* * * * *", command = "true",
      webhook_url = hook.url, webhook_headers = { A = "b\r\nC: d" } }))
    assert.matches('^400: type "nap"', refusal(box.schedule.exec, { cron = "* * * * *", command = "true",
      extra = { type = "nap" } }))
    assert.matches('"prompt" is none of a schedule of type "exec"',
      refusal(box.schedule.exec, { cron = "* * * * *", command = "true", extra = { prompt = "x" } }))
    local made = box.schedule:exec { cron = "* * * * *", command = "true" }
    assert.matches("the type of a schedule cannot change", refusal(box.schedule.update, made.id,
      { extra = { type = "prompt" } }))
    assert.matches('"cron" is required', refusal(box.schedule.update, made.id, { cron = "" }))
    assert.matches('"command" is required', refusal(box.schedule.update, made.id, { extra = { command = {} } }))
    assert.are.same(made, box.schedule:get(made.id))
    local plain = Box.create(server:client())
    local ok, err = pcall(plain.schedule.agent, plain.schedule, { cron = "* * * * *", prompt = "x" })
    assert.is_false(ok)
    assert.matches("no agent is configured", err.message)
    plain:delete()
  end)

  it("runs its command when it is due, and tells how that went", function()
    hook.statuses = { 503 } -- once it is not taken, and sent again
    local made = box.schedule:exec { cron = "0 0 1 1 *", command = "pwd; echo oops >&2", folder = "/tmp",
      webhook_url = hook.url, webhook_headers = { ["X-Secret"] = "s3" } }
    make_due(made.id)
    local schedule = ended(made.id, 1)
    assert.are.equal("completed", schedule.last_run_status)
    assert.are.equal(0, schedule.total_failures)
    local run = box:list_runs()[1]
    assert.are.equal(run.id, schedule.last_run_id)
    assert.are.equal(made.id, run.schedule_id)
    assert.are.equal("shell", run.type)
    assert.are.equal("/tmp\noops\n", run.output)
    wait_for("no webhook", function() return hook.told[2] end)
    assert.are.same({ body = { box_id = box.id, schedule_id = made.id, run_id = run.id, status = "completed",
      output = "/tmp\noops\n", metadata = {} }, key = "s3", type = "application/json" }, hook.told[2])
    lbox.sleep(200)
    assert.are.equal(2, #hook.told)
    assert.are.equal(1, box.schedule:get(made.id).total_runs)
  end)

  it("counts what fails, and says why", function()
    local made = box.schedule:exec { cron = "0 0 1 1 *", command = "echo no; exit 3", webhook_url = hook.url }
    make_due(made.id)
    local schedule = ended(made.id, 1)
    assert.are.equal("failed", schedule.last_run_status)
    assert.are.equal(1, schedule.total_failures)
    wait_for("no webhook", function() return hook.told[1] end)
    assert.are.equal("the command ended with exit code 3", hook.told[1].body.error)
    box.schedule:update(made.id, { command = { "no-such" } })
    make_due(made.id)
    assert.are.equal(2, ended(made.id, 2).total_failures)
    wait_for("no webhook", function() return hook.told[2] end)
    assert.are.equal("no-such: command not found", hook.told[2].body.error)
    box.schedule:update(made.id, { command = "true", folder = "/nowhere" })
    make_due(made.id)
    ended(made.id, 3)
    assert.matches("/nowhere.: no such directory", box:list_runs()[1].error_message)
  end)

  it("runs the agent, with its own model and time limit", function()
    local made = box.schedule:agent { cron = "0 0 1 1 *", prompt = "tidy", model = "m7" }
    make_due(made.id)
    assert.are.equal("completed", ended(made.id, 1).last_run_status)
    local run = box:list_runs()[1]
    assert.are.equal("tidy by m7", run.output)
    assert.are.equal("m7", run.model)
    assert.are.equal(3, run.input_tokens)
    box.schedule:update(made.id, { prompt = "slow", timeout = 300 })
    make_due(made.id)
    assert.are.equal("failed", ended(made.id, 2).last_run_status)
    assert.matches("timed out after 300 ms", box:list_runs()[1].error_message)
  end)

  it("skips a run while the one before goes on", function()
    local made = box.schedule:exec { cron = "0 0 1 1 *", command = "sleep 4" }
    make_due(made.id)
    wait_for("no run", function() return box.schedule:get(made.id).total_runs == 1 end)
    make_due(made.id)
    wait_for("nothing is skipped", function() return box.schedule:get(made.id).last_run_status == "skipped" end)
    local run = box:list_runs()[1]
    assert.are.equal("skipped", run.status)
    assert.matches("previous run", run.error_message)
    local schedule = box.schedule:get(made.id)
    assert.are.equal(1, schedule.total_runs)
    assert.are.equal(run.id, schedule.last_run_id)
    wait_for("it does not end", function() return box:list_runs()[2].status == "completed" end)
    assert.are.equal("skipped", box.schedule:get(made.id).last_run_status)
  end)

  it("does not run while it is held, nor once it is deleted", function()
    local held = box.schedule:exec { cron = "0 0 1 1 *", command = "touch /tmp/held" }
    box.schedule:pause(held.id)
    change("UPDATE schedules SET next_at = ? WHERE id = ?", os.time(), held.id)
    local gone = box.schedule:exec { cron = "0 0 1 1 *", command = "touch /tmp/gone" }
    change("UPDATE schedules SET next_at = ? WHERE id = ?", os.time() + 1, gone.id)
    box.schedule:delete(gone.id)
    box.schedule:update(held.id, {})
    lbox.sleep(1500)
    assert.are.equal("", box.exec:command("ls /tmp/held /tmp/gone 2>/dev/null").stdout)
    assert.are.equal(0, box.schedule:get(held.id).total_runs)
  end)

  it("goes with its box", function()
    local other = Box.create(server:client())
    local made = other.schedule:exec { cron = "* * * * *", command = "true" }
    other:delete()
    local db = sqlite.open(server.dir .. "/data/lbox.db")
    assert.is_nil(db:row("SELECT id FROM schedules WHERE id = ?", made.id))
    db:close()
  end)

  it("survives the server, which skips what it missed and fails what it was at", function()
    local missed = box.schedule:exec { cron = "* * * * *", command = "touch /tmp/missed" }
    local ahead = box.schedule:exec { cron = "* * * * *", command = "true" }
    local going = box.schedule:exec { cron = "0 0 1 1 *", command = "sleep 60", webhook_url = hook.url }
    make_due(going.id)
    wait_for("no run", function()
      local run = box:list_runs()[1]
      return run and run.schedule_id == going.id and run.status == "running"
    end)
    server:kill("KILL")
    change("UPDATE schedules SET next_at = ? WHERE id = ?", os.time() // 60 * 60 - 120, missed.id)
    -- By a clock that was set back since.
    change("UPDATE schedules SET next_at = ? WHERE id = ?", os.time() + 1000000, ahead.id)
    server = support.start { dir = server.dir }
    box = Box.get(box.id, server:client())
    wait_for("no webhook", function() return hook.told[1] end)
    assert.are.equal("failed", hook.told[1].body.status)
    assert.are.equal("the server stopped", hook.told[1].body.error)
    local schedule = box.schedule:get(going.id)
    assert.are.same({ "failed", 1, 1 }, { schedule.last_run_status, schedule.total_runs, schedule.total_failures })
    schedule = box.schedule:get(missed.id)
    assert.are.same({ "skipped", 0, 0 }, { schedule.last_run_status, schedule.total_runs, schedule.total_failures })
    local run = box:list_runs()[1]
    assert.are.equal("skipped", run.status)
    assert.matches("^[34] runs were missed", run.error_message)
    assert.are.equal("", box.exec:command("ls /tmp/missed 2>/dev/null").stdout)
    local db = sqlite.open(server.dir .. "/data/lbox.db")
    assert.is_true(db:row("SELECT next_at FROM schedules WHERE id = ?", ahead.id).next_at <= os.time() + 60)
    db:close()
    -- And goes on.
    make_due(missed.id)
    ended(missed.id, 1)
    assert.are.equal("/tmp/missed\n", box.exec:command("ls /tmp/missed").stdout)
  end)

  it("has its webhook told by the next server when this one ends before", function()
    hook.statuses = { 503 }
    local made = box.schedule:exec { cron = "0 0 1 1 *", command = "echo so far; exit 3", webhook_url = hook.url,
      webhook_headers = { ["X-Secret"] = "s3" } }
    make_due(made.id)
    wait_for("no webhook", function() return hook.told[1] end)
    server:kill("KILL")
    server = support.start { dir = server.dir }
    box = Box.get(box.id, server:client())
    wait_for("no webhook after that", function() return hook.told[2] end)
    assert.are.same(hook.told[1], hook.told[2])
    assert.are.same({ made.id, "failed", "so far\n", "the command ended with exit code 3" },
      { hook.told[2].body.schedule_id, hook.told[2].body.status, hook.told[2].body.output, hook.told[2].body.error })
    server:kill("KILL")
    server = support.start { dir = server.dir }
    box = Box.get(box.id, server:client())
    lbox.sleep(300)
    assert.are.equal(2, #hook.told)
    assert.are.equal(1, box.schedule:get(made.id).total_failures)
  end)

  it("tells its webhook that the box was deleted during a run", function()
    local other = Box.create(server:client())
    box, other = other, box
    local made = box.schedule:exec { cron = "0 0 1 1 *", command = "sleep 60", webhook_url = hook.url }
    make_due(made.id)
    wait_for("no run", function() return box.schedule:get(made.id).total_runs == 1 end)
    box:delete()
    box = other
    wait_for("no webhook", function() return hook.told[1] end)
    assert.are.same({ made.id, "failed" }, { hook.told[1].body.schedule_id, hook.told[1].body.status })
    assert.is_string(hook.told[1].body.error)
  end)

  it("keeps a server busy as long as it is active", function()
    local function busy()
      return support.sh(("curl -s -H 'X-Box-Api-Key: %s' %s/lbox/hello"):format(server.key, server.url)):match(
        '"busy":(%l+)')
    end
    box = Box.create(server:client())
    local other = box.schedule:exec { cron = "* * * * *", command = "true" }
    for _, each in ipairs(Box.list(server:client())) do
      if each.id ~= box.id then
        Box.get(each.id, server:client()):delete()
      end
    end
    assert.are.equal("true", busy())
    box.schedule:pause(other.id)
    wait_for("still busy", function() return busy() == "false" end)
  end)
end)
