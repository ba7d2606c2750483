-- The official TypeScript SDK, as published, against lbox serve.
local json = require "lbox.json"
local support = require "spec.support.local"

describe("@upstash/box against lbox serve", function()
  local server, found, output

  setup(function()
    if support.sh("test -d node_modules/@upstash/box && echo there") == "" then
      local text, failed = support.sh("npm ci --no-audit --no-fund")
      assert(failed == 0, "npm ci failed:\n" .. text)
    end
    server = support.start()
    support.skill(server.dir .. "/data/skills/owner/repo/skill")
    local status
    output, status = support.sh(("timeout 60 node spec/peer/upstash_box.mjs %s %s"):format(
      server.url, server.key))
    found = {}
    for line in output:gmatch("[^\n]+") do
      local finding = json.decode(line)
      if type(finding) == "table" and finding.name then
        found[finding.name] = finding.value
      end
    end
    assert(status == 0, output)
  end)

  teardown(function()
    server:stop()
  end)

  it("creates, lists and deletes a box", function()
    assert.are.equal("idle", found.status.status)
    assert.are.same({ found.id }, found.listed)
    assert.are.equal(0, found.deleted)
  end)

  it("runs commands and code", function()
    assert.are.same({ exitCode = 3, stdout = "out\n", stderr = "err\n", status = "failed" }, found.command)
    assert.are.same({ result = "42\n", exitCode = 0 }, found.code)
  end)

  it("streams output, with the exit last", function()
    assert.are.equal("line 1\nline 2\nline 3\n", found.stream.output)
    assert.is_true(found.stream.pieces >= 3, tostring(found.stream.pieces))
  end)

  it("writes, reads and lists files", function()
    assert.is_true(found.read)
    assert.are.equal("AP8K", found.blob)
    assert.are.same({ { "agent.lua", false }, { "dir", true } }, found.list)
    assert.are.equal(404, found["missing file"].status)
  end)

  it("runs a custom harness, at once and streamed", function()
    assert.are.equal("completed", found.run.status)
    assert.are.equal("prompt: hello agent", found.run.result)
    assert.are.equal(3, found.run.cost.inputTokens)
    assert.are.same({ "start", "text-delta", "tool-call", "tool-result", "finish", "stats" },
      found["agent stream"])
    assert.are.same({ "agent", "completed" }, found.runs[1])
  end)

  it("clones, commits and pushes", function()
    assert.are.same({ dirty = "?? g\n", clean = "", diff = "", pushed = true }, found.git)
  end)

  it("makes schedules", function()
    assert.are.same({ paused = { "paused" }, active = "active", folder = "/workspace/home", left = { true } },
      found.schedule)
  end)

  it("reaches a port of the box", function()
    assert.are.same({ refused = 401, allowed = 200, listing = true, listed = { true } }, found["public URL"])
  end)

  it("pauses, resumes and runs an init command at each start", function()
    assert.are.same({ asleep = "paused", awake = "idle", init = "echo began >> began",
      began = "began\n" }, found.lifecycle)
    assert.are.same({ "other", "" }, found["init command"])
  end)

  it("takes snapshots, and makes boxes of them", function()
    assert.are.same({ status = "ready", listed = { true }, env = "yes more\nblob.bin\n", agent = "prompt: copied",
      short = "blob.bin\n", lives = true }, found.snapshot)
    assert.are.equal(0, found["no snapshots"])
  end)

  it("changes what a box was given", function()
    assert.are.same({ labels = { "peer:ts", "second" }, left = { "second" }, skills = { "owner/repo/skill" },
      removed = {}, env = { EVERYWHERE = "********" } }, found.settings)
  end)

  it("is refused with a wrong key", function()
    assert.are.equal(401, found["wrong key"])
  end)
end)
