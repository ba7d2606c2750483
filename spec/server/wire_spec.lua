-- What the server answers, field by field, as box-api.md has it.
local json = require "lbox.json"
local lbox = require "lbox"
local support = require "spec.support.local"

describe("on the wire", function()
  local server, box

  setup(function()
    server = support.start()
    box = lbox.Box.create(server:client { name = "wire", agent = { harness = "custom", model = "none",
      custom_harness = { command = "sh", args = { "-c", [[printf 'event: done\ndata: {"output":"x","input_tokens":3,]]
        .. [["output_tokens":2,"total_cost_usd":0.5}\n\n']] } } } })
  end)

  teardown(function()
    box:delete()
    server:stop()
  end)

  local function ask(method, path, body)
    local status, text = server:ask(method, path, body)
    return status, json.decode(text)
  end

  local function names(value)
    local list = {}
    for name in pairs(value) do
      list[#list + 1] = name
    end
    table.sort(list)
    return list
  end

  it("a box has what it is, and what its runs used", function()
    box.agent:run { prompt = "x" }
    box.exec:command "python3 -c 'for i in range(3000000): pass'"
    local status, got = ask("GET", "/v2/box/wire")
    assert.are.equal(200, status)
    assert.are.same({ "agent", "created_at", "customer_id", "enabled_skills", "id", "keep_alive", "labels",
      "last_activity_at", "model", "name", "network_policy", "size", "status", "total_compute_cost_usd", "total_cpu_ns",
      "total_input_tokens", "total_output_tokens", "total_prompts", "total_token_cost_usd", "updated_at" }, names(got))
    assert.are.same({ 3, 2, 1, 0.5 }, { got.total_input_tokens, got.total_output_tokens, got.total_prompts,
      got.total_token_cost_usd })
    assert.is_true(got.total_cpu_ns > 20e6 and math.abs(got.last_activity_at - os.time()) < 60)
  end)

  it("a run of a command has what it used, of CPU and memory in truth", function()
    box.exec:command "echo warmup"
    local _, got = ask("GET", "/v2/box/wire/runs")
    assert.are.same({ "box_id", "completed_at", "compute_cost_usd", "cost_usd", "cpu_ns", "created_at", "customer_id",
      "duration_ms", "id", "input_tokens", "memory_peak_bytes", "output_tokens", "prompt", "status", "type" },
      names(got.runs[1]))
    assert.are.equal("sh -c echo warmup", got.runs[1].prompt)
    -- Its own count of its CPU time, also of children that it has waited for, is what the server says.
    local told = box.exec:command([[python3 -c '
import os, resource
block = b"x" * 60000000
if os.fork() == 0:
    for i in range(3000000): pass
    os._exit(0)
os.wait()
used = [resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(sum(each.ru_utime + each.ru_stime for each in used), max(each.ru_maxrss for each in used))']]).stdout
    local seconds, kb = told:match("^(%S+) (%d+)")
    _, got = ask("GET", "/v2/box/wire/runs")
    local run = got.runs[1]
    assert.is_true(run.cpu_ns >= seconds * 1e9 and run.cpu_ns < seconds * 1e9 + 0.2e9, run.cpu_ns .. " of " .. seconds)
    assert.is_true(run.memory_peak_bytes >= kb * 1024 and run.memory_peak_bytes < kb * 1024 + 20e6)
    assert.is_true(run.memory_peak_bytes > 60e6)
  end)

  it("a command that runs too long is killed with all it started, and what it printed is kept", function()
    local result = box.exec:code { lang = "python", timeout = 700,
      code = "import os, time\nprint('begun', flush=True)\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(41)\n"
        .. "time.sleep(41)" }
    assert.are.same({ 124, "begun\n" }, { result.exit_code, result.stdout })
    assert.matches("timed out after 700 ms", result.stderr)
    assert.are.equal("", box.exec:command("pgrep -f 'time.sleep.4[1]'").stdout)
  end)

  it("what a command left in the background lives until the pause", function()
    box.exec:command "sleep 4242 >/dev/null 2>&1 &"
    assert.matches("%d", box.exec:command("pgrep -fx 'sleep 4242'").stdout)
    box:pause()
    assert.are.equal("", box.exec:command("pgrep -fx 'sleep 4242'").stdout)
  end)

  it("the logs of all boxes are there, the newest", function()
    local status, got = ask("GET", "/v2/box/logs?limit=3")
    assert.are.same({ 200, 3 }, { status, #got.logs })
    for _, entry in ipairs(got.logs) do
      assert.are.equal(box.id, entry.box_id)
    end
    assert.are.equal(400, (ask("GET", "/v2/box/logs?limit=x")))
  end)

  it("browsers, GitHub's accounts and keys by request are not there, which each answer says", function()
    local paths = { "apikeys", "github/status", "github/install-url", "github/repos", "wire/steps" }
    for _, name in ipairs { "tabs", "content?tab=1", "screenshot", "recordings", "recordings/r1",
      "recordings/r1/playlist", "recordings/r1/download" } do
      paths[#paths + 1] = "wire/browser/" .. name
    end
    for _, path in ipairs(paths) do
      local status, got = ask("GET", "/v2/box/" .. path)
      assert.are.equal(501, status, path)
      assert.matches("is not available on local boxes", got.error)
    end
    for _, name in ipairs { "tabs", "goto", "extract", "observe", "act", "run", "connect", "screencast", "recordings",
      "recordings/stop" } do
      local status, got = ask("POST", "/v2/box/wire/browser/" .. name, "{}")
      assert.are.equal(501, status, name)
      assert.matches("is not available on local boxes", got.error)
    end
  end)

  it("every error is JSON with a sentence", function()
    for _, case in ipairs { { "GET", "/v2/box/none", 404 }, { "GET", "/nowhere", 404 }, { "PATCH", "/v2/box", 405 },
      { "POST", "/v2/box", 400, "{" }, { "POST", "/v2/box", 400, "[]" }, { "DELETE", "/v2/box", 400, '{"ids":[]}' },
      { "POST", "/v2/box/wire/exec", 400, '{"command":[]}' } } do
      local status, got = ask(case[1], case[2], case[4])
      assert.are.equal(case[3], status, case[2])
      assert.is_string(got.error)
      assert.are.same({ "error" }, names(got))
    end
  end)
end)
