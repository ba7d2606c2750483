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
