-- A server that is killed loses nothing it said, and nobody is told of success that did not happen.
local lbox = require "lbox"
local sqlite = require "lbox.server.sqlite"
local support = require "spec.support.local"

describe("a server killed with -9", function()
  it("breaks a run with an error, and keeps the box and its files", function()
    local server = support.start()
    local box = lbox.Box.create(server:client {
      agent = { harness = "custom", custom_harness = { command = "sh", args = { "-c",
        "printf 'event: text\\ndata: {\"text\":\"begun\"}\\n\\n'; sleep 60" } } },
    })
    box.files:write { path = "kept.txt", content = "still here" }
    local stream = box.agent:stream { prompt = "x", timeout = 20000 }
    local text
    local ok, err = pcall(function()
      for chunk in stream:chunks() do
        if chunk.type == "text-delta" then
          text = chunk.text
          server:kill("KILL")
        end
      end
    end)
    assert.are.equal("begun", text)
    assert.is_false(ok)
    assert.is_true(err.kind == "stream" or err.kind == "network", tostring(err))
    -- Nobody could say how it ended, so it has not ended for us.
    assert.are.equal("detached", stream.status)
    -- No sandbox outlives its server.
    lbox.sleep(300)
    assert.are.equal("", (support.sh("pgrep -f '[b]oxes/" .. box.id .. "/root' || true")))

    local again = support.start { dir = server.dir }
    local back = lbox.Box.get(box.id, again:client())
    assert.are.equal("paused", back.status)
    assert.are.equal("still here", back.files:read("kept.txt"))
    assert.are.equal("idle", back:get_status().status)
    local run = back:list_runs()[1]
    assert.are.equal("failed", run.status)
    assert.are.equal("the server stopped", run.error_message)
    again:kill()

    -- What begins first after a restart can be cancelled as at any time.
    again = support.start { dir = server.dir }
    local later = lbox.Box.get(box.id, again:client()).exec:stream("echo begun; sleep 30", { timeout = 20000 })
    assert.are.equal("begun\n", later:next().data)
    local started = lbox.now()
    assert.is_true(later:cancel())
    lbox.timeout(5000, function()
      while lbox.Box.get(box.id, again:client()):list_runs()[1].status == "running" do
        lbox.sleep(20)
      end
    end)
    assert.is_true(lbox.now() - started < 5000)
    back = lbox.Box.get(box.id, again:client())
    assert.are.equal("cancelled", back:list_runs()[1].status)
    back:delete()
    again:stop()
    os.remove(server.log)
  end)
end)

describe("a box that is being removed when the server is killed", function()
  it("is removed at the next start, and by nobody else", function()
    local server = support.start()
    local box = lbox.Box.create(server:client())
    box.exec:command("mkdir many; cd many; seq 20000 | xargs touch")
    -- Stands still once it has begun.
    support.sh(("(for i in $(seq 2000); do pkill -STOP -f '[l]box-init empty %s' && break; done) >/dev/null 2>&1 &")
      :format(server.dir))
    box:delete()
    local function removers()
      return (support.sh("pgrep -f '[l]box-init empty " .. server.dir .. "' || true"))
    end
    for _ = 1, 200 do
      if removers() ~= "" then
        break
      end
      lbox.sleep(10)
    end
    assert.matches("%d", removers())
    server:kill("KILL")
    lbox.sleep(100)
    assert.are.equal("", removers())
    local again = support.start { dir = server.dir }
    for _ = 1, 200 do
      if support.sh("ls -A " .. server.dir .. "/data/boxes") == "" then
        break
      end
      lbox.sleep(20)
    end
    assert.are.equal("", (support.sh("ls -A " .. server.dir .. "/data/boxes")))
    again:stop()
    os.remove(server.log)
  end)
end)

describe("a snapshot whose files are there and whose end was not noted when the server was killed", function()
  it("is an error after the next start, and its files are removed", function()
    local server = support.start()
    local box = lbox.Box.create(server:client())
    box.exec:command("seq 20000 | split -a 4 -l 1")
    local snapshot = box:snapshot { name = "unnoted" }
    server:kill("KILL")
    local db = sqlite.open(server.dir .. "/data/lbox.db")
    db:run("UPDATE snapshots SET status = 'creating' WHERE id = ?", snapshot.id)
    db:close()
    local again = support.start { dir = server.dir }
    assert.are.equal("error", lbox.Box.get(box.id, again:client()):list_snapshots()[1].status)
    for _ = 1, 500 do
      if support.sh("ls -A " .. server.dir .. "/data/snapshots") == "" then
        break
      end
      lbox.sleep(10)
    end
    assert.are.equal("", (support.sh("ls -A " .. server.dir .. "/data/snapshots")))
    assert.is_nil(again:said():find("cannot remove", 1, true))
    again:stop()
    os.remove(server.log)
  end)
end)

describe("a server whose data directory is locked", function()
  it("starts once the lock is free, as that of a killed server is in a moment", function()
    local dir = support.directory()
    support.sh(("mkdir -m 700 %s/data; (flock %s/data/lock sleep 0.2) >/dev/null 2>&1 & sleep 0.1"):format(dir, dir))
    local server = support.start { dir = dir }
    assert.are.equal(0, #lbox.Box.list(server:client()))
    local text, status = support.sh(("%s serve --data %s/data"):format(support.program, dir))
    assert.matches("another server has the data directory", text, nil, true)
    assert.are_not.equal(0, status)
    server:stop()
    os.remove(server.log)
  end)
end)

describe("a database of the first version", function()
  it("is brought up to date with what is in it", function()
    local server = support.start()
    local box = lbox.Box.create(server:client { name = "old" })
    box.exec:command("echo kept > kept.txt")
    server:kill()
    local db = sqlite.open(server.dir .. "/data/lbox.db")
    db:exec("DROP TABLE previews; DROP TABLE schedules; ALTER TABLE runs DROP COLUMN schedule_id; "
      .. "DROP VIEW uids; DROP TABLE snapshots; DROP TABLE variables; DROP TABLE credentials; "
      .. "DROP TABLE folder_sessions; DROP TABLE webhooks; PRAGMA user_version=1;")
    db:close()
    local again = support.start { dir = server.dir }
    local back = lbox.Box.get_by_name("old", again:client())
    assert.are.equal("kept\n", back.files:read("kept.txt"))
    assert.are.equal("sh -c echo kept > kept.txt", back:list_runs()[1].prompt)
    assert.are.equal(0, #back.schedule:list())
    assert.are.equal(0, #back:list_snapshots())
    back.schedule:exec { cron = "0 0 * * *", command = "true" }
    again:stop()
    os.remove(server.log)
  end)
end)
