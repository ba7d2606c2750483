-- Snapshots of local boxes, and boxes made of them.
local json = require "lbox.json"
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

-- What a tree can hold, and what is told of it: all but the times of links' targets and owners.
local MAKE = [[
mkdir -p tree/deep/er tree/closed tree/sticky; cd tree
echo one > file; chmod 750 file; touch -d '2001-02-03 04:05:06.789' file
ln file deep/second; ln file deep/er/third
ln -s /etc/shadow absolute; ln -s ../../../../../../etc relative; ln -s nowhere dangling
truncate -s 200M sparse; printf x | dd of=sparse bs=1 seek=100000000 conv=notrunc 2>/dev/null
head -c 3000000 /dev/urandom > big; : > empty; printf 'a\nb' > "odd
name"
cp /bin/true setuid; chmod 4755 setuid; chmod 1777 sticky
echo hidden > closed/hidden; chmod 0 closed/hidden; chmod 0 closed; touch -d 2003-03-03 deep
mkfifo fifo; python3 -c "import socket; socket.socket(socket.AF_UNIX).bind('socket')"
]]
local TELL = [[cd tree; find . ! -path './closed/*' -print0 | sort -z |
  xargs -0 stat -c '%N %A %s %h %Y %y'; md5sum big file sparse deep/er/third 'odd
name'; test file -ef deep/second && test file -ef deep/er/third && echo same; stat -c %A closed;
  chmod 700 closed; stat -c %A closed/hidden; chmod 400 closed/hidden; cat closed/hidden;
  chmod 0 closed/hidden; chmod 0 closed; du -k sparse]]

local function snapshots(name, start, start_again)
  describe("a snapshot of a box of " .. name, function()
    local server, box

    setup(function()
      server = start()
      box = Box.create(server:client { env = { GREETING = "hello", PLACE = "here" } })
    end)

    teardown(function()
      server:stop()
    end)

    local function from(snapshot, more)
      return Box.from_snapshot(snapshot.id, server:client(more))
    end

    it("has all of its files as they were", function()
      box.exec:command(MAKE)
      local before = box.exec:command("{ " .. TELL .. "; } | grep -v -e fifo -e socket").stdout
      assert.matches("same\n", before)
      local size = 0
      for part in box.exec:command("cd tree; stat -c %s big setuid file").stdout:gmatch("%d+") do
        size = size + tonumber(part)
      end
      local snapshot = box:snapshot { name = "first one" }
      assert.are.equal("first one", snapshot.name)
      assert.are.equal("ready", snapshot.status)
      assert.are.equal(box.id, snapshot.box_id)
      -- What holes and second names add is nothing.
      assert.is_true(snapshot.size_bytes >= size and snapshot.size_bytes < size + 65536,
        snapshot.size_bytes .. " of " .. size)
      assert.are.same({ snapshot }, box:list_snapshots())
      box.exec:command("chmod -R u+rwx tree; rm -r tree")
      local other = from(snapshot)
      assert.are_not.equal(box.id, other.id)
      assert.are.equal(before, other.exec:command(TELL).stdout)
      assert.are.equal("", other.exec:command("cd tree; ls -d fifo socket 2>/dev/null").stdout)
      -- They are its own: it can change and remove all of it.
      assert.are.equal("", other.exec:command("find / -xdev ! -user boxuser ! -path '/proc*' ! -path '/dev*' "
        .. "! -path '/run*' ! -path '/usr*' ! -path '/etc*' ! -path '/lib*' ! -path '/bin*' ! -path '/sbin*' "
        .. "2>/dev/null").stdout)
      assert.are.equal("gone\n", other.exec:command("chmod -R u+rwx tree; rm -r tree && echo gone").result)
      box:delete_snapshot(snapshot.id)
      other:delete()
    end)

    it("is left as it is by boxes made of it at once, and leaves its box so", function()
      box.exec:command("mkdir -p shut; cd shut; for i in $(seq 60); do mkdir $i; echo $i > $i/f; chmod 0 $i/f $i; done")
      local snapshot = box:snapshot { name = "shut" }
      local TELL_SHUT = "cd shut; stat -c %a * | sort | uniq -c | tr -s ' '; chmod 700 *; stat -c %a */f | sort "
        .. "| uniq -c"
      local others = lbox.map({ 1, 2, 3, 4, 5, 6 }, function() return from(snapshot) end)
      for _, other in ipairs(others) do
        assert.matches("^ 60 0\n +60 0\n$", other.exec:command(TELL_SHUT).stdout)
        other:delete()
      end
      assert.matches("^ 60 0\n", box.exec:command(TELL_SHUT).stdout)
      box.exec:command("chmod -R u+rwx shut; rm -r shut")
      box:delete_snapshot(snapshot.id)
    end)

    it("is of one moment, and what runs goes on behind it", function()
      -- Two files that one process always changes together, first `a`.
      box.files:write { path = "/home/boxuser/pair.py", content = [[
import os
n = 0
while True:
    n += 1
    for name in 'ab':
        with open(name + '.new', 'w') as f: f.write(str(n))
        os.rename(name + '.new', name)
]] }
      box.exec:command("mkdir pair; cd pair; mkdir z; head -c 20000000 /dev/urandom > z/bulk; "
        .. "nohup python3 /home/boxuser/pair.py & sleep 0.3; "
        .. "sh -c 'kill -STOP $$; echo continued > continued' & sleep 0.2")
      for _ = 1, 3 do
        local snapshot = box:snapshot { name = "moment" }
        local other = from(snapshot)
        local a, b = other.exec:command("cat pair/a; echo; cat pair/b").stdout:match("^(%d+)\n(%d+)$")
        assert.is_true(a - b == 0 or a - b == 1, a .. " and " .. b)
        other:delete()
        box:delete_snapshot(snapshot.id)
      end
      assert.truthy(server:said():find("the box " .. box.id:gsub("%-", "%%-") .. " was stopped for %d+ ms\n"))
      local at = box.exec:command("cat pair/b").stdout
      eventually("it goes on", function() return box.exec:command("cat pair/b").stdout ~= at end)
      -- What was stopped before still is.
      assert.are.equal("", box.exec:command("cat pair/continued 2>/dev/null").stdout)
      box.exec:command("pkill -CONT -f 'kill -STOP'")
      eventually("it can be continued", function()
        return box.exec:command("cat pair/continued 2>/dev/null").stdout == "continued\n"
      end)
      box.exec:command("pkill -f pair.py; rm -r pair")
    end)

    it("is taken of a paused box too, which stays so", function()
      box.exec:command("echo paused > note")
      box:pause()
      local snapshot = box:snapshot { name = "paused" }
      assert.are.equal("paused", box:get_status().status)
      local other = from(snapshot)
      assert.are.equal("paused\n", other.exec:command("cat note").result)
      other:delete()
    end)

    it("carries environment and agent, and not the init command, the name or the labels", function()
      local command = "printf 'event: done\\ndata: {\"output\":\"%s\"}\\n\\n' \"$GREETING $PLACE\""
      local source = Box.create(server:client { name = "source", labels = { "one" }, size = "large",
        env = { GREETING = "hello", PLACE = "here" }, init_command = "touch init",
        agent = { harness = "custom", model = "mine", custom_harness = { command = "sh", args = { "-c", command } } } })
      local snapshot = source:snapshot { name = "agent" }
      source:delete()
      local other = from(snapshot, { env = { PLACE = "there" }, name = "other", keep_alive = true })
      assert.are.equal("hello there", other.agent:run { prompt = "x" }.result)
      local data = json.decode((select(2, server:ask("GET", "/v2/box/" .. other.id))))
      assert.are.equal("other", data.name)
      assert.are.equal("mine", data.model)
      assert.are.equal("large", data.size)
      assert.is_true(data.keep_alive)
      assert.are.same({}, data.labels)
      assert.are.equal("", other:get_init_command())
      other:delete()
    end)

    it("makes an ephemeral box that is ready at once", function()
      local snapshot = box:snapshot { name = "for short" }
      local made = EphemeralBox.from_snapshot(snapshot.id, server:client { ttl = 60 })
      assert.are.equal("idle", made.status)
      assert.is_true(math.abs(made.expires_at - os.time() - 60) <= 1)
      assert.are.equal("hello\n", made.exec:command("echo $GREETING").result)
      made:snapshot { name = "of an ephemeral one" }
      made:delete()
    end)

    it("is deleted alone, or with others, or with all, and never by an empty list", function()
      for _, body in ipairs { "{}", '{"ids":[]}', '{"ids":"all"}' } do
        assert.are.equal(400, (server:ask("DELETE", "/v2/box/snapshots", body)))
      end
      assert.are.equal(400, (server:ask("DELETE", "/v2/box/snapshots?all=true", '{"ids":["x"]}')))
      assert.are.equal(404, (server:ask("DELETE", "/v2/box/snapshots", '{"ids":["snap_none"]}')))
      local kept = #box:list_snapshots()
      local one, two = box:snapshot { name = "1" }, box:snapshot { name = "2" }
      assert.are.equal(kept + 2, #box:list_snapshots())
      assert.are.same({ deleted = 2 }, Box.delete_snapshots(server:client { snapshot_ids = { one.id, two.id } }))
      assert.are.equal(kept, #box:list_snapshots())
      assert.is_true(Box.delete_snapshots(server:client { all = true }).deleted >= kept)
      assert.are.same({}, box:list_snapshots())
      eventually("their files are gone", function()
        return support.sh("ls -A " .. server.dir .. "/data/snapshots") == ""
      end)
      local ok, err = pcall(from, one)
      assert.is_false(ok)
      assert.are.equal(404, err.status_code)
    end)

    it("is refused with words when it is asked for wrongly", function()
      for body, message in pairs {
        ["{}"] = "the field \"name\" is required",
        ['{"name":" "}'] = "not all of them blanks",
        ['{"name":1}'] = "must be a string",
      } do
        local code, answer = server:ask("POST", "/v2/box/" .. box.id .. "/snapshots", body)
        assert.are.equal(400, code)
        assert.is_truthy(json.decode(answer).error:find(message, 1, true), answer)
      end
      assert.are.equal(404, (server:ask("POST", "/v2/box/none/snapshots", '{"name":"x"}')))
      assert.are.equal(404, (server:ask("DELETE", "/v2/box/" .. box.id .. "/snapshots/snap_none")))
      assert.are.equal(400, (server:ask("POST", "/v2/box/from-snapshot", "{}")))
      assert.are.equal(404, (server:ask("POST", "/v2/box/from-snapshot", '{"snapshot_id":"snap_none"}')))
    end)

    it("that fails is an error, and the box goes on", function()
      -- Deeper than can be copied.
      box.exec:command("python3 - <<'EOF'\nimport os\nfor i in range(3000): os.mkdir('d'); os.chdir('d')\nEOF")
      box.exec:command("nohup sh -c 'while :; do date +%N > beat; sleep 0.02; done' & :")
      local ok, err = pcall(box.snapshot, box, { name = "too deep" })
      assert.is_false(ok)
      assert.matches("its status is error", tostring(err))
      assert.matches("the snapshot snap_%x+ of the box [%w-]+ failed: cannot copy the files of the box: d: ",
        server:said())
      local beat = box.exec:command("cat beat").stdout
      eventually("it goes on", function() return box.exec:command("cat beat").stdout ~= beat end)
      assert.are.equal("error", box:list_snapshots()[1].status)
      box:delete_snapshot(box:list_snapshots()[1].id)
      box:pause()
      local root = ("%s/data/boxes/%s/root"):format(server.dir, box.id)
      support.sh(("%s empty %s/workspace/home/d && rmdir %s/workspace/home/d"):format(
        server.dir .. "/data/bin/lbox-init", root, root))
      eventually("nothing is left of it", function()
        return support.sh("ls -A " .. server.dir .. "/data/snapshots") == ""
      end)
    end)

    --- Stops the next copying from there in its middle, by its process.
    local function hold_next_copy(place)
      os.execute(("(for i in $(seq 400); do p=$(pgrep -f '[l]box-init copy %s/data/%s/') && kill -STOP $p && break; "
        .. "sleep 0.002; done) >/dev/null 2>&1 &"):format(server.dir, place))
    end

    local function copies()
      return (support.sh("pgrep -fa '[l]box-init copy " .. server.dir .. "'"))
    end

    it("that takes long stops neither a kill nor the end of the box", function()
      box.exec:command("head -c 600000000 /dev/zero | tr '\\0' 'x' > bulk; echo begun > order")
      local stream = box.exec:stream("sleep 1003")
      local beats = box.exec:stream("while :; do echo beat; sleep 0.02; done")
      beats:next()
      hold_next_copy("boxes")
      local code, answer = server:ask("POST", "/v2/box/" .. box.id .. "/snapshots", '{"name":"long"}')
      assert.are.equal(200, code)
      assert.are.equal("creating", json.decode(answer).status)
      assert.is_true(stream:cancel())
      eventually("the command is killed", function() return box:list_runs()[2].status == "cancelled" end)
      assert.are.equal("running", box:list_runs()[1].status)
      assert.are.equal("creating", box:list_snapshots()[1].status)
      -- Who wants to begin something waits.
      local ok, err = pcall(box.exec.command, box.exec, "true", { timeout = 200 })
      assert.is_false(ok)
      assert.are.equal("timeout", err.kind)
      box:delete_snapshot(box:list_snapshots()[1].id)
      assert.are.equal("", copies())
      assert.are.equal("begun\n", box.exec:command("cat order").result)
      while beats:next().data ~= "beat\n" do end
      beats:cancel()

      hold_next_copy("boxes")
      server:ask("POST", "/v2/box/" .. box.id .. "/snapshots", '{"name":"lost"}')
      local before = box.id
      box:delete()
      assert.are.equal("", copies())
      eventually("nothing is left", function()
        return support.sh("ls -A " .. server.dir .. "/data/snapshots") == ""
          and not support.sh("ls -A " .. server.dir .. "/data/boxes"):find(before, 1, true)
      end)
      box = Box.create(server:client { env = { GREETING = "hello" } })
    end)

    it("that is deleted while a box is made of it is enough for that box", function()
      box.exec:command("head -c 600000000 /dev/zero | tr '\\0' 'x' > bulk")
      local snapshot = box:snapshot { name = "soon gone" }
      hold_next_copy("snapshots")
      local _, answer = server:ask("POST", "/v2/box/from-snapshot", '{"snapshot_id":"' .. snapshot.id .. '"}')
      local id = json.decode(answer).id
      assert.are.equal("creating", Box.get(id, server:client()).status)
      box:delete_snapshot(snapshot.id)
      assert.are.same({}, box:list_snapshots())
      support.sh("pkill -CONT -f '[l]box-init copy " .. server.dir .. "'")
      -- Who has work for it waits until it is made.
      local code
      code, answer = server:ask("POST", "/v2/box/" .. id .. "/exec", '{"command":["stat","-c","%s","bulk"]}')
      assert.are.equal(200, code)
      assert.are.equal("600000000\n", json.decode(answer).output)
      eventually("the snapshot is gone", function()
        return support.sh("ls -A " .. server.dir .. "/data/snapshots") == ""
      end)
      assert.are.equal(200, (server:ask("DELETE", "/v2/box/" .. id)))
    end)

    it("leaves nothing half done, stopped or running behind a server that is killed", function()
      box.exec:command("head -c 600000000 /dev/zero | tr '\\0' 'x' > bulk")
      local done = box:snapshot { name = "done" }
      hold_next_copy("boxes")
      server:ask("POST", "/v2/box/" .. box.id .. "/snapshots", '{"name":"half"}')
      assert.matches("copy", copies())
      hold_next_copy("snapshots")
      local _, answer = server:ask("POST", "/v2/box/from-snapshot", '{"snapshot_id":"' .. done.id .. '"}')
      local other = json.decode(answer)
      assert.are.equal("creating", other.status)
      server:kill("KILL")
      lbox.sleep(300)
      assert.are.equal("", copies())
      local again = start_again(server)
      os.remove(server.log)
      server = again
      box = Box.get(box.id, server:client())
      local list = box:list_snapshots()
      assert.are.equal("half", list[1].name)
      assert.are.equal("error", list[1].status)
      assert.are.same(done, list[2])
      assert.are.equal("error", Box.get(other.id, server:client()).status)
      local code
      code, answer = server:ask("POST", "/v2/box/" .. other.id .. "/exec", '{"command":["true"]}')
      assert.are.equal(409, code)
      assert.matches("could not be made", answer)
      assert.are.equal(200, (server:ask("DELETE", "/v2/box/" .. other.id)))
      eventually("what was half done is gone", function()
        return support.sh("ls -A " .. server.dir .. "/data/snapshots") == done.id .. "\n"
          and support.sh("ls -A " .. server.dir .. "/data/boxes") == box.id .. "\n"
      end)
      assert.are.equal("600000000\n", from(done).exec:command("stat -c %s bulk").result)
    end)
  end)
end

snapshots("this user", support.start, function(old)
  return support.start { dir = old.dir }
end)
if support.sh("id -u"):match("^0") then
  snapshots("an ordinary user", support.start_as_user, function(old)
    return support.start_as_user { dir = old.dir }
  end)
end
