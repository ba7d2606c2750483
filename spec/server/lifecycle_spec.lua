-- A box's life: its pauses, what it does at every start, and its end when that was set at its beginning.
local lbox = require "lbox"
local support = require "spec.support.local"
local Box, EphemeralBox = lbox.Box, lbox.EphemeralBox

local function eventually(what, check)
  for _ = 1, 250 do
    if check() then
      return
    end
    lbox.sleep(20)
  end
  error("it never came to this: " .. what, 2)
end

--- Reads a stream to its end: what was written.
local function read(stream)
  local text = ""
  for chunk in stream:chunks() do
    text = text .. (chunk.data or "")
  end
  return text
end

local function lives(name, start)
  describe("a box of " .. name, function()
    local server, box

    setup(function()
      server = start()
      box = Box.create(server:client())
    end)

    teardown(function()
      server:stop()
    end)

    local function status()
      return box:get_status().status
    end

    it("loses its processes by a pause, and keeps its files", function()
      box.exec:command("echo kept > file; nohup sleep 4711 & :")
      assert.matches("sleep 4711", (support.sh("pgrep -fa '[s]leep 4711'")))
      box:pause()
      assert.are.equal("paused", status())
      assert.are.equal("", (support.sh("pgrep -fa '[s]leep 4711'")))
      box:pause()
      assert.are.equal("paused", status())
      box:resume()
      assert.are.equal("idle", status())
      assert.are.equal("kept\n", box.exec:command("cat file").result)
    end)

    it("is resumed by whatever is done in it", function()
      for _, work in ipairs {
        function() box.exec:command("true") end,
        function() box.files:write { path = "new", content = "x" } end,
        function() box.files:list() end,
        function() read(box.exec:stream("true")) end,
      } do
        box:pause()
        assert.are.equal("paused", status())
        work()
        assert.are.equal("idle", status())
      end
    end)

    it("is running while something is done in it, and a pause ends that with an error", function()
      local stream = box.exec:stream("echo begun; sleep 60")
      stream:next()
      assert.are.equal("running", status())
      box:pause()
      assert.are.equal("paused", status())
      local ok, err = pcall(read, stream)
      assert.is_false(ok)
      assert.matches("the box was stopped", tostring(err))
      assert.are.equal("failed", box:list_runs()[1].status)
    end)

    it("takes pauses and work at the same time, and no command is lost", function()
      local done = 0
      lbox.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, function(i)
        if i % 2 == 0 then
          box:pause()
          return
        end
        local ok, run = pcall(box.exec.command, box.exec, "echo " .. i)
        if ok then
          assert.are.equal(i .. "\n", run.result)
          done = done + 1
        else
          assert.matches("stopped", tostring(run))
        end
      end)
      assert.are.equal("ok\n", box.exec:command("echo ok").result)
      assert.are.equal("idle", status())
      assert.is_true(done <= 4)
    end)

    it("runs its init command once at each start, in the background", function()
      local other = Box.create(server:client { init_command = "pwd >> starts; echo $GREETING >> starts; sleep 600",
        env = { GREETING = "hello" } })
      local once = "/workspace/home\nhello\n"
      local function starts()
        return other.exec:command("cat starts").stdout
      end
      eventually("the init command has run", function() return starts() == once end)
      other.exec:command("true")
      assert.are.equal(once, starts())
      other:pause()
      other:resume()
      eventually("it has run again", function() return starts() == once .. once end)
      assert.are.equal("pwd >> starts; echo $GREETING >> starts; sleep 600", other:get_init_command())
      -- What is set in a pause counts from the next start on, and does not wake the box.
      other:pause()
      other:set_init_command("#!/bin/sh\necho other > starts")
      assert.are.equal("paused", other:get_status().status)
      eventually("the other one has run", function() return starts() == "other\n" end)
      other:delete_init_command()
      assert.are.equal("", other:get_init_command())
      other.exec:command("echo none > starts")
      other:pause()
      assert.are.equal("none\n", starts())
      lbox.sleep(100)
      assert.are.equal("none\n", starts())
      other:delete()
    end)

    it("says in the log how an init command failed", function()
      local other = Box.create(server:client { init_command = "echo no such luck >&2; exit 3" })
      eventually("it is said", function()
        return server:said():find("the init command of the box " .. other.id .. ": exit code 3: no such luck", 1, true)
      end)
      other:delete()
    end)

    it("refuses an init command that is empty or too long", function()
      for body, message in pairs {
        ['{"init_command":" "}'] = "must not be empty",
        ['{"init_command":"' .. ("x"):rep(65537) .. '"}'] = "65537 bytes: at most 65536",
        ['{"init_command":1}'] = "must be a string",
        ["{}"] = "is required",
      } do
        local code, answer = server:ask("PUT", "/v2/box/" .. box.id .. "/startup", body)
        assert.are.equal(400, code)
        assert.matches(message, answer)
      end
    end)

    it("that is kept alive cannot be paused", function()
      local other = Box.create(server:client { keep_alive = true })
      local code, answer = server:ask("POST", "/v2/box/" .. other.id .. "/pause")
      assert.are.equal(409, code)
      assert.matches("Keep%-alive boxes cannot be paused", answer)
      other:delete()
    end)

    it("that is ephemeral is ready at once and gone in time", function()
      local made = EphemeralBox.create(server:client { ttl = 2 })
      assert.are.equal("idle", made.status)
      assert.is_true(math.abs(made.expires_at - os.time() - 2) <= 1)
      assert.are.equal("x\n", made.exec:command("echo x").result)
      eventually("it is gone", function() return not pcall(Box.get, made.id, server:client()) end)
      assert.is_true(os.time() >= made.expires_at)
      eventually("its files are gone", function()
        return not support.sh("ls -A " .. server.dir .. "/data/boxes"):find(made.id, 1, true)
      end)
    end)

    it("lives three days at most when it is ephemeral", function()
      local made = EphemeralBox.create(server:client())
      assert.is_true(math.abs(made.expires_at - os.time() - 259200) <= 2)
      made:delete()
      for body, message in pairs {
        ['{"ephemeral":true,"ttl":0}'] = "ttl 0: a whole number of seconds from 1 to 259200",
        ['{"ephemeral":true,"ttl":259201}'] = "ttl 259201: a whole",
        ['{"ephemeral":true,"ttl":99999999}'] = "ttl 99999999: a whole",
        ['{"ephemeral":true,"ttl":1.5}'] = "ttl 1.5: a whole",
        ['{"ttl":5}'] = "ttl goes with ephemeral",
      } do
        local code, answer = server:ask("POST", "/v2/box", body)
        assert.are.equal(400, code)
        assert.matches(message, answer)
      end
    end)
  end)
end

lives("this user", support.start)
if support.sh("id -u"):match("^0") then
  lives("an ordinary user", support.start_as_user)
end

describe("a server", function()
  it("pauses boxes that are idle for long enough, and none that is kept alive or at work", function()
    local server = support.start { args = "--idle-pause 1" }
    local idle, kept, busy = Box.create(server:client()), Box.create(server:client { keep_alive = true }),
      Box.create(server:client())
    for _, box in ipairs { idle, kept } do
      box.exec:command("sleep 1000 & :")
    end
    local asked = Box.create(server:client())
    asked.files:write { path = "slow.py", content = [[
import socket, time
s = socket.create_server(('127.0.0.1', 3000))
open('ready', 'w').close()
c, _ = s.accept()
c.recv(1000)
time.sleep(3)
c.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nslow')
]] }
    asked.exec:command("nohup python3 slow.py & while ! test -e ready; do sleep 0.02; done")
    os.execute(("curl -s %s >%s/slow 2>&1 &"):format(asked:get_public_url(3000).url, server.dir))
    local stream = busy.exec:stream("sleep 3; echo done")
    eventually("the idle box is paused", function() return idle:get_status().status == "paused" end)
    eventually("that is said", function()
      return server:said():find("the box " .. idle.id .. " was idle and is paused", 1, true)
    end)
    lbox.sleep(1000)
    assert.are.equal("idle", kept:get_status().status)
    assert.matches("sleep 1000", kept.exec:command("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").result)
    assert.are.equal("running", busy:get_status().status)
    assert.are.equal("done\n", read(stream))
    eventually("the answer is there", function() return support.sh("cat " .. server.dir .. "/slow") == "slow" end)
    eventually("the box is paused that was at work", function() return busy:get_status().status == "paused" end)
    assert.are.equal("x\n", idle.exec:command("echo x").result)
    server:stop()
  end)

  it("deletes what expired while it was down", function()
    local server = support.start()
    local gone = EphemeralBox.create(server:client { ttl = 1 })
    local there = EphemeralBox.create(server:client { ttl = 600 })
    server:kill("KILL")
    lbox.sleep(1200)
    local again = support.start { dir = server.dir }
    os.remove(server.log)
    eventually("it is gone", function() return not pcall(Box.get, gone.id, again:client()) end)
    assert.are.equal("paused", Box.get(there.id, again:client()).status)
    again:stop()
  end)

  it("takes no time for idle boxes that is none", function()
    local text, status = support.sh(support.program .. " serve --data /nowhere --idle-pause soon")
    assert.are_not.equal(0, status)
    assert.matches("%-%-idle%-pause soon: a number of seconds from 0", text)
  end)
end)
