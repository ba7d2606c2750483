-- Sandboxes below the server: starting and ending them, commands, files.
local async = require "lbox.async"
local bubblewrap = require "lbox.server.bubblewrap"
local data = require "lbox.server.data"
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"
local sandbox = require "lbox.server.sandbox"
local support = require "spec.support.local"

local is_root = posix.getuid() == 0
local uid = is_root and 524288 + 4000 or nil
local ENV = { "PATH=" .. sandbox.PATH, "HOME=/home/boxuser" }

local function open_fds()
  return #posix.listdir("/proc/self/fd")
end

local function raised(kind, fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err, kind), tostring(err))
  return err
end

describe("a sandbox", function()
  local dir, place, sb, count = nil, nil, nil, 0

  local function new_box()
    count = count + 1
    local home = ("%s/boxes/spec-box-%d"):format(dir, count)
    assert(posix.mkdir(home, 0x1c9))
    sandbox.create_root(home .. "/root", uid)
    return { id = "spec-box-" .. count, root = home .. "/root", uid = uid, etc = place.etc, bin = place.bin }
  end

  local function end_of(box)
    local op = async.op()
    if box.ended then
      return
    end
    table.insert(box.on_exit, function() op:resolve() end)
    box:close()
    async.timeout(5000, async.wait, op)
  end

  -- What a command on the host starts with to run as the user of the boxes.
  local AS_BOX = uid and ("setpriv --reuid %d --regid %d --clear-groups "):format(uid, uid) or ""

  local function spawn(...)
    return sb:spawn { argv = { ... }, cwd = "/workspace/home", env = ENV }
  end

  local function sh(script, box)
    local proc = (box or sb):spawn {
      argv = { "sh", "-c", script }, cwd = "/workspace/home", env = ENV, merge = true,
    }
    local text = {}
    for _, bytes in proc.read, proc do
      text[#text + 1] = bytes
    end
    return table.concat(text), proc.result
  end

  --- Number of processes in the box whose command line matches.
  local function running(pattern)
    return tonumber((sh(("ps ax -o args | grep -c '^%s' || true"):format(pattern))))
  end

  setup(function()
    dir = support.directory()
    place = data.open(dir)
    sb = sandbox.start(new_box())
  end)

  teardown(function()
    end_of(sb)
    support.sh("chmod -R u+rwx " .. dir .. "; rm -rf " .. dir)
  end)

  describe("command", function()
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
      result = sb:spawn({ argv = { "true" }, cwd = "/no/such", env = ENV }):wait()
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
      local proc = sb:spawn { argv = { "wc", "-c" }, cwd = "/", env = ENV, stdin = ("x"):rep(300000) }
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
      local proc = box:spawn { argv = { "python3", "/tmp/bomb.py" }, cwd = "/", env = ENV }
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

    -- Keeps a number of descriptors under way, in sockets that nobody reads from, until it is killed.
    local UNDER_WAY = [[
import array, resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
want, count, kept = int(sys.argv[1]), 0, []
fds = array.array('i', [0] * 250)
try:
    while count < want:
        kept.append(socket.socketpair())
        kept[-1][0].setblocking(False)
        try:
            while count < want:
                kept[-1][0].sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                count += len(fds)
        except BlockingIOError: pass
except OSError: pass
print('these are all', flush=True)
time.sleep(60)
]]

    local function start_under_way(box, want)
      box:write_file("/tmp/under-way.py", UNDER_WAY)
      local proc = box:spawn {
        argv = { "python3", "/tmp/under-way.py", tostring(want) }, cwd = "/", env = ENV,
      }
      assert.are.equal("stdout", (proc:read()))
      return proc
    end

    it("cannot have so many descriptors under way that files are read no more", function()
      local other = sandbox.start(new_box())
      local proc = start_under_way(other, 1000000)
      async.timeout(5000, other.write_file, other, "/tmp/x", "still")
      assert.are.equal("still", async.timeout(5000, other.read_file, other, "/tmp/x", 10))
      assert.are.equal("fine\n", (sh("echo fine", other)))
      proc:kill()
      proc:wait()
      end_of(other)
    end)

    it("has fewer descriptors than lbox-init, and as many as programs expect", function()
      local own = tonumber((support.sh("ulimit -Hn")))
      local soft, hard = sh("ulimit -Sn; ulimit -Hn"):match("^(%d+)\n(%d+)\n$")
      assert.is_true(tonumber(hard) <= own // 2)
      assert.are.equal(math.min(1024, tonumber(hard)), tonumber(soft))
    end)

    it("that makes lbox-init run short of descriptors gets its errors, nobody hangs, and it passes", function()
      local box = new_box()
      local other = sandbox.start(box)
      local pid = io.open(box.root .. "/../lock"):read("a"):match('"child%-pid": (%d+)')
      local proc = start_under_way(other, 1000)
      local text, status = support.sh(AS_BOX .. "prlimit --nofile=200: --pid " .. pid)
      assert.are.equal(0, status, text)
      for _ = 1, 3 do
        local err = raised("local", async.timeout, 5000, other.read_file, other, "/tmp/under-way.py", 4096)
        assert.are.equal("ETOOMANYREFS", err.errno)
        err = raised("local", async.timeout, 5000, other.write_file, other, "/tmp/x", "x")
        assert.are.equal("ETOOMANYREFS", err.errno)
      end
      assert.is_false(other.closed)
      assert.are.same({ "under-way.py" }, posix.listdir(box.root .. "/tmp"))
      proc:kill()
      proc:wait()
      async.sleep(100) -- until the kernel has closed them all
      other:write_file("/tmp/x", "again")
      assert.are.equal("again", other:read_file("/tmp/x", 10))
      end_of(other)
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

    it("leaves no descriptor behind", function()
      sh("true")
      local before = open_fds()
      for _ = 1, 20 do
        sh("echo x; echo y >&2")
        spawn("no-such-program"):wait()
        local proc = spawn("sleep", "5")
        proc:kill()
        proc:close()
      end
      pcall(sb.read_file, sb, "/no/such", 100)
      raised("local", spawn, "a\0b")
      async.sleep(100)
      assert.are.equal(before, open_fds())
    end)
  end)

  describe("file", function()
    it("is written whole, with the directories it needs, and read back", function()
      local bytes = ("\0\1\255 text\n"):rep(200000)
      sb:write_file("/workspace/home/a/b/c.bin", bytes)
      assert.are.equal(bytes, sb:read_file("/workspace/home/a/b/c.bin", #bytes))
      assert.are.same({ type = "file", size = #bytes }, {
        type = sb:stat("/workspace/home/a/b/c.bin").type, size = sb:stat("/workspace/home/a/b/c.bin").size,
      })
      assert.are.equal("boxuser 644\n", (sh("stat -c '%U %a' a/b/c.bin")))
      assert.are.equal("c.bin\n", (sh("ls -A a/b")))
    end)

    it("keeps its mode when it is replaced, and a link to it stays a link", function()
      sh("echo old > script; chmod 755 script; ln -s script link")
      sb:write_file("/workspace/home/link", "new")
      assert.are.equal("new", sb:read_file("/workspace/home/script", 10))
      assert.are.equal("755\n", (sh("stat -c %a script")))
      assert.are.equal("symlink", sb:stat("/workspace/home/link").type)
      assert.are.equal("file", sb:stat("/workspace/home/link", true).type)
    end)

    it("that a dangling link names is made, and the link stays", function()
      sh("mkdir -p far/to; ln -s ../one far/two; ln -s far/two three; ln -s nowhere/x lost")
      sb:write_file("/workspace/home/three", "x")
      assert.are.equal("symlink", sb:stat("/workspace/home/three").type)
      assert.are.equal("symlink", sb:stat("/workspace/home/far/two").type)
      assert.are.equal("x", sb:read_file("/workspace/home/one", 10))
      assert.are.equal("boxuser 644\n", (sh("stat -c '%U %a' one")))
      -- As for any program, the directory has to be there.
      assert.are.equal("ENOENT", raised("local", sb.write_file, sb, "/workspace/home/lost", "x").errno)
      sh("rm -r far one three lost")
    end)

    it("is written also when hundreds are at once", function()
      local tasks = {}
      for i = 1, 200 do
        tasks[i] = async.spawn(sb.write_file, sb, "/tmp/many/" .. i, ("%d\n"):format(i):rep(100000))
      end
      for _, task in ipairs(tasks) do
        task:await()
      end
      assert.are.equal("200\n", (sh("ls -A /tmp/many | wc -l")))
      assert.are.equal(("200\n"):rep(100000), sb:read_file("/tmp/many/200", 1e6))
      sh("rm -r /tmp/many")
    end)

    it("of a directory with too many is not listed, and nothing waits for it", function()
      local text = sh("python3 -c 'import os\nos.mkdir(\"/tmp/full\")\n"
        .. "for i in range(50000): os.mknod(f\"/tmp/full/{i}\")'")
      assert.are.equal("", text)
      assert.are.equal(50000, #sb:list("/tmp/full"))
      sb:write_file("/tmp/full/one more", "")
      local err = raised("local", sb.list, sb, "/tmp/full")
      assert.are.equal("EFBIG", err.errno)
      assert.matches("entries", err.message)
      sh("rm -r /tmp/full")
    end)

    it("larger than what was asked for is an error, also when it says it is small", function()
      sh("truncate -s 100G big")
      assert.are.equal("EFBIG", raised("local", sb.read_file, sb, "/workspace/home/big", 1000).errno)
      assert.are.equal("EFBIG", raised("local", sb.read_file, sb, "/proc/self/maps", 10).errno)
    end)

    it("lists, makes, renames and removes", function()
      sb:mkdir("/workspace/home/d/e", true)
      assert.are.equal("EEXIST", raised("local", sb.mkdir, sb, "/workspace/home/d").errno)
      sb:write_file("/workspace/home/d/f", "12345")
      sh("ln -s f d/link; mkfifo d/fifo")
      local names = {}
      for i, entry in ipairs(sb:list("/workspace/home/d")) do
        names[i] = ("%s %s"):format(entry.name, entry.type)
      end
      assert.are.same({ "e directory", "f file", "fifo other", "link symlink" }, names)
      sb:rename("/workspace/home/d/f", "/workspace/home/d/g")
      sb:remove("/workspace/home/d/g")
      sb:remove("/workspace/home/d/e")
      assert.are.equal("ENOENT", raised("local", sb.stat, sb, "/workspace/home/d/g").errno)
      assert.are.equal("ENOTEMPTY", raised("local", sb.remove, sb, "/workspace/home/d").errno)
    end)

    it("that is none is refused, and nothing waits for it", function()
      sh("mkfifo fifo; ln -s fifo to-fifo; ln -s loop loop; mkdir -p dir")
      local started = async.now()
      for path, errno in pairs {
        ["/workspace/home/fifo"] = "EINVAL", ["/workspace/home/to-fifo"] = "EINVAL", ["/dev/zero"] = "EINVAL",
        ["/dev/tty"] = "ENXIO", ["/workspace/home/loop"] = "ELOOP", ["/workspace/home/dir"] = "EISDIR",
        ["/proc/1/mem"] = "EACCES", ["/etc/shadow"] = "ENOENT", ["relative"] = "EINVAL", ["/a\0b"] = "EINVAL",
        ["/" .. ("a"):rep(300)] = "ENAMETOOLONG", [("/a"):rep(9000)] = "ENAMETOOLONG",
      } do
        assert.are.equal(errno, raised("local", sb.read_file, sb, path, 1000).errno, path:sub(1, 40))
      end
      for path, errno in pairs {
        ["/workspace/home/fifo"] = "EINVAL", ["/workspace/home/dir"] = "EISDIR", ["/usr/x"] = "EROFS",
        ["/workspace/home/fifo/x"] = "ENOTDIR", ["/workspace/home/loop/x"] = "ELOOP", ["/proc/x"] = "ENOENT",
        ["/workspace/home/"] = "EISDIR", ["/etc/passwd"] = "EROFS",
      } do
        assert.are.equal(errno, raised("local", sb.write_file, sb, path, "x").errno, path)
      end
      assert.is_true(async.now() - started < 5000)
    end)

    it("under a lease does not hold anybody up", function()
      local proc = spawn("python3", "-c", [[
import fcntl, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
f = open('/tmp/leased', 'w'); fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('ready', flush=True); time.sleep(30)]])
      proc:read()
      local started = async.now()
      assert.are.equal("EAGAIN", raised("local", sb.read_file, sb, "/tmp/leased", 100).errno)
      assert.is_true(async.now() - started < 1000)
      proc:kill()
      proc:wait()
    end)

    it("that was being written when the box ended leaves nothing", function()
      local box = new_box()
      local other = sandbox.start(box)
      local link = require "lbox.server.init_link"
      local code, fd = other.link:ask(link.CREATE, string.pack("=s4", "/workspace/home/half"))
      assert.are.equal(0, code)
      posix.close(fd)
      assert.matches("%.lbox%-write%-", (sh("ls -A", other)))
      end_of(other)
      assert.are.same({}, posix.listdir(box.root .. "/workspace/home"))
    end)
  end)

  describe("end", function()
    it("ends every process, tells who waits, and takes its commands along", function()
      local other = sandbox.start(new_box())
      local proc = other:spawn { argv = { "sleep", "71" }, cwd = "/", env = ENV }
      local told = 0
      table.insert(other.on_exit, function() told = told + 1 end)
      assert.is_true(other:has_processes())
      async.spawn(function()
        async.sleep(20)
        end_of(other)
      end)
      local result = async.timeout(5000, proc.wait, proc)
      assert.are.equal(137, result.exit_code)
      assert.is_true(result.stopped)
      repeat
        async.sleep(5)
      until other.ended
      assert.are.equal(1, told)
      assert.are.equal("", (support.sh("pgrep -f 'sleep [7]1' || true")))
      assert.is_true(raised("local", other.read_file, other, "/tmp/x", 1).code == "sandbox_ended")
    end)

    it("by a kill of pid 1 from outside is noticed", function()
      local box = new_box()
      local other = sandbox.start(box)
      local proc = other:spawn { argv = { "sleep", "72" }, cwd = "/", env = ENV }
      local pid = io.open(box.root .. "/../lock"):read("a"):match('"child%-pid": (%d+)')
      posix.kill(math.tointeger(tonumber(pid)), "KILL")
      assert.is_true(async.timeout(5000, proc.wait, proc).exit_code == 137)
      other:run()
      assert.is_true(other.closed)
    end)

    it("leaves no descriptor and no child behind, also when the start was cancelled", function()
      end_of(sandbox.start(new_box()))
      async.sleep(50)
      local before = open_fds()
      for i = 1, 8 do
        local box = new_box()
        local task = async.spawn(function() end_of(sandbox.start(box)) end)
        async.sleep(i)
        task:cancel()
        pcall(task.await, task)
        end_of(sandbox.start(box)) -- waits for the lock, so for the end of the other
      end
      async.sleep(50)
      assert.are.equal(before, open_fds())
      assert.are.equal("1\n", (support.sh("pgrep -c -P " .. posix.getpid() .. " bwrap")))
    end)

    it("comes before the next start: two sandboxes of one box never run at once", function()
      local box = new_box()
      local first = sandbox.start(box)
      local second
      local task = async.spawn(function() second = sandbox.start(box) end)
      async.sleep(50)
      assert.is_nil(second)
      first:close()
      async.timeout(5000, task.await, task)
      assert.is_true(first.ended)
      end_of(second)
    end)
  end)

  describe("root", function()
    it("is put in order before a start, whatever the box made of it", function()
      local box = new_box()
      local outside = dir .. "/outside"
      support.sh(("mkdir %s && chmod 777 %s"):format(outside, outside))
      support.sh(([[cd %s && rmdir run dev proc etc usr && ln -s /oldroot%s run && ln -s ../outside dev &&
        touch proc && mkfifo etc && ln -s / usr && rm bin && mkdir -p bin/x && chmod 0 .]]):format(
        box.root, outside))
      local other = sandbox.start(box)
      assert.are.equal("lbox\n", (sh("ls /run", other)))
      assert.are.equal("usr/bin\n", (sh("readlink /bin", other)))
      end_of(other)
      assert.are.same({}, posix.listdir(outside))
      local kept
      for _, name in ipairs(posix.listdir(box.root)) do
        kept = kept or name:match("^bin%.moved%-%x+$")
      end
      assert.is_string(kept)
    end)

    it("takes no name with a slash, and no link in place of itself", function()
      local box = new_box()
      for _, name in ipairs { "a/b", "..", ".", "" } do
        local ok, _, errno = posix.mount_points(box.root, { name }, {})
        assert.is_nil(ok)
        assert.are.equal("EINVAL", errno)
      end
      assert(posix.symlink("/", box.root .. "-link"))
      local ok, _, errno = posix.mount_points(box.root .. "-link", { "x" }, {})
      assert.is_nil(ok)
      assert.are.equal("ENOTDIR", errno)
    end)

    it("is emptied with few descriptors also of a deep tree that nobody may write to", function()
      local box = new_box()
      local other = sandbox.start(box)
      local text = sh([[python3 -c '
import os
os.chdir("/tmp")
for i in range(3000):
    os.mkdir("deep", 0o755); os.chdir("deep")
    if i % 100 == 0: open("file", "w")
for i in range(3000):
    os.chmod(".", 0o555); os.chdir("..")
']], other)
      assert.are.equal("", text)
      end_of(other)
      local status
      text, status = support.sh(("%sprlimit --nofile=64 %s/lbox-init empty %s"):format(AS_BOX, box.bin, box.root))
      assert.are.equal(0, status, text)
      assert.are.same({}, posix.listdir(box.root))
    end)

    it("is emptied however deep, closed or full of links it is", function()
      local box = new_box()
      local outside = dir .. "/precious"
      support.sh(("mkdir %s && echo keep > %s/file && chmod 777 %s"):format(outside, outside, outside))
      local other = sandbox.start(box)
      local _, result = sh(([[
python3 -c '
import os
os.chdir("/tmp")
for i in range(3000):
    os.mkdir("deep"); os.chdir("deep")
'
ln -s %s link; ln -s / slash; mkdir closed; touch closed/x; chmod 0 closed; mkfifo fifo
i=0; while [ $i -lt 300 ]; do : > many-$i; i=$((i + 1)); done]]):format(outside), other)
      assert.are.equal(0, result.exit_code)
      end_of(other)
      sandbox.empty_root(box.root, uid, box.bin)
      assert.are.same({}, posix.listdir(box.root))
      assert.are.same({ "file" }, posix.listdir(outside))
    end)
  end)
end)

describe("a lbox-init that lies", function()
  local dir, place

  --- Starts a box whose lbox-init is a Python program: `answer` handles one request.
  local function start(body)
    local bin = dir .. "/bad-bin"
    support.sh("mkdir -p " .. bin)
    local file = assert(io.open(bin .. "/lbox-init", "w"))
    file:write([[#!/usr/bin/python3
import array, os, socket, struct, sys, time
s = socket.socket(fileno=3)
def say(id, code=0, fields=b"", fds=()):
    s.sendmsg([struct.pack("=Ii", id, code) + fields],
              [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
def hear():
    bytes, *_ = s.recvmsg(65536, 4096)
    if not bytes:
        sys.exit(0)
    return struct.unpack("=II", bytes[:8])
]] .. body)
    file:close()
    support.sh("chmod 755 " .. bin .. " " .. bin .. "/lbox-init")
    support.sh("mkdir -p " .. dir .. "/boxes/bad && chmod 711 " .. dir .. "/boxes/bad")
    if not posix.lstat(dir .. "/boxes/bad/root") then
      sandbox.create_root(dir .. "/boxes/bad/root", uid)
    end
    return sandbox.start { id = "bad", root = dir .. "/boxes/bad/root", uid = uid, etc = place.etc, bin = bin }
  end

  setup(function()
    dir = support.directory()
    place = data.open(dir)
  end)

  teardown(function()
    support.sh("rm -rf " .. dir)
  end)

  local function ended(sb)
    async.timeout(5000, sb.run, sb)
    assert.is_true(sb.closed)
  end

  it("and passes something that is no file is not read", function()
    local sb = start([[
say(0)
while True:
    op, id = hear()
    r, w = os.pipe()
    say(id, 0, struct.pack("=I", 0) if op == 5 else b"", [r])
]])
    assert.are.equal("EINVAL", raised("local", sb.read_file, sb, "/x", 10).errno)
    raised("local", sb.list, sb, "/x")
    assert.are.equal("EINVAL", raised("local", sb.write_file, sb, "/x", "y").errno)
    sb:close()
    ended(sb)
  end)

  it("and lists nonsense is not believed", function()
    local sb = start([[
say(0)
while True:
    op, id = hear()
    fd = os.memfd_create("x")
    os.write(fd, b"\0" * 20 + b"\xff\xff\xff\xff")
    os.lseek(fd, 0, 0)
    say(id, 0, b"", [fd])
]])
    assert.matches("no list", raised("local", sb.list, sb, "/x").message)
    sb:close()
    ended(sb)
  end)

  it("and lists more than there may be is not believed", function()
    local sb = start([[
say(0)
while True:
    op, id = hear()
    fd = os.memfd_create("x")
    os.write(fd, (b"\0" * 17 + struct.pack("=I", 0)) * 50001)
    os.lseek(fd, 0, 0)
    say(id, 0, b"", [fd])
]])
    assert.matches("no list", raised("local", sb.list, sb, "/x").message)
    sb:close()
    ended(sb)
  end)

  for what, body in pairs {
    ["answers what nobody asked"] = "say(0); hear(); say(4711)",
    ["says twice that it is up"] = "say(0); hear(); say(0)",
    ["answers too little"] = "say(0); hear(); s.send(b'abc')",
    ["answers too much"] = "say(0); op, id = hear(); say(id, 0, b'x' * 10000)",
    ["passes too many files"] = "say(0); op, id = hear(); f = os.open('/etc/passwd', 0); "
      .. "say(id, 0, b'', [f, f])",
    ["passes very many files"] = "say(0); op, id = hear(); f = os.open('/etc/passwd', 0); "
      .. "say(id, 0, b'', [f] * 200)",
    ["passes a file with an error"] = "say(0); op, id = hear(); say(id, 2, b'', [0])",
    ["passes no file"] = "say(0); op, id = hear(); say(id)",
    ["floods"] = "say(0); hear()\nwhile True: say(99)",
    ["goes away"] = "say(0); hear(); sys.exit()",
  } do
    it("and " .. what .. " is ended", function()
      start("say(0)\nwhile True: hear()"):close()
      local sb = start(body .. "\nwhile True: hear()\n")
      local before = open_fds()
      raised("local", sb.read_file, sb, "/x", 10)
      ended(sb)
      async.sleep(20)
      assert.is_true(open_fds() <= before)
    end)
  end

  it("and never answers does not hold up who gives up waiting", function()
    local sb = start("say(0)\nwhile True: hear()\n")
    local err = raised("timeout", async.timeout, 50, function() sb:read_file("/x", 10) end)
    assert.is_truthy(err)
    sb:close()
    ended(sb)
  end)

  it("and ends at once is reported with what it said", function()
    local err = raised("local", start, "sys.stderr.write('no thanks\\n')\n")
    assert.matches("no thanks", err.message)
  end)

  it("and ignores the end of the link is killed", function()
    local sb = start("say(0); s.close(); time.sleep(60)\n")
    ended(sb)
  end)
end)

describe("the probe", function()
  local dir

  setup(function()
    dir = support.directory()
  end)

  teardown(function()
    support.sh("rm -rf " .. dir)
  end)

  --- Runs doctor with a PATH whose only bwrap is this script (nil: none).
  local function doctor(script, prefix)
    support.sh("rm -rf " .. dir .. "/path && mkdir " .. dir .. "/path")
    if script then
      local file = assert(io.open(dir .. "/path/bwrap", "w"))
      file:write("#!/bin/sh\n", script)
      file:close()
      support.sh("chmod 755 " .. dir .. "/path/bwrap")
    end
    local program = posix.exe_path()
    return support.sh(("%s env PATH=%s/path LBOX_DATA=%s %s doctor"):format(prefix or "", dir, dir, program))
  end

  it("finds that sandboxes work here", function()
    local found = sandbox.probe()
    assert.are.same({}, found.problems)
    assert.is_true(found.ok)
    assert.matches("^%d+%.%d+", found.bwrap)
  end)

  it("names a missing bubblewrap and the package", function()
    local text, status = doctor(nil)
    assert.are.equal(1, status)
    assert.matches("bwrap is not on PATH", text)
    assert.matches("fix: apt%-get install bubblewrap", text)
  end)

  it("names a bubblewrap that is too old", function()
    local text, status = doctor("echo bubblewrap 0.3.3\n")
    assert.are.equal(1, status)
    assert.matches("0%.3%.3 is too old", text)
  end)

  it("names forbidden namespaces when bubblewrap complains of them", function()
    local text, status = doctor([[
[ "$1" = --version ] && echo bubblewrap 0.8.0 && exit
echo 'bwrap: No permissions to create new namespace, likely because the kernel does not allow non-privileged '\
'user namespaces. See <https://deb.li/bubblewrap> or <file:///usr/share/doc/bubblewrap/README.Debian.gz>.' >&2
exit 1
]])
    assert.are.equal(1, status)
    assert.matches("forbids user namespaces", text)
    assert.matches("fix: %S+", text)
  end)

  it("names the kernel setting that forbids them", function()
    local function with(settings)
      return function(name) return settings[name] end
    end
    local complaint = "bwrap: setting up uid map: Permission denied\n"
    local cause, fix = bubblewrap.explain(complaint, with { ["kernel/unprivileged_userns_clone"] = "0" })
    assert.matches("unprivileged_userns_clone is 0", cause)
    assert.matches("sysctl %-w kernel.unprivileged_userns_clone=1", fix)
    cause, fix = bubblewrap.explain(complaint, with {
      ["kernel/apparmor_restrict_unprivileged_userns"] = "1", ["user/max_user_namespaces"] = "1000",
    })
    assert.matches("AppArmor", cause)
    assert.matches("profile", fix)
    cause, fix = bubblewrap.explain("bwrap: Creating new namespace failed: No space left on device\n",
      with { ["user/max_user_namespaces"] = "0" })
    assert.matches("max_user_namespaces is 0", cause)
    assert.matches("sysctl %-w user.max_user_namespaces=%d+", fix)
    cause = bubblewrap.explain("bwrap: Can't find source path /root/x: Permission denied\n")
    assert.matches("cannot reach /root/x", cause)
    cause = bubblewrap.explain("something new\n")
    assert.are.equal("something new", cause)
  end)

  it("names max_user_namespaces = 0 where the kernel really says so", function()
    -- In a user namespace of its own the setting is ours to change.
    local text, status = support.sh(([[unshare --user --map-user=1000 --keep-caps sh -c '
      echo 0 > /proc/sys/user/max_user_namespaces || exit 77
      exec setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all env LBOX_DATA=%s %s doctor']])
      :format(dir, posix.exe_path()))
    assert.are.equal(1, status, text)
    assert.matches("max_user_namespaces is 0", text)
    assert.matches("fix: sudo sysctl %-w user.max_user_namespaces=15000", text)
  end)
end)
