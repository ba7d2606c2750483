-- Every kind of answer, cut at every byte, reset at every byte, and stopped in the middle: what did not
-- happen is never reported as a success, nothing hangs past its deadline, and every error names its kind.
local async = require "lbox.async"
local errors = require "lbox.errors"
local fault = require "spec.support.fault"
local lbox = require "lbox"

local ROUTES = [==[
local json = require "lbox.json"

local JSON = {
  ["POST /v2/box"] = '{"id":"new","status":"idle","agent":"custom","model":"m"}',
  ["GET /v2/box/b"] = '{"id":"b","status":"idle","agent":"custom","model":"m"}',
  ["GET /v2/box"] = '[{"id":"b1"},{"id":"b2"}]',
  ["POST /v2/box/b/exec"] = '{"exit_code":0,"output":"hello\\n","error":""}',
  ["POST /v2/box/b/code"] = '{"exit_code":3,"output":"hello\\n","error":"oops"}',
  ["GET /v2/box/b/files/read"] = '{"content":"hello"}',
  ["POST /v2/box/b/files/write"] = '{"ok":true}',
  ["GET /v2/box/b/files/list"] = '{"files":[{"name":"a"},{"name":"b"}]}',
  ["POST /v2/box/b/git/commit"] = '{"sha":"abc","message":"m"}',
  ["POST /v2/box/b/git/exec"] = '{"output":"x","exit_code":0}',
  ["POST /v2/box/b/schedules"] = '{"id":"s1","cron":"* * * * *"}',
  ["POST /v2/box/b/snapshots"] = '{"id":"sn1","status":"ready"}',
  ["POST /v2/box/b/run"] = '{"status":"accepted","run_id":"r1"}',
  ["POST /v2/box/b/preview"] = '{"url":"https://p","port":80}',
  ["DELETE /v2/box/snapshots"] = '{"deleted":2}',
  ["POST /v2/box/b/config/labels"] = '{"labels":["a"]}',
}

local STREAMS = {
  ["POST /v2/box/b/run/stream"] = { 'event: run_start\ndata: {"run_id":"r1"}\n\n',
    'event: text\ndata: {"text":"hel"}\n\n', 'event: text\ndata: {"text":"lo"}\n\n',
    'event: done\ndata: {"output":"hello","input_tokens":1,"output_tokens":2}\n\n' },
  ["POST /v2/box/b/exec-stream"] = { "hel", "lo\n", 'event: exit\ndata: {"exit_code":0,"cpu_ns":1}\n\n' },
}

local STYLES = {}
function STYLES.length(reply, body)
  reply:raw(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body))
end
function STYLES.chunked(reply, body)
  reply:begin()
  reply:chunk(body:sub(1, 5))
  reply:chunk(body:sub(6))
  reply:finish()
end
function STYLES.closed(reply, body)
  reply:raw("HTTP/1.1 200 OK\r\n\r\n" .. body)
  reply:cut()
end

--- Answers as the headers of the request say.
local function answer(reply, request, body)
  local at = tonumber(request.headers["x-at"])
  if at then
    reply:cut_after(at, request.headers["x-how"])
  end
  STYLES[request.headers["x-style"]](reply, body)
end

for name, body in pairs(JSON) do
  routes[name] = function(reply, request) answer(reply, request, body) end
end
for name, parts in pairs(STREAMS) do
  routes[name] = function(reply, request) answer(reply, request, table.concat(parts)) end
end
routes["GET /v2/box/b/runs"] = function(reply)
  reply:json(200, { runs = { { id = "r1", status = "failed", error_message = "it was cut" } } })
end
routes["POST /v2/box/b/runs/r1/cancel"] = function(reply) reply:json(200, {}) end
]==]

-- What is called, with options that say how the answer is to come, and what it gives when all went well.
local CALLS = {
  { "Box.create", function(_, opts) return lbox.Box.create(opts).id end, "new", static = true, undone = true },
  { "Box.get", function(_, opts) return lbox.Box.get("b", opts).status end, "idle", static = true },
  { "Box.list", function(_, opts) return #lbox.Box.list(opts) end, 2, static = true },
  { "Box.delete_snapshots", function(_, opts)
    opts.all = true
    return lbox.Box.delete_snapshots(opts).deleted
  end, 2, static = true },
  { "exec:command", function(box, opts) return box.exec:command("x", opts).stdout end, "hello\n" },
  { "exec:code", function(box, opts)
    opts.code, opts.lang = "x", "js"
    return box.exec:code(opts).exit_code
  end, 3 },
  { "files:read", function(box, opts) return box.files:read("x", opts) end, "hello" },
  { "files:write", function(box, opts)
    opts.path, opts.content = "x", "y"
    box.files:write(opts)
    return "written"
  end, "written" },
  { "files:list", function(box, opts) return #box.files:list(nil, opts) end, 2 },
  { "git:commit", function(box, opts)
    opts.message = "m"
    return box.git:commit(opts).sha
  end, "abc" },
  { "git:exec", function(box, opts)
    opts.args = { "status" }
    return box.git:exec(opts).exit_code
  end, 0 },
  { "schedule:exec", function(box, opts)
    opts.cron, opts.command = "* * * * *", "x"
    return box.schedule:exec(opts).id
  end, "s1" },
  { "snapshot", function(box, opts)
    opts.name = "n"
    return box:snapshot(opts).id
  end, "sn1" },
  { "agent:run with a webhook", function(box, opts)
    opts.prompt, opts.webhook = "x", { url = "https://e" }
    return box.agent:run(opts).id
  end, "r1", undone = true },
  { "get_public_url", function(box, opts) return box:get_public_url(80, opts).url end, "https://p" },
  { "labels:add", function(box, opts) return box.labels:add("a", opts)[1] end, "a" },
  { "agent:run", function(box, opts)
    opts.prompt = "x"
    return box.agent:run(opts).result
  end, "hello", stream = true, undone = true },
  { "exec:stream", function(box, opts)
    local stream = box.exec:stream("x", opts)
    local text, last = "", nil
    for chunk in stream:chunks() do
      text, last = text .. (chunk.data or ""), chunk.type
    end
    assert(last == "exit" and stream.status == "completed" and stream.exit_code == 0)
    return text
  end, "hello\n", stream = true },
}

local STYLES = { "length", "chunked", "closed" }

-- Kinds that an answer which did not come whole may have.
local KINDS = { network = true, stream = true, api = true, timeout = true }
-- Long enough for an answer that is cut to be asked for again, and short for one that does not come.
local PATIENT_MS, IMPATIENT_MS = 10000, 300

describe("an answer", function()
  local server
  local boxes = {} -- by their time limit

  setup(function()
    server = fault.start(ROUTES)
    for _, ms in ipairs { PATIENT_MS, IMPATIENT_MS } do
      boxes[ms] = server:box("b", { headers = { ["X-Style"] = "length" }, timeout = ms })
    end
  end)

  teardown(function()
    server:stop()
  end)

  --- Makes a call whose answer breaks off after so many bytes. Returns whether it succeeded, with what, and how
  --- long it took.
  local function try(call, style, at, how)
    local headers = { ["X-Style"] = style, ["X-At"] = at and tostring(at), ["X-How"] = how }
    local ms = how == "hold" and IMPATIENT_MS or PATIENT_MS
    local opts = { headers = headers }
    if call.static then
      opts.timeout = ms
      opts = server:options(opts)
    end
    local started = lbox.now()
    local ok, result = pcall(call[2], boxes[ms], opts)
    return ok, result, lbox.now() - started
  end

  --- Makes these tries at once and judges what they give. By style, the first length that was enough and the last
  --- that was not.
  local function judge(tries)
    local enough, short = {}, {}
    lbox.map(tries, function(each)
      local call, style, at, how = each.call, each.style, each.at, each.how
      local place = ("%s (%s), %s after %d bytes: "):format(call[1], style, how, at)
      local good, result, took = try(call, style, at, how)
      assert.is_true(took < PATIENT_MS, place .. took .. " ms")
      if good then
        assert.are.equal(call[3], result, place)
        enough[style] = math.min(enough[style] or math.huge, at)
      else
        assert.is_true(errors.is(result), place .. tostring(result))
        assert.is_true(KINDS[result.kind], place .. tostring(result))
        short[style] = math.max(short[style] or -1, how == "cut" and at or -1)
      end
    end, { concurrency = #tries })
    return enough, short
  end

  for _, call in ipairs(CALLS) do
    it(("of %s that did not come whole is no success"):format(call[1]), function()
      local tries, longest = {}, call.stream and 420 or 180
      for _, style in ipairs(STYLES) do
        local ok, whole = try(call, style)
        assert.is_true(ok, tostring(whole))
        assert.are.equal(call[3], whole)
        for at = 0, longest do
          local ways = at % 7 ~= 0 and { "cut" } or call.undone and { "cut", "reset" } or { "cut", "reset", "hold" }
          for _, how in ipairs(ways) do
            tries[#tries + 1] = { call = call, style = style, at = at, how = how }
          end
        end
      end
      local enough, short = judge(tries)
      for _, style in ipairs(STYLES) do
        assert.is_true(short[style] > 15, style .. ": it was never cut")
        assert.is_true(enough[style] < longest, style .. ": it never came whole")
        if not call.stream and style ~= "closed" then
          assert.is_true(enough[style] >= short[style], ("%s: %d < %d"):format(style, enough[style], short[style]))
        end
      end
    end)
  end

  -- Beside their callers, who have their errors in time.
  it("that stops is no success also where what was asked for is undone", function()
    local warned = {}
    async.on_error(function(text) warned[#warned + 1] = text end)
    local tries = {}
    for _, call in ipairs(CALLS) do
      for at = 0, call.undone and 160 or -1, 20 do
        tries[#tries + 1] = { call = call, style = "length", at = at, how = "hold" }
      end
    end
    judge(tries)
    async.on_error(nil)
    local all = table.concat(warned, "\n")
    for _, text in ipairs { "a box may be left", "a run may go on in box b" } do
      assert.is_truthy(all:find(text, 1, true), all)
    end
  end)
end)
