-- Exec sessions of local boxes.
local async = require "lbox.async"
local core = require "lbox.core"
local json = require "lbox.json"
local lbox = require "lbox"
local sockets = require "lbox.server.socket"
local posix = require "lbox.server.posix"
local support = require "spec.support.local"

describe("a session in a local box", function()
  local server, box

  setup(function()
    -- Its memory is measured: a sanitizer, if there is one, is to keep little of what is freed.
    server = support.start { prefix = "env ASAN_OPTIONS=quarantine_size_mb=1" }
    box = lbox.Box.create(server:client())
  end)

  teardown(function()
    box:delete()
    server:stop()
  end)

  --- Runs a session to its end: its stdout, its stderr, its exit code.
  local function run(opts, talk)
    local out = { stdout = "", stderr = "" }
    opts.on_stdout = function(bytes) out.stdout = out.stdout .. bytes end
    opts.on_stderr = function(bytes) out.stderr = out.stderr .. bytes end
    local session = box.exec:session(opts)
    local reading = async.spawn(session.wait, session)
    if talk then
      talk(session, out)
    end
    local code = reading:await()
    return out.stdout, out.stderr, code
  end

  local function sh(command)
    return box.exec:command(command).stdout
  end

  --- Waits for something that is about to be.
  local function eventually(what, fn)
    for _ = 1, 150 do
      if fn() then
        return
      end
      async.sleep(20)
    end
    error(what .. ": not so after three seconds", 2)
  end

  it("has its output, its errors and its exit code apart", function()
    assert.are.same({ "out\n", "err\n", 42 }, { run { cmd = "echo out; echo err >&2; exit 42" } })
    local _, _, code = run { cmd = "kill -9 $$" }
    assert.are.equal(137, code)
  end)

  it("runs argv as it is, where it is told, with variables of its own", function()
    sh("mkdir -p sub")
    local out = run { argv = { "printf", "%s\n", "$HOME", "a b" } }
    assert.are.equal("$HOME\na b\n", out)
    assert.are.equal("/workspace/home/sub\n", (run { cmd = "pwd", cwd = "sub" }))
    out = run { cmd = "echo $A $LD_PRELOAD; echo $PATH", env = { A = "1 2", LD_PRELOAD = "x", PATH = "/nowhere" } }
    assert.matches("^1 2\n.*/usr/bin", out)
    assert.are.equal("\n", sh("echo $A"))
  end)

  it("takes input, as much as there is, and its end", function()
    local out, _, code = run({ argv = { "sort" } }, function(session)
      session:write("b\nc\n")
      session:write("a\n")
      session:end_stdin()
    end)
    assert.are.same({ "a\nb\nc\n", 0 }, { out, code })
    local text = ("0123456789abcdef"):rep(500000)
    out = run({ cmd = "sleep 0.5; sha256sum" }, function(session)
      session:write(text)
      session:end_stdin()
    end)
    assert.are.equal(support.sh("yes 0123456789abcdef 2>/dev/null | tr -d '\\n' 2>/dev/null | head -c 8000000 "
      .. "| sha256sum"), out)
  end)

  it("gives all of its output, in the order it came", function()
    local out, _, code = run { cmd = "seq 1 300000" }
    assert.are.equal(0, code)
    assert.are.equal(#sh("seq 1 300000"), #out)
    assert.matches("\n299999\n300000\n$", out)
  end)

  describe("with a terminal", function()
    it("has one of the size it asked for, from the beginning and after a change", function()
      local out, _, code = run({ cmd = "stty size; tty; read x; stty size", tty = true, rows = 33, cols = 101 },
        function(session, got)
          eventually("it waits", function() return got.stdout:find("pts") end)
          session:resize(44, 202)
          session:write("\n")
        end)
      assert.matches("^33 101\r\n/dev/pts/%d+\r\n.*44 202\r\n$", out)
      assert.are.equal(0, code)
      assert.are.equal("24 80\r\nxterm-256color\r\n", (run { cmd = "stty size; echo $TERM", tty = true }))
    end)

    it("loses nothing of what was written last", function()
      for _ = 1, 20 do
        local out = run { argv = { "sh", "-c", "seq 1 2000" }, tty = true }
        assert.matches("\r\n2000\r\n$", out)
      end
    end)

    it("is interrupted by its keys, and ends with them", function()
      local out, _, code = run({ cmd = "trap 'echo got it; exit 7' INT; echo ready; while :; do sleep 0.1; done",
        tty = true }, function(session, got)
          eventually("it is ready", function() return got.stdout:find("ready") end)
          session:write("\3")
        end)
      assert.matches("got it", out)
      assert.are.equal(7, code)
      assert.are.same({ 0 }, { select(3, run({ argv = { "cat" }, tty = true }, function(session)
        session:end_stdin()
      end)) })
    end)

    it("has job control", function()
      local out = run({ argv = { "bash", "--norc", "-i" }, tty = true, env = { PS1 = "> " } }, function(session, got)
        session:write("sleep 100\n")
        eventually("it runs", function() return sh("pgrep -x sleep") ~= "" end)
        session:write("\26") -- Ctrl-Z
        eventually("it is stopped", function() return got.stdout:find("Stopped") end)
        session:write("kill %1; exit\n")
        async.sleep(100)
        session:write("exit\n")
      end)
      assert.not_matches("no job control", out)
    end)

    it("has one whatever programs of the box have put into its /dev", function()
      sh("mv /dev/ptmx /dev/kept; mkfifo /dev/ptmx")
      local out = run { cmd = "tty", tty = true }
      sh("mv /dev/kept /dev/ptmx")
      assert.matches("^/dev/pts/%d+\r\n$", out)
    end)

    it("is hung up with its end: what is in the background of it goes", function()
      run { cmd = "sleep 31 & sleep 0.1", tty = true }
      eventually("it is gone", function() return sh("pgrep -fx 'sleep 31'") == "" end)
    end)
  end)

  it("is signalled with everything it started", function()
    for name, code in pairs { TERM = 143, HUP = 129, KILL = 137, USR1 = 138 } do
      local _, _, got = run({ cmd = "sleep 32 & (setsid sleep 32 &) ; echo $!; wait" }, function(session, out)
        eventually("it runs", function() return out.stdout ~= "" end)
        session:kill(name)
      end)
      assert.are.equal(code, got, name)
      eventually("all are gone", function() return sh("pgrep -fx 'sleep 32'") == "" end)
    end
    local out, _, code = run({ cmd = "trap 'echo hup' HUP; echo ready; for i in 1 2 3 4 5 6; do sleep 0.1; done" },
      function(session, got)
        eventually("it is ready", function() return got.stdout ~= "" end)
        session:kill("HUP")
      end)
    assert.matches("hup", out)
    assert.are.equal(0, code)
  end)

  it("is terminated, if it must be by force, and the first word counts", function()
    local began = async.now()
    local _, _, code = run({ cmd = "trap '' TERM; echo ready; while :; do sleep 0.1; done" }, function(session, out)
      eventually("it is ready", function() return out.stdout ~= "" end)
      session:terminate(300)
      session:terminate(60000)
    end)
    assert.are.equal(137, code)
    assert.is_true(async.now() - began < 3000)
  end)

  it("ends with its connection, and so does all it started", function()
    local session = box.exec:session {
      cmd = "trap '' HUP TERM; (setsid sleep 33 &); nohup sleep 33 & echo $$; sleep 33" }
    eventually("it runs", function() return sh("pgrep -fxc 'sleep 33'") == "3\n" end)
    session:close()
    local began = async.now()
    eventually("all are gone", function() return sh("pgrep -fx 'sleep 33'") == "" end)
    assert.is_true(async.now() - began < 1500)
  end)

  it("says what cannot be run", function()
    local function refused(opts)
      local ok, err = pcall(box.exec.session, box.exec, opts)
      assert.is_false(ok)
      return err.message
    end
    assert.matches("nope: command not found", refused { argv = { "nope" } })
    assert.matches('folder "/nope": no such directory', refused { cmd = "true", cwd = "/nope" })
  end)

  it("goes on beside others, wakes a paused box, and is a run", function()
    box:pause()
    local results = lbox.map({ 1, 2, 3, 4 }, function(n)
      return (run { cmd = "echo start > begun" .. n .. "; for i in 1 2 3 4; do while ! test -e begun$i; do sleep 0.05; "
        .. "done; done; echo " .. n })
    end)
    assert.are.equal("1\n2\n3\n4\n", table.concat(results))
    local session = box.exec:session { argv = { "sleep", "34" } }
    assert.are.equal("running", box:get_status().status)
    local listed = box:list_runs()[1]
    assert.are.same({ session.exec_id, "running", "sleep 34" }, { listed.id, listed.status, listed.prompt })
    box:pause()
    local ok, err = pcall(session.wait, session)
    assert.is_false(ok)
    assert.matches("the box was stopped", err.message)
    eventually("it has failed", function() return box:list_runs()[1].status == "failed" end)
  end)

  it("is cancelled as a run", function()
    local session = box.exec:session { argv = { "sleep", "35" } }
    lbox.Box.request("POST", ("/v2/box/%s/runs/%s/cancel"):format(box.id, session.exec_id), server:client())
    assert.are.equal(137, session:wait())
    assert.are.equal("cancelled", box:list_runs()[1].status)
  end)

  -- ------------------------------------------------------------------------- clients as they should not be

  local UPGRADE = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    .. "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

  --- A client that writes what it wants: after the handshake, if the answer is one.
  local function raw(head, method, body)
    local host, port = server.url:match("//(.-):(%d+)$")
    local socket = sockets.new(assert(posix.connect { host = host, port = tonumber(port) }))
    socket:write(("%s /v2/box/%s/exec-session HTTP/1.1\r\nHost: %s:%s\r\nX-Box-Api-Key: %s\r\n%s\r\n%s"):format(
      method or "GET", box.id, host, port, server.key, head or UPGRADE, body or ""))
    return socket, socket:take_until("\r\n\r\n", 4096)
  end

  local function frame(op, text, fin)
    local length = #text < 126 and string.char(0x80 + #text) or #text < 65536 and string.pack(">BI2", 0xfe, #text)
      or string.pack(">BI8", 0xff, #text)
    return string.char((fin == false and 0 or 0x80) + op) .. length .. "\0\0\0\0" .. text -- masked with zeros
  end

  --- Everything that comes up to the end, as text of frames run together.
  local function rest(socket, ms)
    local all = ""
    pcall(async.timeout, ms or 8000, function()
      for bytes in socket:pieces() do
        all = all .. bytes
        if all:find("\x88", 1, true) then
          break
        end
      end
    end)
    socket:close()
    return all
  end

  it("is begun by a handshake", function()
    local socket, head = raw()
    assert.matches("^HTTP/1.1 101 ", head)
    assert.matches("Sec%-WebSocket%-Accept: s3pPLMBiTxaQ9kYGzzhZRbK%+xOo=\r\n", head)
    socket:close()
    socket, head = raw ""
    assert.matches("^HTTP/1.1 426 ", head)
    socket:close()
    socket, head = raw "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n"
    assert.matches("^HTTP/1.1 400 ", head)
    socket:close()
  end)

  it("is not begun by what is no plain GET", function()
    for more, status in pairs { ["Content-Length: 3\r\n"] = "400", ["Transfer-Encoding: chunked\r\n"] = "400" } do
      local socket, head = raw(UPGRADE .. more, "GET", more:find("chunked") and "0\r\n\r\n" or "abc")
      assert.matches("^HTTP/1.1 " .. status .. " ", head)
      socket:close()
    end
    local socket, head = raw(UPGRADE, "HEAD")
    assert.matches("^HTTP/1.1 405 ", head)
    socket:close()
  end)

  it("takes frames cut anywhere, passes over what it does not know, and answers pings", function()
    local socket = raw()
    local start = json.encode { type = "start", argv = { "cat" }, cwd = "/tmp" }
    local bytes = frame(9, "hello") .. frame(1, start:sub(1, 10), false) .. frame(9, "") .. frame(0, start:sub(11))
      .. frame(1, "{nonsense") .. frame(1, '{"type":"news"}') .. frame(1, "[1]") .. frame(1, '{"type":7}')
      .. frame(1, '{"type":"stdin"}') .. frame(1, '{"type":"stdin","data":"%%"}')
      .. frame(1, '{"type":"signal","signal":9}') .. frame(1, '{"type":"resize","rows":1}')
      .. frame(1, json.encode { type = "stdin", data = core.base64_encode("hi") })
      .. frame(1, '{"type":"stdin_close"}')
    for i = 1, #bytes do
      socket:write(bytes:sub(i, i))
    end
    local all = rest(socket)
    assert.matches("\x8a\5hello", all)
    assert.matches('"type":"started"', all)
    assert.matches('"data":"aGk=","type":"stdout"', all)
    assert.matches('"code":0,"type":"exit"', all)
  end)

  it("says what is wrong with the first message", function()
    for message, says in pairs { ['{"type":"stdin"}'] = "first message must be of type start",
      ['{"type":"start"}'] = "needs cmd or argv", ['{"type":"start","argv":[7]}'] = "argv",
      ['{"type":"start","cmd":"true","env":["x"]}'] = "is not NAME=VALUE" } do
      local socket = raw()
      socket:write(frame(1, message))
      assert.matches(says, rest(socket))
    end
  end)

  it("is not begun for ever, and breaks off when the rules are broken", function()
    local socket = raw()
    pcall(socket.write, socket, frame(1, ("x"):rep(2000000)))
    assert.matches("\x88", rest(socket))
    socket = raw()
    socket:write("\xff\xff\xff\xff")
    assert.matches("\x88", rest(socket))
  end)

  it("is not begun by who says nothing", function()
    local socket = raw()
    local began = async.now()
    assert.matches("no message of type start within 10 s", rest(socket, 15000))
    assert.is_true(async.now() - began > 9000)
  end)

  it("takes a signal of who does not read", function()
    local socket = raw()
    socket:write(frame(1, '{"type":"start","cmd":"sleep 1001 & yes"}'))
    eventually("it runs", function() return sh("pgrep -fx 'sleep 1001'") ~= "" end)
    async.sleep(1000) -- until nothing more fits into the connection
    socket:write(frame(1, '{"type":"signal","signal":"KILL"}'))
    eventually("it is gone", function() return sh("pgrep -fx 'sleep 1001'; pgrep -x yes") == "" end)
    assert.matches('"code":137,"type":"exit"', rest(socket))
  end)

  it("ends with a client that hangs up while its input is stuck", function()
    local socket = raw()
    socket:write(frame(1, '{"type":"start","argv":["sleep","1002"]}'))
    eventually("it runs", function() return sh("pgrep -fx 'sleep 1002'") ~= "" end)
    local piece = frame(1, json.encode { type = "stdin", data = core.base64_encode(("x"):rep(50000)) })
    local ok, err = pcall(async.timeout, 1000, function()
      while true do
        socket:write(piece)
      end
    end)
    assert.is_false(ok)
    assert.are.equal("timeout", err.kind)
    socket:close()
    local began = async.now()
    eventually("it is gone", function() return sh("pgrep -fx 'sleep 1002'") == "" end)
    assert.is_true(async.now() - began < 1500)
  end)

  it("holds up who does not read, and who writes what is not read", function()
    local socket = raw()
    local before = tonumber(support.sh("grep VmRSS /proc/" .. server.pid .. "/status"):match("%d+"))
    socket:write(frame(1, '{"type":"start","cmd":"yes & sleep 1000"}'))
    local piece = frame(1, json.encode { type = "stdin", data = core.base64_encode(("x"):rep(50000)) })
    local written = 0
    pcall(async.timeout, 1500, function()
      while true do
        socket:write(piece)
        written = written + 50000
      end
    end)
    assert.is_true(written < 20e6)
    assert.is_true(tonumber(support.sh("grep VmRSS /proc/" .. server.pid .. "/status"):match("%d+")) - before < 30000)
    assert.are.equal("running", box:get_status().status)
    socket:close()
    eventually("it is gone", function() return sh("pgrep -fx 'sleep 1000'; pgrep -x yes") == "" end)
  end)

  it("holds up who writes many small pieces, or ends the input of a terminal without end", function()
    for _, message in ipairs { { type = "stdin", data = "YQ==" }, { type = "stdin_close" } } do
      local socket = raw()
      local before = tonumber(support.sh("grep VmRSS /proc/" .. server.pid .. "/status"):match("%d+"))
      socket:write(frame(1, '{"type":"start","cmd":"stty raw; sleep 1003","tty":true}'))
      eventually("it runs", function() return sh("pgrep -fx 'sleep 1003'") ~= "" end)
      local pieces = frame(1, json.encode(message)):rep(1000)
      local held_up, err = pcall(async.timeout, 10000, function()
        while true do
          async.timeout(500, socket.write, socket, pieces)
        end
      end)
      assert.is_false(held_up)
      assert.matches("500 ms", err.message)
      assert.is_true(tonumber(support.sh("grep VmRSS /proc/" .. server.pid .. "/status"):match("%d+")) - before < 15000)
      socket:close()
      eventually("it is gone", function() return sh("pgrep -fx 'sleep 1003'") == "" end)
    end
  end)

  it("holds up who sends signals without end, and others are served", function()
    local socket = raw()
    socket:write(frame(1, [[{"type":"start","cmd":"trap '' USR1; while :; do sleep 0.1; done; : 1004"}]]))
    eventually("it runs", function() return sh("pgrep -f '[1]004'") ~= "" end)
    local before = tonumber(support.sh("grep VmRSS /proc/" .. server.pid .. "/status"):match("%d+"))
    local signals = frame(1, '{"type":"signal","signal":"USR1"}'):rep(1000)
    pcall(async.timeout, 2000, function()
      while true do
        socket:write(signals)
      end
    end)
    local began = async.now()
    assert.are.equal("x\n", sh("echo x"))
    assert.is_true(async.now() - began < 1000)
    assert.is_true(tonumber(support.sh("grep VmRSS /proc/" .. server.pid .. "/status"):match("%d+")) - before < 5000)
    socket:close()
    eventually("it is gone", function() return sh("pgrep -f '[1]004'") == "" end)
  end)

  it("is one of so many", function()
    local open = {}
    for i = 1, 64 do
      open[i] = raw()
    end
    local socket, head = raw()
    assert.matches("^HTTP/1.1 429 ", head)
    socket:close()
    for _, each in ipairs(open) do
      each:close()
    end
    eventually("there is room", function() return pcall(run, { cmd = "true" }) end)
  end)
end)

describe("a session in a box of a user's server", function()
  it("has a terminal, and ends with its connection", function()
    local server = support.start_as_user()
    local box = lbox.Box.create(server:client())
    local session = box.exec:session { cmd = "stty size; tty; sleep 37", tty = true, rows = 5, cols = 6 }
    local said = ""
    for _, bytes in session:output() do
      said = said .. bytes
      if said:find("pts") then
        break
      end
    end
    assert.matches("^5 6\r\n/dev/pts/%d+", said)
    session:close()
    local began = async.now()
    repeat
      async.sleep(20)
    until support.sh("pgrep -fx 'sleep 37'") == "" or async.now() - began > 3000
    assert.is_true(async.now() - began < 1500)
    server:stop()
  end)
end)
