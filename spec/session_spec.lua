local errors = require "lbox.errors"
local fault = require "spec.support.fault"
local json = require "lbox.json"
local lbox = require "lbox"
local raised = fault.raised

local ROUTES = [==[
local core = require "lbox.core"
local json = require "lbox.json"

--- A session whose command is `fn(ws, start)`.
local function session(id, fn)
  routes["GET /v2/box/" .. id .. "/exec-session"] = function(reply, request)
    local ws = reply:websocket(request)
    local start = ws:receive()
    ws:send { type = "started", pid = 42, execId = "e1" }
    fn(ws, start, reply)
  end
end

local function output(source, text)
  return { type = source, data = core.base64_encode(text) }
end

session("echo", function(ws)
  while true do
    local frame = ws:receive()
    if not frame then
      return
    elseif frame.type == "stdin" then
      ws:send(output("stdout", core.base64_decode(frame.data)))
    elseif frame.type == "stdin_close" then
      ws:send(output("stderr", "bye\n"))
      ws:send { type = "exit", code = 3 }
    else
      ws:send(output("stdout", json.encode(frame)))
    end
  end
end)
session("start", function(ws, start)
  ws:send(output("stdout", json.encode(start)))
  ws:send { type = "exit", code = 0 }
end)
session("bytes", function(ws)
  local all = {}
  for i = 0, 255 do all[#all + 1] = string.char(i) end
  ws:send(output("stdout", table.concat(all):rep(64)))
  ws:send { type = "exit", code = 0 }
end)
session("flood", function(ws, _, reply)
  for i = 1, 2000 do
    if not ws:send(output("stdout", ("%04d"):format(i) .. ("x"):rep(4092))) then return end
  end
  ws:send { type = "exit", code = 0 }
  ws:receive()
end)
session("endless", function(ws)
  while ws:send(output("stdout", ("x"):rep(4096))) and ws:send "junk" do end
end)
session("sink", function(ws)
  local n = 0
  for frame in ws.receive do
    if frame.type == "stdin_close" then break end
    n = n + #core.base64_decode(frame.data)
  end
  ws:send(output("stdout", tostring(n)))
  ws:send { type = "exit", code = 0 }
end)
session("lost", function(ws, _, reply)
  ws:send(output("stdout", "so far"))
  reply:cut()
end)
session("hung-up", function(ws) ws:hang_up() end)
session("failed", function(ws) ws:send { type = "error", message = "the box was deleted" } end)
session("codeless", function(ws) ws:send { type = "exit" } end)
session("nonsense", function(ws)
  ws:send "7"
  ws:send '"text"'
  ws:send "{oops"
  ws:send { type = "news" }
  ws:send(output("stdout", "still here"))
  ws:send { type = "exit", code = 0 }
end)
session("bad-base64", function(ws) ws:send { type = "stdout", data = "***" } end)
session("rude", function(_, _, reply) reply:raw(("\255"):rep(20)) reply:hold() end)
session("long", function(ws) ws:receive() end)

local function begin(id, fn)
  routes["GET /v2/box/" .. id .. "/exec-session"] = fn
end
begin("refused", function(reply) reply:json(401, { error = "unauthorized" }) end)
begin("page", function(reply) reply:text(200, "<html>") end)
begin("forged", function(reply, request) reply:websocket(request, "x3JJHMbDL1EzLkh9GBhXDw==") reply:hold() end)
begin("unstarted", function(reply, request) reply:websocket(request):receive() reply:cut() end)
begin("unable", function(reply, request)
  local ws = reply:websocket(request)
  ws:receive()
  ws:send { type = "error", message = "no such program: nope" }
end)
begin("early", function(reply, request)
  local ws = reply:websocket(request)
  ws:receive()
  ws:send { type = "exit", code = 1 }
end)
begin("pidless", function(reply, request)
  local ws = reply:websocket(request)
  ws:receive()
  ws:send { type = "started", pid = 0 }
end)
begin("noisy", function(reply, request)
  local ws = reply:websocket(request)
  while ws:send "junk" and ws:send { type = "news" } do end
end)
begin("telling", function(reply, request)
  local ws = reply:websocket(request)
  ws:send { type = "error", message = "cannot start with " .. json.encode(ws:receive().env) }
end)
begin("mute", function(reply, request) reply:websocket(request) reply:hold() end)
begin("silent", function(reply) reply:hold() end)
begin("anywhere", function(reply, request)
  local at = tonumber(request.headers["x-at"])
  if at then reply:cut_after(at) end
  local ws = reply:websocket(request)
  ws:receive()
  ws:send { type = "started", pid = 42, execId = "e1" }
  ws:send(output("stdout", "hello"))
  ws:send { type = "exit", code = 0 }
  reply:cut()
end)
begin("fragments", function(reply, request)
  local ws = reply:websocket(request)
  ws:receive()
  -- A message in two frames with a ping between them, then a pong that nobody asked for.
  local text = '{"type":"started","pid":42,"execId":"e1"}'
  reply:raw("\1" .. string.char(10) .. text:sub(1, 10))
  reply:raw("\137\4ping")
  reply:raw("\128" .. string.char(#text - 10) .. text:sub(11) .. "\138\0")
  ws:send { type = "exit", code = 0 }
end)
]==]

describe("a session", function()
  local server

  setup(function()
    server = fault.start(ROUTES)
  end)

  teardown(function()
    server:stop()
  end)

  local function open(id, opts)
    return server:box(id).exec:session(opts or { cmd = "x" })
  end

  local function read(session)
    local text = {}
    for source, data in session:output() do
      text[#text + 1] = source .. ":" .. data
    end
    return table.concat(text, "|")
  end

  it("writes to a command and reads what it says, until it ends", function()
    local session = open "echo"
    assert.are.same({ 42, "e1" }, { session.pid, session.exec_id })
    assert.is_true(session:write "hello\n")
    local output = session:output()
    assert.are.same({ "stdout", "hello\n" }, { output(session) })
    assert.is_true(session:end_stdin())
    assert.are.same({ "stderr", "bye\n" }, { output(session) })
    assert.is_nil((output(session)))
    assert.are.equal(3, session:wait())
    assert.are.equal(3, session:wait(1))
    assert.are.equal(3, session.exit_code)
    for _, name in ipairs { "write", "kill", "terminate" } do
      assert.is_false(session[name](session, name == "write" and "x" or nil), name)
    end
    assert.is_false(session:resize(1, 1))
    assert.is_false(session:end_stdin())
  end)

  it("tells what to run, where and with what", function()
    local box = server:box "start"
    local function started(opts)
      local session = box.exec:session(opts)
      local _, text = session.output(session)(session)
      assert.are.equal(0, session:wait())
      return json.decode(text)
    end
    assert.are.same({ type = "start", cmd = "x", cwd = "/workspace/home" }, started { cmd = "x" })
    assert.are.same({
      type = "start", argv = { "ls", "-l" }, tty = true, cwd = "/workspace/home/sub", rows = 24, cols = 80,
      env = { "A=1", "B=x=y" },
    }, started { argv = { "ls", "-l" }, tty = true, cwd = "sub", rows = 24, cols = 80, env = { B = "x=y", A = "1" } })
    assert.are.same({ type = "start", cmd = "x", cwd = "/tmp" },
      started { argv = {}, cmd = "x", cwd = "/tmp", rows = 0, cols = 0, env = {}, tty = false })
  end)

  it("carries any bytes, both ways", function()
    local all = {}
    for i = 0, 255 do
      all[i + 1] = string.char(i)
    end
    local bytes = table.concat(all):rep(64)
    assert.are.equal("stdout:" .. bytes, read(open "bytes"))
    local session = open "echo"
    session:write(bytes)
    local got, output = "", session:output()
    while #got < #bytes do
      got = got .. select(2, output(session))
    end
    assert.are.equal(bytes, got)
    session:close()
  end)

  it("resizes its terminal and sends signals", function()
    local session = open "echo"
    local output = session:output()
    local function told(ok)
      assert.is_true(ok)
      return json.decode((select(2, output(session))))
    end
    assert.are.same({ type = "resize", rows = 24, cols = 80 }, told(session:resize(24, 80)))
    assert.are.same({ type = "signal", signal = "TERM" }, told(session:kill()))
    assert.are.same({ type = "signal", signal = "INT" }, told(session:kill " sigint "))
    assert.are.same({ type = "terminate" }, told(session:terminate()))
    assert.are.same({ type = "terminate", graceMs = 500 }, told(session:terminate(500)))
    local err = raised(session.kill, session, "SIGTREM")
    assert.are.same({ "usage", true }, { err.kind, err.message:find('did you mean "TERM"', 1, true) ~= nil })
    assert.are.equal("usage", raised(session.resize, session, 0, 80).kind)
    assert.are.equal("usage", raised(session.write, session, 7).kind)
    session:close()
  end)

  it("gives output to callbacks, and what nobody asks for to nobody", function()
    local stdout, stderr = {}, {}
    local session = open("echo", {
      cmd = "x",
      on_stdout = function(data) stdout[#stdout + 1] = data end,
      on_stderr = function(data) stderr[#stderr + 1] = data end,
    })
    session:write "a"
    session:end_stdin()
    assert.are.equal(3, session:wait())
    assert.are.same({ { "a" }, { "bye\n" } }, { stdout, stderr })
    assert.are.equal(0, open("flood"):wait())
  end)

  it("ends with the error of a callback, unchanged", function()
    local mine = {}
    local session = open("echo", { cmd = "x", on_stdout = function() error(mine) end })
    session:write "a"
    assert.are.equal(mine, raised(session.wait, session))
    assert.are.equal(mine, raised(session.wait, session))
    assert.is_false(session:write "a")
  end)

  it("is read and waited for by different tasks", function()
    local session = open "flood"
    local bytes = 0
    lbox.gather(function()
      for _, data in session:output() do
        bytes = bytes + #data
        lbox.sleep(0)
      end
    end, function()
      assert.are.equal(0, session:wait())
    end, function()
      assert.are.equal(0, session:wait())
    end)
    assert.are.equal(2000 * 4096, bytes)
  end)

  it("holds up who writes faster than the command reads", function()
    local session = open "sink"
    local piece = ("x"):rep(1000000)
    for _ = 1, 8 do
      assert.is_true(session:write(piece))
    end
    session:end_stdin()
    assert.are.equal("stdout:8000000", read(session))
  end)

  it("is read while it is written to, so that a command which answers reads on", function()
    local session = open "echo"
    local bytes = ("0123456789"):rep(90000)
    assert.is_true(session:write(bytes))
    session:end_stdin()
    local got = {}
    for source, data in session:output() do
      got[#got + 1] = source == "stdout" and data or ""
    end
    assert.are.equal(bytes, table.concat(got))
    session = open "echo"
    session:write(bytes)
    session:end_stdin()
    assert.are.equal(3, session:wait())
  end)

  it("is written to by many tasks, each piece whole", function()
    local session = open "sink"
    local pieces = {}
    for i = 1, 60 do
      pieces[i] = ("x"):rep(100000 + i)
    end
    for _, ok in ipairs(lbox.map(pieces, function(piece) return session:write(piece) end, { concurrency = 60 })) do
      assert.is_true(ok)
    end
    session:end_stdin()
    assert.are.equal("stdout:6001830", read(session))
  end)

  it("is not fooled by what are no frames, and puts fragments together", function()
    assert.are.equal("stdout:still here", read(open "nonsense"))
    assert.are.equal(0, open("fragments"):wait())
  end)

  it("that ends before its command is an error, whatever ended it", function()
    for id, message in pairs {
      lost = "the connection ended before the command did",
      ["hung-up"] = "the connection ended before the command did",
      failed = "the box was deleted",
      codeless = "the command ended, and the server did not say with what exit code",
      ["bad-base64"] = "the server sent stdout that is not base64",
      rude = "the server broke the rules of WebSocket before the command ended",
    } do
      local session = open(id)
      for _ = 1, 2 do
        local err = raised(session.wait, session)
        assert.are.same({ id == "failed" and "run" or "stream", message, id }, { err.kind, err.message, err.box_id })
      end
      assert.is_nil(session.exit_code)
    end
    local session = open "lost"
    local err = raised(read, session)
    assert.are.equal("stream", err.kind)
  end)

  it("says why it could not be started", function()
    for id, want in pairs {
      refused = { "api", "unauthorized" },
      page = { "api", "not what a Box API answers" },
      forged = { "api", "not what a Box API answers" },
      unstarted = { "stream", "the connection ended before the command did" },
      unable = { "run", "no such program: nope" },
      early = { "stream", "the command ended before the server said that it had started" },
      pidless = { "stream", "started without a usable pid" },
    } do
      local err = raised(open, id)
      assert.are.equal(want[1], err.kind, tostring(err))
      assert.is_truthy(err.message:find(want[2], 1, true), tostring(err))
    end
    assert.are.equal(401, raised(open, "refused").status_code)
    for _, id in ipairs { "mute", "silent", "noisy" } do
      local started = lbox.now()
      assert.are.equal("timeout", raised(open, id, { cmd = "x", timeout = 200 }).kind)
      assert.is_true(lbox.now() - started < 1500)
    end
  end)

  it("is cut anywhere, and never takes that for an exit", function()
    local box, ends = server:box "anywhere", { 0, 0 }
    local cuts = {}
    for at = 0, 330 do
      cuts[#cuts + 1] = at
    end
    lbox.map(cuts, function(at)
      local ok, code = pcall(function()
        local session = box.exec:session { cmd = "x", headers = { ["X-At"] = tostring(at) }, timeout = 3000 }
        assert.are.equal("stdout:hello", read(session))
        return session:wait()
      end)
      ends[ok and 1 or 2] = ends[ok and 1 or 2] + 1
      if ok then
        assert.are.equal(0, code)
      else
        assert.is_true(errors.is(code), tostring(code))
        assert.is_true(code.kind == "stream" or code.kind == "network" or code.kind == "timeout", tostring(code))
      end
    end, { concurrency = 100 })
    assert.is_true(ends[1] > 10 and ends[2] > 200, table.concat(ends, " "))
  end)

  it("waits no longer than it is told, and goes on after that", function()
    local session = open "long"
    local started = lbox.now()
    local err = raised(session.wait, session, 150)
    assert.are.equal("timeout", err.kind)
    assert.is_true(lbox.now() - started < 1000)
    assert.is_true(session:write "x")
    assert.are.equal("timeout", raised(lbox.timeout, 50, session.wait, session).kind)
    assert.is_true(session:write "x")
    session:close()
    assert.are.equal("the session was closed before its command ended", raised(session.wait, session).message)
    session:close()
  end)

  it("is waited for no longer than it is told however much it says", function()
    local session, started = open "endless", lbox.now()
    local err = raised(session.wait, session, 200)
    assert.are.equal("the command did not end within 200 ms", err.message)
    assert.is_true(lbox.now() - started < 1500)
    session:close()
  end)

  it("is waited for by who left its output, also where that is not seen", function()
    local session = open "flood"
    session:output()(session) -- the first piece, and no more
    assert.are.equal(0, session:wait(20000))
  end)

  it("never shows what is in its environment", function()
    local err = raised(open, "telling", { cmd = "x", env = { TOKEN = "hunter2-very \"secret\"" } })
    assert.are.equal("run", err.kind)
    assert.is_nil(err.message:find("hunter2", 1, true), err.message)
  end)

  it("that is silent for too long is over", function()
    local session = open("long", { cmd = "x", idle_timeout = 150 })
    local err = raised(session.wait, session)
    assert.are.same({ "timeout", "the session was silent for 150 ms" }, { err.kind, err.message })
    assert.is_false(session:write "x")
    session = open("echo", { cmd = "x", idle_timeout = 300 })
    local output = session:output()
    for _ = 1, 6 do
      lbox.sleep(100)
      session:write "still here"
      output(session)
    end
    session:end_stdin()
    assert.are.equal(3, session:wait())
    session = open("long", { cmd = "x", idle_timeout = 0 })
    assert.are.equal("the command did not end within 200 ms", raised(session.wait, session, 200).message)
    session:close()
  end)

  it("is hung up when its scope is left, or its box closed", function()
    local session
    lbox.scope(function()
      session = open "long"
    end)
    assert.is_false(session:write "x")
    local box = server:box "long"
    session = box.exec:session { cmd = "x" }
    box:close()
    assert.is_false(session:write "x")
    assert.are.equal("usage", raised(function() box.exec:session { cmd = "x" } end).kind)
  end)

  it("refuses what cannot be right, before any request", function()
    for message, opts in pairs {
      ['needs the option "cmd" or "argv"'] = {},
      ["takes cmd or argv, not both"] = { cmd = "x", argv = { "x" } },
      ["rows must be a whole number"] = { cmd = "x", rows = 1.5 },
      ["cannot be the name of a variable"] = { cmd = "x", env = { ["A=B"] = "c" } },
      ["env must be a table of strings"] = { cmd = "x", env = { A = 1 } },
      ['did you mean "argv"'] = { arg = { "x" } },
    } do
      local err = raised(open, "echo", opts)
      assert.are.equal("usage", err.kind)
      assert.is_truthy(err.message:find(message, 1, true), err.message)
    end
  end)
end)

describe("a command that the service gives up after minutes", function()
  it("is said to go on, and what to use instead", function()
    local failure = require "lbox.failure"
    local function told(status, ms)
      return failure.of_command(errors.new("api", "Failed to execute command", { status_code = status }), ms).message
    end
    assert.are.equal("Failed to execute command; the command may go on in the box: box.exec:stream and "
      .. "box.exec:session are for commands that take so long", told(500, 300000))
    assert.are.equal("Failed to execute command", told(500, 1000))
    assert.are.equal("Failed to execute command", told(404, 300000))
  end)
end)
