-- What a box must not be able to do, each tried from inside. The attacks run against a server of this
-- user, and when that is root also against a server of an ordinary user.
local lbox = require "lbox"
local support = require "spec.support.local"

local is_root = support.sh("id -u"):match("^0")

local function attacks(name, start)
  describe("a box of " .. name, function()
    local server, box

    setup(function()
      server = start()
      box = lbox.Box.create(server:client())
    end)

    teardown(function()
      box:delete()
      server:stop()
    end)

    local function run(command)
      local result = box.exec:command(command .. " 2>&1", { timeout = 20000 })
      return result.exit_code, result.stdout
    end

    it("sees nothing of the host's files", function()
      assert.are.equal("boxuser\n", select(2, run("whoami")))
      assert.are.equal("boxuser\n", select(2, run("ls /home")))
      assert.are_not.equal(0, (run("cat /etc/shadow")))
      assert.are_not.equal(0, (run("ls /root/.")))
      assert.are_not.equal(0, (run("ls " .. server.dir)))
      assert.are_not.equal(0, (run("ls /sys/.")))
      assert.are.equal("lbox\n", select(2, run("ls /run")))
    end)

    it("sees no process of the host", function()
      local _, text = run("ls -d /proc/[0-9]* | wc -l")
      assert.is_true(tonumber(text) < 12, text)
      assert.not_matches("serve", select(2, run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")))
    end)

    it("cannot write system directories or kernel settings", function()
      for _, path in ipairs { "/usr/x", "/etc/x", "/usr/bin/ls", "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger", "/run/lbox/bin/lbox" } do
        assert.are_not.equal(0, (run("echo x >> " .. path)), path)
      end
    end)

    it("has no capability and cannot get one", function()
      assert.matches("CapEff:%s+0000000000000000", select(2, run("cat /proc/self/status")))
      assert.matches("NoNewPrivs:%s+1", select(2, run("cat /proc/self/status")))
      assert.matches("Seccomp:%s+2", select(2, run("cat /proc/self/status")))
      assert.are_not.equal(0, (run("unshare -U true")))
      assert.are_not.equal(0, (run("unshare -Ur mount -t tmpfs none /tmp")))
      assert.are_not.equal(0, (run("mount -t tmpfs none /tmp")))
    end)

    it("cannot kill or trace pid 1", function()
      run("kill -9 1; kill -TERM 1; kill -STOP 1")
      assert.are.equal("alive\n", select(2, run("echo alive")))
      assert.are_not.equal(0, (run("cat /proc/1/environ")))
      assert.are_not.equal(0, (run("ls /proc/1/fd/")))
    end)

    -- Each by its number, with a process id that only the kernel reads as 1 too.
    local STARVE = [[
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
if os.uname().machine == 'x86_64':
    number = dict(prlimit64=302, setpriority=141, ioprio_set=251, sched_setparam=142,
                  sched_setscheduler=144, sched_setaffinity=203, sched_setattr=314)
else:
    number = dict(prlimit64=261, setpriority=140, ioprio_set=30, sched_setparam=118,
                  sched_setscheduler=119, sched_setaffinity=122, sched_setattr=274)
def attempt(name, *args):
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    if libc.syscall(ctypes.c_long(number[name]), *args) == 0 or ctypes.get_errno() != 1:
        print(name, [getattr(a, 'value', a) for a in args], os.strerror(ctypes.get_errno()))
limit, cpus = struct.pack('QQ', 4, 4), struct.pack('Q', 1)
zero, idle = struct.pack('i', 0), struct.pack('IIQiIQQQ', 48, 5, 0, 19, 0, 0, 0, 0)
for one in 1, 1 | 1 << 32:
    attempt('prlimit64', one, 7, limit, 0)
    for which in 0, 1: attempt('setpriority', which, one, 19)
    for which in 1, 2: attempt('ioprio_set', which, one, 3 << 13)
    attempt('sched_setaffinity', one, 8, cpus)
    attempt('sched_setscheduler', one, 5, zero)
    attempt('sched_setparam', one, zero)
    attempt('sched_setattr', one, idle, 0)
for who in 0, 1000:
    attempt('setpriority', 2 | 1 << 32, who, 19)
    attempt('ioprio_set', 3, who, 3 << 13)
]]

    it("cannot take descriptors, CPU or disk from pid 1", function()
      box.files:write { path = "/tmp/starve.py", content = STARVE }
      local code, text = run("python3 /tmp/starve.py")
      assert.are.equal("", text)
      assert.are.equal(0, code)
    end)

    it("may change its programs' own limits and priorities", function()
      for _, command in ipairs {
        "ulimit -n 100 && ulimit -c 0", "bash -c 'ulimit -Sn 64; ulimit -n'", "prlimit --nofile=100 true",
        "prlimit --pid 1 --nofile", "python3 -c 'import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (64, 64))'",
        "nice -n 5 true", "renice -n 5 $$", "ionice -c 3 true", "taskset -p 1 $$", "chrt -i 0 true",
        "! command -v node || node -e 0",
      } do
        local code, text = run(command)
        assert.are.equal(0, code, command .. ": " .. text)
      end
    end)

    if name == "an ordinary user" or not is_root then
      it("does not end when its programs make the server run short of descriptors", function()
        box.files:write { path = "/tmp/under-way.py", content = [[
import array, os, socket, time
a, b = socket.socketpair()
for i in range(6):
    a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * 100))])
while not os.path.exists('/tmp/enough'): time.sleep(0.02)
os.remove('/tmp/enough')
]] }
        run("nohup python3 /tmp/under-way.py & sleep 0.5")
        local as_server = (server.prefix or ""):gsub(" env .*", "")
        local out, status = support.sh(("%s prlimit --nofile=500: --pid %s"):format(as_server, server.pid))
        assert.are.equal(0, status, out)
        for _ = 1, 3 do
          local ok, err = pcall(run, "true")
          assert.is_false(ok)
          assert.matches("Too many references", tostring(err))
        end
        box.files:write { path = "/tmp/enough", content = "" }
        lbox.sleep(500)
        -- The program that was to see it did, so the box lived on.
        assert.are.equal("gone\n", select(2, run("test -e /tmp/enough || echo gone")))
      end)
    end

    it("has no network but its own loopback", function()
      local port = server.url:match(":(%d+)$")
      assert.are_not.equal(0, (run(("python3 -c \"import socket; socket.create_connection(('127.0.0.1', %s), 3)\"")
        :format(port))))
      local host = support.sh("hostname -I"):match("%d+%.%d+%.%d+%.%d+")
      if host then
        assert.are_not.equal(0, (run(("python3 -c \"import socket; socket.create_connection(('%s', %s), 3)\"")
          :format(host, port))))
      end
      assert.matches("^%s*lo:[^\n]*\n$", select(2, run("tail -n +3 /proc/net/dev")))
    end)

    it("cannot reach the server's socket", function()
      assert.are_not.equal(0, (run(("python3 -c \"import socket; "
        .. "socket.socket(socket.AF_UNIX).connect('%s/data/sock')\""):format(server.dir))))
    end)

    it("leaves no setuid file that works outside", function()
      run("cp /bin/sh /tmp/sh && chmod 4755 /tmp/sh")
      local path = ("%s/data/boxes/%s/root/tmp/sh"):format(server.dir, box.id)
      local uid = support.sh("stat -c %u " .. path):match("%d+")
      assert.are_not.equal("0", uid)
      -- Nobody else gets through to it.
      local out, status = support.sh(
        ("setpriv --reuid 65533 --regid 65533 --clear-groups sh -c '%s -c id'"):format(path))
      assert.are_not.equal(0, status, out)
    end)

    it("cannot stop the server with a FIFO or a device", function()
      run("mkfifo /tmp/fifo")
      for _, path in ipairs { "/tmp/fifo", "/dev/zero", "/proc/kmsg" } do
        local ok, err = pcall(box.files.read, box.files, path)
        assert.is_false(ok, path)
        assert.is_true(lbox.is_error(err, "api"), tostring(err))
      end
      local ok = pcall(box.files.write, box.files, { path = "/tmp/fifo", content = "x" })
      assert.is_false(ok)
      assert.are.equal(1, #lbox.Box.list(server:client()))
    end)

    it("cannot lead the server out by a link", function()
      run("ln -s /etc/shadow /tmp/l; ln -s / /tmp/d; ln -s /proc/1/root /tmp/p")
      for _, path in ipairs { "/tmp/l", "/tmp/d/etc/shadow", "/tmp/p/etc/shadow", "/../../etc/shadow",
        "../../../../etc/shadow" } do
        local ok, text = pcall(box.files.read, box.files, path)
        assert.is_false(ok, tostring(text))
      end
      box.files:write { path = "/tmp/d/tmp/inside", content = "x" }
      assert.are.equal("x", select(2, run("cat /tmp/inside")))
    end)

    it("cannot lead a restarted sandbox out by links in place of mount points", function()
      local outside = server.dir .. "/outside"
      support.sh("mkdir -p " .. outside .. " && chmod 777 " .. outside)
      local root = ("%s/data/boxes/%s/root"):format(server.dir, box.id)
      -- What a box could leave: its own top level replaced.
      support.sh(("cd %s && for n in run dev proc etc; do rmdir $n; ln -s /oldroot%s $n; done; "
        .. "rm bin && mkdir bin"):format(root, outside))
      server:kill("KILL")
      local again = support.start { dir = server.dir, prefix = server.prefix, program = server.program }
      again.prefix, again.program = server.prefix, server.program
      os.remove(server.log)
      server = again
      box = lbox.Box.get(box.id, server:client())
      assert.are.equal("boxuser\n", select(2, run("whoami")))
      assert.are.equal("", (support.sh("ls -A " .. outside)))
    end)

    it("ends with its server", function()
      run("setsid sleep 4242 & setsid sh -c 'sleep 4243 &'; true")
      server:kill("KILL")
      lbox.sleep(300)
      assert.are.equal("", (support.sh("pgrep -f 'sleep 424[23]' || true")))
      local again = support.start { dir = server.dir, prefix = server.prefix, program = server.program }
      again.prefix, again.program = server.prefix, server.program
      os.remove(server.log)
      server = again
      box = lbox.Box.get(box.id, server:client())
    end)
  end)
end

attacks("this user", function()
  return support.start()
end)

if is_root then
  attacks("an ordinary user", function()
    local dir = support.directory()
    -- The program too has to be where that user gets at it.
    support.sh(("cp %s %s/lbox && chmod 755 %s/lbox && chown 12345:12345 %s"):format(
      support.program, dir, dir, dir))
    local prefix = "setpriv --reuid 12345 --regid 12345 --clear-groups env HOME=" .. dir
    local server = support.start { dir = dir, prefix = prefix, program = dir .. "/lbox" }
    server.prefix, server.program = prefix, dir .. "/lbox"
    return server
  end)
end
