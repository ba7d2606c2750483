-- The same streams read by lbox and by the official TypeScript SDK: every quirk of the protocol, and random
-- logs of events cut into random chunks. What the other one loses or forges is told with each case.
local core = require "lbox.core"
local fault = require "spec.support.fault"
local json = require "lbox.json"
local random = require "spec.support.random"
local support = require "spec.support.local"

local RANDOM_CASES = 400
-- Long enough for both to have read one chunk before the next comes.
local PAUSE_MS = 40

-- Plays the chunks of a case, each as a chunk of HTTP that arrives alone.
local ROUTES = [==[
local core = require "lbox.core"
local json = require "lbox.json"
local file = assert(io.open(%q))
for _, case in ipairs(json.decode(file:read("a"))) do
  local path = case.kind == "agent" and "/run/stream" or "/exec-stream"
  routes["POST /v2/box/" .. case.id .. path] = function(reply)
    reply:begin()
    for _, chunk in ipairs(case.chunks) do
      reply:chunk(core.base64_decode(chunk))
      reply:sleep(case.pause)
    end
    if case.cut then
      reply:cut()
    else
      reply:finish()
    end
  end
  routes["GET /v2/box/" .. case.id .. "/runs"] = function(reply)
    reply:json(200, { runs = { { id = "r1", status = "failed", error_message = "it broke" } } })
  end
end
file:close()
]==]

local START = 'event: run_start\ndata: {"run_id":"r1"}\n\n'
local DONE = 'event: done\ndata: {"output":"all","input_tokens":1,"output_tokens":2}\n\n'
local EXIT = 'event: exit\ndata: {"exit_code":0,"cpu_ns":5}\n\n'

local function agent(name, chunks, differs, ours)
  return { name = name, kind = "agent", chunks = chunks, pause = PAUSE_MS, differs = differs, ours = ours }
end

local function exec(name, chunks, differs, ours)
  return { name = name, kind = "exec", chunks = chunks, pause = PAUSE_MS, differs = differs, ours = ours }
end

-- `differs`: what the other SDK makes of it. `ours`: what lbox gives, as far as it matters.
local QUIRKS = {
  agent("start without an id", { "event: run_start\ndata: {}\n\n", DONE }),
  agent("every kind of event", { START, 'event: text\ndata: {"text":"a"}\n\n',
    'event: thinking\ndata: {"text":"hm"}\n\nevent: tool\ndata: {"name":"ls","input":{"p":1},"id":"t1"}\n\n',
    'event: tool_result\ndata: {"output":[1,"x",{"y":true}],"tool_use_id":"t1"}\n\n', DONE,
    'event: stats\ndata: {"cpu_ns":9,"memory_peak_bytes":8}\n\n' }),
  agent("every spelling of a tool's id", { START,
    'event: tool\ndata: {"name":"a","tool_call_id":"1","id":"9"}\n\n',
    'event: tool\ndata: {"name":"a","tool_use_id":"2"}\n\n',
    'event: tool\ndata: {"name":"a","toolCallId":"3"}\n\nevent: tool\ndata: {"name":"a","id":"4"}\n\n',
    'event: tool\ndata: {"input":{"a":1}}\n\n', DONE }),
  agent("empty texts give no chunk", { START, 'event: text\ndata: {"text":""}\n\n',
    'event: thinking\ndata: {"text":""}\n\n', DONE }),
  agent("fields that are missing", { START, "event: tool\ndata: {}\n\n",
    "event: stats\ndata: {}\n\nevent: done\ndata: {}\n\n" }),
  agent("an event nobody knows", { START, 'event: news\ndata: {"a":[1,{"b":"c"}]}\n\n', DONE }),
  agent("an event nobody knows whose data is a number", { START, "event: news\ndata: 7\n\n", DONE }),
  agent("data that are no JSON", { START, "event: text\ndata: {oops\n\n", DONE }),
  agent("data that are null", { START, "event: text\ndata: null\n\n", DONE }),
  agent("a number where an object belongs", { START, "event: text\ndata: 7\n\n", DONE }),
  agent("letters of several bytes, split", { START, 'event: text\ndata: {"text":"\195', '\169 \240\159',
    '\152\128"}\n\n', DONE }),
  agent("escapes before a line", { START, '\27[2K\27[1;31mevent: text\ndata: {"text":"a"}\n\n', DONE }),
  agent("residue of a spinner before a line", { START, '\\ | / - event: text\n-data: {"text":"a"}\n\n', DONE }),
  agent("lines that end with CR LF", { START, 'event: text\r\ndata: {"text":"a"}\r\n\r\n', DONE }),
  agent("no blank line between events", { START, 'event: text\ndata: {"text":"a"}\n',
    'event: text\ndata: {"text":"b"}\n', DONE }),
  agent("the last of two data lines", { START, 'event: text\ndata: {"text":"a"}\ndata: {"text":"b"}\n\n', DONE }),
  agent("no blank line at the end", { START, 'event: done\ndata: {"output":"x"}\n' }),
  agent("fields without the space", { START, 'event:text\ndata:{"text":"a"}\n\n', DONE }),
  agent("an event without data is replaced", { START, 'event: text\nevent: thinking\ndata: {"text":"a"}\n\n', DONE }),
  agent("comments and blank lines", { ": hello\n\n\n", START, ": still here\n\n", DONE }),
  agent("an error ends the stream", { START, 'event: text\ndata: {"text":"a"}\n\n',
    'event: error\ndata: {"error":"no luck"}\n\n', 'event: text\ndata: {"text":"b"}\n\n' }),
  agent("done by its output", { START, 'event: text\ndata: {"text":"working"}\n\n',
    'event: done\ndata: {"output":" x "}\n\n' }),

  agent("an escape split over two chunks", { START, "\27[2", 'Kevent: text\ndata: {"text":"a"}\n\n', DONE },
    "the other SDK loses the event", { types = "start text-delta finish" }),
  agent("a last data line without its line end", { START, 'event: done\ndata: {"output":"x"}' },
    "the other SDK loses the event, and calls the run completed without it",
    { types = "start finish", result = "x" }),
  agent("no end at all", { START, 'event: text\ndata: {"text":"a"}\n\n' },
    "the other SDK calls the run completed; the server's list says that it failed",
    { types = "start text-delta", failed = true }),
  agent("a second end", { START, DONE, DONE }, "the other SDK gives two finish chunks", { types = "start finish" }),

  exec("output and exit in one", { "hello\n" .. EXIT }),
  exec("an exit right after the output", { "hello" .. EXIT }),
  exec("a marker split in itself", { "hello\neve", "nt: ex", 'it\ndata: {"exit_code":0,"cpu_ns":5}\n\n' }),
  exec("nothing but the exit", { 'event: exit\ndata: {"exit_code":7,"cpu_ns":1}\n\n' }),
  exec("letters of several bytes, split", { "\195", "\169\n", EXIT }),
  exec("what is almost a marker", { "event: exi\nevent: erro\n", "event: ex", "tra\n", EXIT }),
  exec("a failure to run", { 'event: error\ndata: {"error":"no such folder"}\n\n' }),

  exec("a program that prints an exit", { "event: exit\ndata: {\"exit_code\":0}\n\nmore\n",
    'event: exit\ndata: {"exit_code":9,"cpu_ns":1}\n\n' }, "the other SDK believes the program",
    { exit_code = 9, output = 'event: exit\ndata: {"exit_code":0}\n\nmore\n' }),
  exec("a program that prints an error", { "event: error\ndata: {\"error\":\"forged\"}\n\nmore\n", EXIT },
    "the other SDK believes the program",
    { exit_code = 0, output = 'event: error\ndata: {"error":"forged"}\n\nmore\n' }),
  exec("no exit at all", { "hello\n" }, "the other SDK calls the command completed",
    { types = "", failed = true, output = "hello\n" }),
  exec("a marker split everywhere", { "hello\neve", "nt: ex", "it\nda", 'ta: {"exit_code":0,"cpu_ns":5}\n\n' },
    "the other SDK gives no exit", { types = "exit", output = "hello\n" }),
  exec("an exit whose data come late", { "x\nevent: exit\n", 'data: {"exit_code":3,"cpu_ns":1}\n\n' },
    "the other SDK gives no exit", { exit_code = 3, output = "x\n" }),
  exec("bytes that are no text", { "\255\254\n", EXIT }, "the other SDK gives U+FFFD",
    { exit_code = 0, output = "\255\254\n" }),
}

-- ------------------------------------------------------------------------------------ random logs

local WORDS = { "hello", " world", "\\n", "é", "😀", "\\\"", "x", "event: text", "data: ", "\\u00e9", "\\\\" }

local function random_text(rnd)
  local parts = {}
  for i = 1, rnd(6) do
    parts[i] = WORDS[rnd(#WORDS)]
  end
  return table.concat(parts)
end

local EVENTS = {
  function(rnd) return 'event: text\ndata: {"text":"' .. random_text(rnd) .. '"}\n\n' end,
  function(rnd) return 'event: thinking\ndata: {"text":"' .. random_text(rnd) .. '"}\n\n' end,
  function(rnd) return ('event: tool\ndata: {"name":"n%d","input":{"a":"%s"},"id":"t%d"}\n\n'):format(rnd(9),
    random_text(rnd), rnd(9)) end,
  function(rnd)
    return ('event: tool_result\ndata: {"output":"%s","id":"t%d"}\n\n'):format(random_text(rnd), rnd(9))
  end,
  function(rnd) return ('event: odd%d\ndata: {"v":[%d,"%s"]}\n\n'):format(rnd(3), rnd(100), random_text(rnd)) end,
  function() return ": a comment\n\n" end,
  function(rnd) return 'event: text\r\ndata: {"text":"' .. random_text(rnd) .. '"}\r\n\r\n' end,
}

local function random_log(rnd)
  local parts = { START }
  for _ = 1, rnd(12) do
    parts[#parts + 1] = EVENTS[rnd(#EVENTS)](rnd)
  end
  parts[#parts + 1] = DONE
  if rnd(2) == 1 then
    parts[#parts + 1] = 'event: stats\ndata: {"cpu_ns":1,"memory_peak_bytes":2}\n\n'
  end
  return table.concat(parts)
end

local OUTPUTS = { "hello\n", "event: ", "event: exi", "exit\n", "data: {}", "\n", "é", "event: error", "event: exit",
  "x" }

--- Output that only looks as if it had an end in it.
local function random_output(rnd)
  local parts = {}
  for i = 1, rnd(10) do
    parts[i] = OUTPUTS[rnd(#OUTPUTS)] .. (rnd(2) == 1 and " " or "")
  end
  return (table.concat(parts):gsub("event: exit\n", "event: exit."):gsub("event: error\n", "event: error."))
end

local function cut_at_random(rnd, text)
  local chunks, at = {}, 1
  while at <= #text do
    local n = rnd(3) == 1 and rnd(4) or rnd(40)
    chunks[#chunks + 1] = text:sub(at, at + n - 1)
    at = at + n
  end
  return chunks
end

-- ------------------------------------------------------------------------------------ both readers

local SNAKE = { runId = "run_id", toolCallId = "tool_call_id", toolName = "tool_name", inputTokens = "input_tokens",
  outputTokens = "output_tokens", cachedInputTokens = "cached_input_tokens", sessionId = "session_id",
  cpuNs = "cpu_ns", memoryPeakBytes = "memory_peak_bytes", exitCode = "exit_code" }

--- A chunk of the other SDK, spelled as ours.
local function ours_of(chunk)
  local out = {}
  for key, value in pairs(chunk) do
    out[SNAKE[key] or key] = key == "usage" and ours_of(value) or value
  end
  return out
end

--- What can be compared: of a command, all of its output as one.
local function comparable(found, kind)
  local chunks, output = {}, {}
  for _, chunk in ipairs(found.chunks) do
    if kind == "exec" and chunk.type == "output" then
      output[#output + 1] = chunk.data
    else
      chunks[#chunks + 1] = chunk
    end
  end
  return { chunks = chunks, output = table.concat(output), failed = found.error ~= nil and found.error ~= json.null,
    result = found.result }
end

local function read(box, kind)
  local found = { chunks = {} }
  local stream
  local ok, err = pcall(function()
    stream = kind == "agent" and box.agent:stream { prompt = "x" } or box.exec:stream("x")
    for chunk in stream:chunks() do
      found.chunks[#found.chunks + 1] = chunk
    end
  end)
  found.error, found.result = not ok and tostring(err) or nil, stream and stream.result
  return found
end

describe("a stream, read by lbox and by @upstash/box,", function()
  local cases, theirs, server, file = {}, {}, nil, os.tmpname()

  setup(function()
    for _, case in ipairs(QUIRKS) do
      cases[#cases + 1] = case
    end
    local rnd = random.new(20261126)
    for i = 1, RANDOM_CASES do
      local kind = i % 3 == 0 and "exec" or "agent"
      local log = kind == "exec" and random_output(rnd) or random_log(rnd)
      local chunks = cut_at_random(rnd, log)
      if kind == "exec" then
        chunks[#chunks + 1] = EXIT -- in one piece, which the other SDK needs
      end
      cases[#cases + 1] = { kind = kind, log = log, chunks = chunks, pause = 0, random = true }
    end
    local wire = {}
    for i, case in ipairs(cases) do
      local chunks = json.array {}
      for j, chunk in ipairs(case.chunks) do
        chunks[j] = core.base64_encode(chunk)
      end
      case.id = "case" .. i
      wire[i] = { id = case.id, kind = case.kind, chunks = chunks, pause = case.pause }
    end
    local out = assert(io.open(file, "w"))
    out:write(json.encode(wire))
    out:close()
    if support.sh("test -d node_modules/@upstash/box && echo there") == "" then
      local text, failed = support.sh("npm ci --no-audit --no-fund")
      assert(failed == 0, "npm ci failed:\n" .. text)
    end
    server = fault.start(ROUTES:format(file))
    local text, status = support.sh(("timeout 120 node spec/peer/streams.mjs %s %s %s"):format(
      server.url, fault.KEY, file))
    assert(status == 0, text)
    for line in text:gmatch("[^\n]+") do
      local found = json.decode(line)
      for i, chunk in ipairs(found.chunks) do
        found.chunks[i] = ours_of(chunk)
      end
      theirs[found.id] = found
    end
  end)

  teardown(function()
    server:stop()
    os.remove(file)
  end)

  local function both(case)
    return comparable(read(server:box(case.id), case.kind), case.kind), comparable(theirs[case.id], case.kind)
  end

  for _, case in ipairs(QUIRKS) do
    local title = ("%s: %s"):format(case.kind, case.name)
    if case.differs then
      it(title .. ": is not the same (" .. case.differs .. ")", function()
        local mine, other = both(case)
        assert.are_not.same(other, mine)
        local types = {}
        for i, chunk in ipairs(mine.chunks) do
          types[i], mine.exit_code = chunk.type, chunk.exit_code
        end
        mine.types = table.concat(types, " ")
        for name, value in pairs(case.ours) do
          assert.are.equal(value, mine[name], name)
        end
      end)
    else
      it(title .. ": is the same", function()
        local mine, other = both(case)
        assert.are.same(other, mine)
      end)
    end
  end

  it("is the same however a random log is cut", function()
    local compared = 0
    for _, case in ipairs(cases) do
      if case.random then
        local mine, other = both(case)
        assert.are.same(other, mine, ("%q"):format(case.log))
        compared = compared + 1
      end
    end
    assert.are.equal(RANDOM_CASES, compared)
  end)
end)
