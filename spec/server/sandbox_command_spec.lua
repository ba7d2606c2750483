-- Commands in a sandbox, below the server: how they start, what they say,
-- and how they end or are killed, whatever they do against it.
local async = require "lbox.async"
local posix = require "lbox.server.posix"
local sandbox = require "lbox.server.sandbox"
local sandboxes = require "spec.support.sandbox"

local end_of, raised = sandboxes.end_of, sandboxes.raised

describe("a command of a sandbox", function()
  local sb
  local place = sandboxes.place()
  local new_box, running, sh, spawn = place.new_box, place.running, place.sh, place.spawn

  setup(function()
    sb = place.start()
  end)

  teardown(place.remove)

  it("has its output, exit code, CPU time and memory", function()
    local proc = spawn("sh", "-c", "echo out; echo err >&2; exit 7")
    local got = { stdout = "", stderr = "" }
    for name, bytes in proc.read, proc do
      got[name] = got[name] .. bytes
    end
    assert.are.same({ stdout = "out\n", stderr = "err\n" }, got)
    assert.are.equal(7, proc.result.exit_code)
    assert.is_true(proc.result.cpu_ns > 0 and proc.result.cpu_ns < 1e9)
    assert.is_true(proc.result.memory_peak_bytes > 100 * 1024)
    assert.is_true(proc.pid > 1)
  end)

  it("has CPU time and memory of its whole tree", function()
    local result = spawn("python3", "-c", [[
import subprocess, sys
subprocess.run([sys.executable, '-c', 'x = bytearray(80 << 20); sum(i * i for i in range(2000000))'])
]]):wait()
    assert.is_true(result.cpu_ns > 5e7, result.cpu_ns)
    assert.is_true(result.memory_peak_bytes > 80 * 1024 * 1024)
  end)

  it("that dies of a signal has exit code 128 and the signal", function()
    assert.are.equal(143, spawn("sh", "-c", "kill -TERM $$"):wait().exit_code)
  end)

  it("that cannot be started says what is missing", function()
    local result = spawn("no-such-program"):wait()
    assert.are.equal("program", result.not_started)
    assert.are.equal(127, result.exit_code)
    result = sb:spawn({ argv = { "true" }, cwd = "/no/such", env = sandboxes.ENV }):wait()
    assert.are.equal("directory", result.not_started)
    result = spawn("/etc/passwd"):wait()
    assert.are.equal("program", result.not_started)
    assert.are.equal(126, result.exit_code)
  end)

  it("is found on the PATH of its own environment", function()
    sb:write_file("/tmp/here/greet", "#!/bin/sh\necho hi\n")
    sh("chmod +x /tmp/here/greet")
    local proc = sb:spawn { argv = { "greet" }, cwd = "/", env = { "PATH=/tmp/here" } }
    assert.are.same({ "stdout", "hi\n" }, { proc:read() })
    assert.are.equal(0, proc:wait().exit_code)
  end)

  it("gets its standard input", function()
    local proc = sb:spawn { argv = { "wc", "-c" }, cwd = "/", env = sandboxes.ENV, stdin = ("x"):rep(300000) }
    assert.are.same({ "stdout", "300000\n" }, { proc:read() })
    proc:wait()
    assert.are.equal("", (sh("cat")))
  end)

  it("may write more than a pipe holds to a slow reader, and nothing is lost", function()
    local proc = spawn("sh", "-c", "head -c 3000000 /dev/zero; head -c 500000 /dev/zero >&2")
    local sizes = { stdout = 0, stderr = 0 }
    async.sleep(20)
    for name, bytes in proc.read, proc do
      sizes[name] = sizes[name] + #bytes
    end
    assert.are.same({ stdout = 3000000, stderr = 500000 }, sizes)
  end)

  it("with arguments up to the kernel's limit works, with more it fails alone", function()
    local word = ("a"):rep(100000)
    assert.are.equal(0, spawn("true", word, word, word):wait().exit_code)
    local result = spawn("true", ("a"):rep(200000)):wait()
    assert.are.equal("program", result.not_started)
    assert.are.equal(7, result.errno) -- E2BIG
    raised("local", spawn, "true", "a\0b")
  end)

  it("ends with its main process, not with what it left in the background", function()
    local started = async.now()
    local text, result = sh("sleep 31 & echo x")
    assert.are.equal("x\n", text)
    assert.are.equal(0, result.exit_code)
    assert.is_true(async.now() - started < 5000)
    assert.are.equal(1, running("sleep 31"))
  end)

  it("leaves behind what goes on writing, and that lives on", function()
    sh("(while true; do echo line of output >> /tmp/alive; seq 1 3000; sleep 0.01; done) &")
    async.sleep(150)
    local before = #sb:read_file("/tmp/alive", 1e6)
    async.sleep(150)
    assert.is_true(#sb:read_file("/tmp/alive", 1e6) > before)
    sh("pkill -f 'seq 1 3000'; pkill -f alive")
  end)

  it("leaves what goes on writing in the background alive, however many others did", function()
    local other = sandbox.start(new_box())
    for i = 1, 100 do
      sh(("(while echo line; do : > /tmp/alive-%d; sleep 0.2; done) &"):format(i), other)
    end
    sh("rm -f /tmp/alive-*; sleep 2", other)
    assert.are.equal("100\n", (sh("ls /tmp | grep -c alive-", other)))
    end_of(other)
  end)

  it("that floods from the background is not read for ever", function()
    local started = async.now()
    local _, result = sh("yes & sleep 0.1")
    assert.are.equal(0, result.exit_code)
    assert.is_true(async.now() - started < 5000)
    sh("pkill -9 yes")
  end)

  it("is killed with everything it started, also double-forked and in sessions of its own", function()
    local proc = spawn("sh", "-c", "setsid sleep 41 & (setsid sh -c 'sleep 42 & sleep 43' &); sleep 44")
    repeat
      async.sleep(10)
    until running("sleep 4[1-4]") == 4
    proc:kill()
    assert.are.equal(137, proc:wait().exit_code)
    assert.are.equal(0, running("sleep 4[1-4]"))
  end)

  it("can be sent other signals", function()
    -- The shell is not to say that its sleep was hit too.
    local proc = spawn("sh", "-c", "exec 2>/dev/null; trap 'echo got it; exit 5' TERM; echo ready; "
      .. "while true; do sleep 0.01; done")
    assert.are.same({ "stdout", "ready\n" }, { proc:read() })
    proc:kill("TERM")
    assert.are.same({ "stdout", "got it\n" }, { proc:read() })
    assert.are.equal(5, proc:wait().exit_code)
    raised("usage", proc.kill, proc, "NOPE")
  end)

  -- Programs that start processes without end, each in a session of its own: until there are as many
  -- as there may be, or few at a time that are gone before one can look at them. The limit is not the
  -- shell's, as only some shells have one for this.
  local BOMBS = {
    many = [[
while True:
    try:
        if os.fork() == 0: os.setsid()
    except OSError: pass
]],
    fleeting = [[
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if os.fork(): signal.pause()
while True:
    try:
        if os.fork(): os._exit(0)
        os.setsid()
        if os.fork() and os.getpid() % 8: os._exit(0)
    except OSError: pass
]],
  }

  -- Once it has grown.
  local KILL_KEEPER = [[
import time
keeper = os.getppid()
if os.fork() == 0: time.sleep(0.2); os.kill(keeper, 9)
]]

  --- Starts one and gives it time to grow; `first` is Python that it runs before.
  local function start_bomb(kind, box, first)
    local limit = "resource.setrlimit(resource.RLIMIT_NPROC, (300, 300))\n"
    local text = "import os, resource, signal\n" .. limit .. (first or "") .. BOMBS[kind]
    box:write_file("/tmp/bomb.py", text)
    local proc = box:spawn { argv = { "python3", "/tmp/bomb.py" }, cwd = "/", env = sandboxes.ENV }
    async.sleep(300)
    return proc
  end

  for kind in pairs(BOMBS) do
    it("that starts " .. kind .. " processes without end is killed all the same", function()
      local other = spawn("sh", "-c", "while true; do echo tick; sleep 0.01; done")
      local proc = start_bomb(kind, sb)
      assert.is_nil(proc.result)
      proc:kill()
      local result = async.timeout(20000, proc.wait, proc)
      assert.are.equal(137, result.exit_code)
      assert.are.equal(0, running("python3 /tmp/bomb"))
      -- Nobody else was killed, or left stopped.
      assert.are.equal(0, tonumber((sh("ps ax -o stat | grep -c '^T' || true"))))
      local ticks = 0
      for _, bytes in other.read, other do
        ticks = ticks + #bytes
        if ticks > 500 then
          other:kill()
        end
      end
      assert.are.equal(137, other.result.exit_code)
    end)
  end

  it("cannot escape by killing its keeper and starting processes without end", function()
    local proc = start_bomb("many", sb, KILL_KEEPER)
    assert.are.equal(137, async.timeout(20000, proc.wait, proc).exit_code)
    async.timeout(20000, function()
      repeat
        async.sleep(10)
        local ok, left = pcall(running, "python3 /tmp/bomb")
      until ok and left == 0
    end)
  end)

  it("that starts processes without end does not outlive the box", function()
    for kind in pairs(BOMBS) do
      local other = sandbox.start(new_box())
      start_bomb(kind, other)
      end_of(other)
      other = sandbox.start(new_box())
      start_bomb(kind, other):kill() -- it ends in the middle of the killing
      end_of(other)
      other = sandbox.start(new_box())
      start_bomb(kind, other, KILL_KEEPER)
      end_of(other)
    end
  end)

  it("gets each of several signals, also those sent before it runs", function()
    local proc = spawn("sh", "-c", "exec 2>/dev/null; trap 'echo one' USR1; trap 'echo two' USR2; echo ready; "
      .. "while true; do sleep 0.01; done")
    assert.are.same({ "stdout", "ready\n" }, { proc:read() })
    proc:kill("USR1")
    proc:kill("USR2")
    local text = ""
    repeat
      text = text .. select(2, proc:read())
    until text:find("one") and text:find("two")
    proc:kill("TERM")
    proc:kill()
    assert.is_true(proc:wait().exit_code >= 137)
    proc = spawn("sleep", "62")
    proc:kill("TERM")
    assert.are.equal(143, async.timeout(5000, proc.wait, proc).exit_code)
    proc = spawn("sleep", "62")
    proc:kill()
    assert.are.equal(137, async.timeout(5000, proc.wait, proc).exit_code)
  end)

  it("cannot escape by killing its keeper: then all without a keeper end", function()
    local proc = spawn("sh", "-c", "(setsid sleep 51 &); kill -9 $PPID; sleep 52")
    assert.are.equal(137, proc:wait().exit_code)
    repeat
      async.sleep(10)
    until running("sleep 5[12]") == 0
    assert.are.equal("fine\n", (sh("echo fine")))
  end)

  it("cannot escape by stopping its keeper", function()
    local proc = spawn("sh", "-c", "while kill -STOP $PPID; do :; done")
    async.sleep(50)
    proc:kill()
    assert.are.equal(137, async.timeout(10000, proc.wait, proc).exit_code)
    repeat
      async.sleep(10)
    until running("sh -c while kill") == 0
  end)

  it("that stops its keeper is not hung: its end is told, and a kill ends it", function()
    local proc = spawn("sh", "-c", "kill -STOP $PPID; sleep 0.1; exit 3")
    assert.are.equal(3, async.timeout(5000, proc.wait, proc).exit_code)
    proc = spawn("sh", "-c", "kill -TSTP $PPID; kill -STOP $PPID; echo stopped; sleep 60")
    assert.are.same({ "stdout", "stopped\n" }, { proc:read() })
    local started = async.now()
    proc:kill()
    assert.are.equal(137, async.timeout(5000, proc.wait, proc).exit_code)
    assert.is_true(async.now() - started < 1500) -- without force
  end)

  it("is killed when who started it was cancelled meanwhile", function()
    local proc
    repeat
      proc = nil
      local task = async.spawn(function() proc = spawn("sleep", "61") end)
      while task.status == "running" and not next(sb.link.pending) do
        async.sleep(0)
      end
      task:cancel()
      pcall(task.await, task)
      if proc then -- it was started before it could be cancelled
        proc:kill()
        proc:wait()
      end
    until not proc
    repeat
      async.sleep(10)
    until running("sleep 61") == 0
  end)

  it("is killed also when memory was short the moment it was to be told", function()
    local proc = spawn("sleep", "63")
    local send, refused = posix.send, 0
    posix.send = function(...) -- luacheck: ignore 122
      refused = refused + 1
      if refused > 3 then
        return send(...)
      end
      return nil, "no buffer space available", "ENOBUFS"
    end
    finally(function() posix.send = send end) -- luacheck: ignore 122
    assert.are.equal("ENOBUFS", raised("local", sb.read_file, sb, "/tmp/x", 10).errno)
    proc:kill()
    assert.are.equal(137, async.timeout(1500, proc.wait, proc).exit_code)
    assert.are.equal(4, refused)
  end)
end)
