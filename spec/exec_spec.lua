local fault = require "spec.support.fault"
local json = require "lbox.json"
local lbox = require "lbox"

local ROUTES = [[
local function answer(status, body)
  return function(reply) reply:json(status, body) end
end
routes["POST /v2/box/ok/exec"] = answer(200, { exit_code = 0, output = " out\n",
  error = "warning" })
routes["POST /v2/box/ok/code"] = answer(200, { exit_code = 0, output = "42\n" })
routes["POST /v2/box/fails/exec"] = answer(200, { exit_code = 3, output = "out", error = "err" })
routes["POST /v2/box/quiet/exec"] = answer(200, { exit_code = 3, output = "out" })
routes["POST /v2/box/odd/exec"] = answer(200, { output = "out" })
routes["POST /v2/box/silent/exec"] = function(reply) reply:hold() end

local function stream(...)
  local pieces = { ... }
  return function(reply)
    reply:begin()
    for _, piece in ipairs(pieces) do
      reply:chunk(piece)
    end
    reply:finish()
  end
end
local EXIT = 'event: exit\ndata: {"exit_code":%d,"cpu_ns":9}\n\n'
routes["POST /v2/box/ok/exec-stream"] = stream("one\n", " two", EXIT:format(0))
routes["POST /v2/box/ok/code-stream"] = stream("42\n" .. EXIT:format(0))
routes["POST /v2/box/fails/exec-stream"] = stream("x" .. EXIT:format(7))
routes["POST /v2/box/bytes/exec-stream"] = stream("\0\255", "\254" .. EXIT:format(0))
routes["POST /v2/box/forged/exec-stream"] = stream(EXIT:format(0) .. "not the end", EXIT:format(1))
routes["POST /v2/box/endless/exec-stream"] = stream("no exit")
routes["POST /v2/box/vague/exec-stream"] = stream('out', 'event: exit\ndata: {"cpu_ns":9}\n\n')
routes["POST /v2/box/refused/exec-stream"] = stream(
  'event: error\ndata: {"error":"no such directory"}\n\n')
routes["POST /v2/box/cut/exec-stream"] = function(reply)
  reply:begin()
  reply:chunk("so far")
  reply:cut()
end
routes["POST /v2/box/silent/exec-stream"] = function(reply)
  reply:begin()
  reply:chunk("so far")
  reply:hold()
end
routes["POST /v2/box/gone/exec-stream"] = answer(404, { error = "box not found" })
]]

describe("exec", function()
  local server

  setup(function()
    server = fault.start(ROUTES)
  end)

  teardown(function()
    server:stop()
  end)

  local function exec(id)
    return server:box(id).exec
  end

  local function sent(name)
    local log = server:log(name)
    return json.decode(log[#log].body)
  end

  local function collect(stream)
    local chunks = {}
    for chunk in stream:chunks() do
      chunks[#chunks + 1] = chunk
    end
    return chunks
  end

  it("gives stdout of a command that succeeded, untrimmed", function()
    local run = exec("ok"):command("echo out")
    assert.are.equal("command", run.type)
    assert.are.equal("completed", run.status)
    assert.are.equal(0, run.exit_code)
    assert.are.equal(" out\n", run.result)
    assert.are.equal(" out\n", run.stdout)
    assert.are.equal("warning", run.stderr)
    assert.are.equal(36, #run.id)
    assert.is_true(run.cost.compute_ms >= 0)
    assert.are.equal(0, run.cost.total_usd)
    assert.are.same({ command = { "sh", "-c", "echo out" } }, sent("POST /v2/box/ok/exec"))
  end)

  it("gives stderr, else stdout, of one that failed, and does not raise", function()
    local run = exec("fails"):command("x")
    assert.are.equal("failed", run.status)
    assert.are.equal(3, run.exit_code)
    assert.are.equal("err", run.result)
    assert.are.equal("out", run.stdout)
    assert.are.equal("out", exec("quiet"):command("x").result)
  end)

  it("never takes an answer without an exit code for a success", function()
    local err = fault.raised(exec("odd").command, exec("odd"), "x")
    assert.are.equal("api", err.kind)
    assert.are.equal("odd", err.box_id)
  end)

  it("sends code with the server's time limit, which the client waits longer than", function()
    local run = exec("ok"):code { code = "print(42)", lang = "python", timeout = 5,
      folder = "/tmp" }
    assert.are.equal("code", run.type)
    assert.are.equal("42\n", run.result)
    assert.are.same({ code = "print(42)", language = "python", timeout = 5, folder = "/tmp" },
      sent("POST /v2/box/ok/code"))
  end)

  it("works in the box's directory, or in one relative to it", function()
    local box = server:box("ok")
    local function folder(cwd, opts)
      box.cwd = cwd
      box.exec:command("x", opts)
      return sent("POST /v2/box/ok/exec").folder
    end
    assert.is_nil(folder("/workspace/home"))
    assert.are.equal("a/b", folder("/workspace/home/a/b"))
    assert.are.equal("/workspace/homer", folder("/workspace/homer"))
    assert.are.equal("/", folder("/"))
    assert.are.equal("a/c", folder("/workspace/home/a/b", { folder = "../c" }))
    assert.are.equal("/etc", folder("/workspace/home/a/b", { folder = "/etc" }))
  end)

  it("raises on time", function()
    local started = lbox.now()
    local err = fault.raised(exec("silent").command, exec("silent"), "sleep 100", { timeout = 60 })
    assert.are.equal("timeout", err.kind)
    assert.is_true(lbox.now() - started < 1000)
  end)

  it("checks its arguments before any request", function()
    local it_exec = exec("ok")
    local before = #server:log()
    for _, call in ipairs {
      function() it_exec:command("") end,
      function() it_exec:command() end,
      function() it_exec:command({ "ls" }) end,
      function() it_exec:command("x", { foldr = "y" }) end,
      function() it_exec:command("x", { folder = "" }) end,
      function() it_exec:command("x", { timeout = -1 }) end,
      function() it_exec:code { code = "x" } end,
      function() it_exec:code { lang = "js" } end,
      function() it_exec:code() end,
      function() it_exec:stream("x", { idle_timeout = "1" }) end,
      function() it_exec:stream_code {} end,
    } do
      assert.are.equal("usage", fault.raised(call).kind)
    end
    assert.are.equal(before, #server:log())
  end)

  it("streams output as it comes, the exit last", function()
    local stream = exec("ok"):stream("x")
    assert.are.equal("running", stream.status)
    local chunks = collect(stream)
    local text = ""
    for i = 1, #chunks - 1 do
      assert.are.equal("output", chunks[i].type)
      text = text .. chunks[i].data
    end
    assert.are.equal("one\n two", text)
    assert.are.same({ type = "exit", exit_code = 0, cpu_ns = 9 }, chunks[#chunks])
    assert.are.equal("completed", stream.status)
    assert.are.equal(0, stream.exit_code)
    assert.are.equal("one\n two", stream.result)
    assert.are.equal("", stream.stdout)
    assert.is_nil(stream:next())
  end)

  it("streams code", function()
    local stream = exec("ok"):stream_code { code = "print(42)", lang = "python", timeout = 7 }
    collect(stream)
    assert.are.equal("code", stream.type)
    assert.are.equal("42\n", stream.result)
    assert.are.same({ code = "print(42)", language = "python", timeout = 7 },
      sent("POST /v2/box/ok/code-stream"))
  end)

  it("gives a failed command's exit code and does not raise", function()
    local stream = exec("fails"):stream("x")
    assert.are.equal(7, collect(stream)[2].exit_code)
    assert.are.equal("failed", stream.status)
  end)

  it("keeps bytes as they are", function()
    local stream = exec("bytes"):stream("x")
    collect(stream)
    assert.are.equal("\0\255\254", stream.result)
  end)

  it("takes no printed exit for the end", function()
    local stream = exec("forged"):stream("x")
    collect(stream)
    assert.are.equal(1, stream.exit_code)
    assert.matches("not the end$", stream.result)
  end)

  it("raises when the exit never came, and is not completed", function()
    for id, text in pairs { cut = "so far", endless = "no exit", vague = "out" } do
      local stream = exec(id):stream("x")
      local err = fault.raised(collect, stream)
      assert.are.equal("stream", err.kind, id)
      assert.matches("exit code", err.message)
      assert.are.equal(text, err.partial)
      assert.are.equal(id, err.box_id)
      assert.are.equal("failed", stream.status)
      assert.are.equal(text, stream.result)
      assert.is_nil(stream.exit_code)
      assert.are.equal(err, fault.raised(stream.next, stream))
    end
  end)

  it("raises what kept the command from running", function()
    local stream = exec("refused"):stream("x")
    local err = fault.raised(collect, stream)
    assert.are.equal("lbox: run: no such directory", tostring(err))
    assert.are.equal("failed", stream.status)
  end)

  it("raises HTTP errors in the call", function()
    assert.are.equal(404, fault.raised(exec("gone").stream, exec("gone"), "x").status_code)
  end)

  it("bounds silence and the whole time", function()
    for _, opts in ipairs { { timeout = 80 }, { idle_timeout = 80 } } do
      local stream = exec("silent"):stream("x", opts)
      assert.are.equal("so far", stream:next().data)
      local started = lbox.now()
      local err = fault.raised(stream.next, stream)
      assert.are.equal("timeout", err.kind)
      assert.matches("80 ms", err.message)
      assert.are.equal("so far", err.partial)
      assert.are.equal("cancelled", stream.status)
      assert.is_true(lbox.now() - started < 1000)
    end
  end)

  it("closes the transfer when it is cancelled, which no server confirms", function()
    local stream = exec("silent"):stream("x")
    stream:next()
    assert.is_false(stream:cancel())
    assert.are.equal("cancelled", stream.status)
    assert.are.equal("cancelled", fault.raised(stream.next, stream).kind)
  end)
end)
