-- Answers of the wrong shape, to every call: what comes is an error of lbox or a result, never an error of Lua.
local core = require "lbox.core"
local errors = require "lbox.errors"
local fault = require "spec.support.fault"
local lbox = require "lbox"

local ROUTES = [==[
local core = require "lbox.core"
setmetatable(routes, { __index = function(_, name)
  return not name:find("^EARLY") and function(reply, request)
    reply:text(200, core.base64_decode(request.headers["x-answer"] or "") or "")
  end or nil
end })
]==]

-- What may stand where something else belongs.
local VALUES = {
  "null", "7", "-1", "1e300", "true", '""', '"text"', "[]", "{}", "[7]", '["a",7]', "[null]", "[{}]", "[[]]", '{"a":7}',
  '[{"id":7}]', '[{"id":null,"name":7}]', '{"1":2}',
}
-- Fields that answers have.
local FIELDS = { "id", "status", "name", "size", "labels", "network_policy", "agent", "model", "expires_at", "runs",
  "run_id", "logs", "snapshots", "previews", "url", "files", "content", "type", "exit_code", "output", "error", "diff",
  "sha",
  "git_user_name", "enabled_skills", "env_vars", "deleted", "init_command", "tabs", "elements", "data", "cdp_url",
  "screencast_url", "recordings", "next_cursor" }

local CALLS = {
  function(_, o) return lbox.Box.create(o) end,
  function(_, o) return lbox.Box.from_snapshot("s", o) end,
  function(_, o) return lbox.EphemeralBox.create(o) end,
  function(_, o) return lbox.EphemeralBox.get_by_name("e", o) end,
  function(_, o) return lbox.Box.get("b", o) end,
  function(_, o) return lbox.Box.list(o) end,
  function(_, o) return lbox.Box.list_env(o) end,
  function(_, o) o.all = true return lbox.Box.delete_snapshots(o) end,
  function(b, o) return b:refresh(o) end,
  function(b, o) return b:get_status(o) end,
  function(b, o) return b:list_runs(o) end,
  function(b, o) return b:get_run("r1", o) end,
  function(b, o) return b:logs(o) end,
  function(b, o) return b:pause(o) end,
  function(b, o) return b:get_init_command(o) end,
  function(b, o) return b:list_snapshots(o) end,
  function(b, o) o.name = "n" return b:snapshot(o) end,
  function(b, o) return b:get_public_url(80, o) end,
  function(b, o) return b:list_public_urls(o) end,
  function(b, o) return b.exec:command("x", o) end,
  function(b, o) return b.files:read("x", o) end,
  function(b, o) o.binary = true return b.files:read("x", o) end,
  function(b, o) return b.files:list(nil, o) end,
  function(b, o) return b.files:stat("x", o) end,
  function(b, o) o.to = "/nonexistent/place" return b.files:download(o) end,
  function(b, o) return b.git:diff(o) end,
  function(b, o) o.message = "m" return b.git:commit(o) end,
  function(b, o) o.user_name = "n" return b.git:update_config(o) end,
  function(b, o) o.args = { "x" } return b.git:exec(o) end,
  function(b, o) o.title = "t" return b.git:create_pr(o) end,
  function(b, o) o.cron, o.command = "x", "y" return b.schedule:exec(o) end,
  function(b, o) return b.schedule:list(o) end,
  function(b, o) return b.schedule:get("s", o) end,
  function(b, o) return b.skills:list(o) end,
  function(b, o) return b.labels:list(o) end,
  function(b, o) return b.labels:add("a", o) end,
  function(b, o) o.prompt, o.webhook, o.timeout = "x", { url = "u" }, nil return b.agent:run(o) end,
  function(b, o) return b.browser:list_tabs(o) end,
  function(b, o) return b.browser:cdp_url(o) end,
  function(b, o) return b.browser.tab:create("u", o) end,
  function(b, o) return b.browser:get_tab("t"):content(o) end,
  function(b, o) return b.browser:get_tab("t"):open("u", o) end,
  function(b, o) return b.browser:get_tab("t"):screenshot(o) end,
  function(b, o) return b.browser:get_tab("t"):observe("x", o) end,
  function(b, o) return b.browser:get_tab("t"):act("x", o) end,
  function(b, o) return b.browser:get_tab("t"):extract("x", { a = "string" }, o) end,
  function(b, o) return b.browser.recordings:start(o) end,
  function(b, o) return b.browser.recordings:get("r", o) end,
  function(b, o)
    local run = b:get_run("r1", o)
    return run:logs(o)
  end,
}

-- So many of the calls, from the first on, take connection options.
local STATIC = 8

describe("an odd answer", function()
  local server, box

  setup(function()
    server = fault.start(ROUTES)
    box = lbox.Box.get("b", server:options {
      headers = { ["X-Answer"] = core.base64_encode '{"id":"b","status":"idle","agent":"custom","model":"m"}' },
      timeout = 500,
    })
  end)

  teardown(function()
    server:stop()
  end)

  local function ask(call, answer, is_static)
    local opts = { headers = { ["X-Answer"] = core.base64_encode(answer) }, timeout = 500 }
    local ok, err = pcall(call, box, is_static and server:options(opts) or opts)
    assert.is_true(ok or errors.is(err), ("%s: %s"):format(answer, tostring(err)))
  end

  for i, call in ipairs(CALLS) do
    it("is an error of lbox or a result, to call " .. i, function()
      local answers = {}
      for _, value in ipairs(VALUES) do
        answers[#answers + 1] = value
        for _, field in ipairs(FIELDS) do
          answers[#answers + 1] = ('{"%s":%s}'):format(field, value)
          answers[#answers + 1] = ('{"id":"r1","status":"idle","type":"file","%s":%s}'):format(field, value)
          answers[#answers + 1] = ('[{"id":"r1","%s":%s}]'):format(field, value)
          answers[#answers + 1] = ('{"runs":[{"id":"r1","%s":%s}],"logs":[{"timestamp":%s}]}'):format(field, value,
            value)
        end
      end
      lbox.map(answers, function(answer) ask(call, answer, i <= STATIC) end, { concurrency = 32 })
    end)
  end

  it("is an error of lbox or a chunk, in streams", function()
    local names = { "run_start", "text", "thinking", "tool", "tool_result", "done", "stats", "error", "news", "exit" }
    local fields = { "run_id", "text", "name", "input", "output", "id", "tool_call_id", "input_tokens",
      "total_cost_usd", "session_id", "cpu_ns", "error", "exit_code" }
    local answers = {}
    for _, name in ipairs(names) do
      for _, value in ipairs(VALUES) do
        answers[#answers + 1] = ("event: %s\ndata: %s\n\n"):format(name, value)
        for _, field in ipairs(fields) do
          answers[#answers + 1] = ('event: %s\ndata: {"%s":%s}\n\n'):format(name, field, value)
        end
      end
    end
    lbox.map(answers, function(answer)
      ask(function(_, opts)
        opts.prompt, opts.on_tool_use, opts.on_tool_result = "x", function() end, function() end
        for _ in box.agent:stream(opts):chunks() do end
      end, answer)
      ask(function(_, opts)
        for _ in box.exec:stream("x", opts):chunks() do end
      end, answer)
    end, { concurrency = 32 })
  end)
end)
