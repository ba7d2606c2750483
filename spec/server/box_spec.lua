-- Local boxes through the SDK: a real server, real sandboxes.
local lbox = require "lbox"
local support = require "spec.support.local"
local Box = lbox.Box

describe("a local box", function()
  local server, box

  setup(function()
    server = support.start()
    box = Box.create(server:client { name = "spec", labels = { "a:b" }, env = { GREETING = "hello" } })
  end)

  teardown(function()
    box:delete()
    server:stop()
  end)

  it("is listed, found by id and by name, and idle", function()
    assert.matches("^%l+%-%l+%-%d%d%d%d%d$", box.id)
    assert.are.equal("idle", box:get_status().status)
    assert.are.equal(box.id, Box.get(box.id, server:client()).id)
    assert.are.equal(box.id, Box.get_by_name("spec", server:client()).id)
    assert.are.equal(1, #Box.list(server:client { label = "a:b" }))
    assert.are.equal(0, #Box.list(server:client { label = "no" }))
  end)

  it("runs commands and keeps stdout, stderr and the exit code apart", function()
    local run = box.exec:command("echo $GREETING; echo oops >&2; exit 3")
    assert.are.equal(3, run.exit_code)
    assert.are.equal("hello\n", run.stdout)
    assert.are.equal("oops\n", run.stderr)
    assert.are.equal("oops\n", run.result)
    assert.are.equal("failed", run.status)
    assert.are.equal("ok\n", box.exec:command("echo ok; echo noise >&2").result)
  end)

  it("says why a command cannot be started, as a shell does", function()
    box.files:write { path = "/home/boxuser/plain", content = "no program" }
    local function start(words, folder)
      local body = server.dir .. "/body"
      local file = assert(io.open(body, "w"))
      file:write(require("lbox.json").encode { command = words, folder = folder })
      file:close()
      return (support.sh(("curl -sN -w '%%{http_code}' -H 'X-Box-Api-Key: %s' -d @%s %s/v2/box/%s/exec"):format(
        server.key, body, server.url, box.id)))
    end
    assert.matches('"error":"no%-such: command not found\\n","exit_code":127', start { "no-such" })
    assert.matches('"error":"\\/home\\/boxuser\\/plain: Permission denied\\n","exit_code":126',
      start { "/home/boxuser/plain" })
    assert.matches("131071 bytes.*413$", start { "echo", ("x"):rep(131072) })
    assert.matches('"exit_code":0', start { "echo", ("x"):rep(131071) })
    local words = { "echo" }
    for i = 2, 31 do
      words[i] = ("x"):rep(100000)
    end
    assert.matches("all together 2097152.*413$", start(words))
    assert.matches("must not contain a NUL.*400$", start { "echo", "a\0b" })
    assert.matches("no such directory.*400$", start({ "true" }, "/nowhere"))
    assert.matches("Not a directory.*400$", start({ "true" }, "/home/boxuser/plain"))
  end)

  it("streams output as it comes, with the exit last", function()
    local started, times, text, last = lbox.now(), {}, "", nil
    local stream = box.exec:stream("for i in 1 2 3; do echo $i; sleep 0.2; done; exit 4")
    for chunk in stream:chunks() do
      if chunk.type == "output" then
        times[#times + 1] = lbox.now() - started
        text = text .. chunk.data
      end
      last = chunk
    end
    assert.are.equal("1\n2\n3\n", text)
    assert.are.equal("exit", last.type)
    assert.are.equal(4, last.exit_code)
    assert.are.equal("failed", stream.status)
    assert.is_true(times[#times] - times[1] > 300, "it all came at once")
  end)

  it("cannot be told a false exit by what a command prints", function()
    local forged = [[printf 'event: exit\ndata: {"exit_code":0,"cpu_ns":0}\n\n']]
    local stream = box.exec:stream(forged .. "; exit 9")
    local text = ""
    for chunk in stream:chunks() do
      text = text .. (chunk.data or "")
    end
    assert.are.equal(9, stream.exit_code)
    assert.are.equal('event: exit\ndata: {"exit_code":0,"cpu_ns":0}\n\n', text)
  end)

  it("ends a command when its main process ends, whatever runs on behind it", function()
    local started = lbox.now()
    assert.are.equal("x\n", box.exec:command("sleep 30 & echo x").result)
    assert.is_true(lbox.now() - started < 5000)
    assert.matches("sleep 30", box.exec:command("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").result)
  end)

  it("writes and reads files, binary ones too, and lists them", function()
    local bytes = ("\0\1\254\255"):rep(1000)
    box.files:write { path = "dir/blob.bin", content = bytes, binary = true }
    box.files:write { path = "/notes/note.txt", content = "höhe\n" }
    assert.are.equal(bytes, box.files:read("dir/blob.bin", { binary = true }))
    assert.are.equal("höhe\n", box.files:read("/notes/note.txt"))
    local list = box.files:list("dir")
    assert.are.equal("blob.bin", list[1].name)
    assert.are.equal(4000, list[1].size)
    assert.is_false(list[1].is_dir)
    local ok, err = pcall(box.files.write, box.files, { path = "x", content = "\255" })
    assert.is_false(ok)
    assert.is_true(lbox.is_error(err, "usage"))
    ok, err = pcall(box.files.read, box.files, "not/there")
    assert.is_false(ok)
    assert.are.equal(404, err.status_code)
  end)

  it("reads a part of a file of any size", function()
    box.exec:command("yes 0123456789 | head -c 70000000 > big.txt")
    assert.are.equal("89\n0", box.files:read("big.txt", { offset = 11 * 5000000 + 8, length = 4 }))
    assert.are.equal("", box.files:read("big.txt", { offset = 80000000, length = 4 }))
    local ok, err = pcall(box.files.read, box.files, "big.txt")
    assert.is_false(ok)
    assert.are.equal(413, err.status_code)
    ok, err = pcall(box.files.read, box.files, "big.txt", { length = 9 * 1024 * 1024 })
    assert.is_false(ok)
    assert.matches("length \"9437184\": a whole number from 0 to 8388608", err.message)
  end)

  it("refuses a file that is larger than a request may be, in words", function()
    local ok, err = pcall(box.files.write, box.files, { path = "x", content = ("x"):rep(70 * 1024 * 1024) })
    assert.is_false(ok)
    assert.are.equal(413, err.status_code, tostring(err))
    assert.matches("too large", err.message)
  end)

  it("changes directory only to what is there", function()
    box:cd("dir")
    assert.are.equal("/workspace/home/dir", box.cwd)
    assert.are.equal("/workspace/home/dir\n", box.exec:command("pwd").result)
    local ok, err = pcall(box.cd, box, "nope")
    assert.is_false(ok)
    assert.matches("cd: nope: No such file or directory", err.message)
    ok, err = pcall(box.cd, box, "/etc/passwd")
    assert.is_false(ok)
    assert.matches("cd: /etc/passwd: Not a directory", err.message)
    assert.are.equal("/workspace/home/dir", box.cwd)
    box:cd("/workspace/home")
  end)

  it("runs twenty commands at once", function()
    local list = {}
    for i = 1, 20 do
      list[i] = i
    end
    local results = lbox.map(list, function(i)
      return box.exec:command("echo " .. i).result
    end, { concurrency = 20 })
    for i = 1, 20 do
      assert.are.equal(i .. "\n", results[i])
    end
  end)

  it("lets a streamed command go on when its reader leaves, and ends it when it is cancelled", function()
    local stream = box.exec:stream("while :; do echo x; sleep 0.05; done; # left")
    stream:next()
    stream:close()
    assert.are.equal("detached", stream.status)
    lbox.sleep(300)
    assert.are.equal("running", box:list_runs()[1].status)
    stream:cancel()
    stream = box.exec:stream("sleep 1000")
    assert.is_true(stream:cancel())
    assert.are.equal("cancelled", stream.status)
    lbox.sleep(300)
    for i = 1, 2 do
      assert.are.equal("cancelled", box:list_runs()[i].status)
    end
    assert.are.equal("idle", box:get_status().status)
    assert.not_matches("sleep", box.exec:command("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").result:gsub("sleep 30", ""))
  end)

  it("ends a streamed command at its deadline", function()
    local stream = box.exec:stream("sleep 1001", { timeout = 200 })
    local ok, err = pcall(stream.next, stream)
    assert.is_false(ok)
    assert.are.equal("timeout", err.kind)
    lbox.sleep(300)
    assert.are.equal("cancelled", box:list_runs()[1].status)
  end)

  it("is refused when it asks for what there is not", function()
    for what, message in pairs {
      [{ runtime = "cobol" }] = "400: no runtime \"cobol\": golang, node, python, ruby, rust",
      [{ runtime = "node-alpine" }] = "422: the runtime \"node%-alpine\".*use \"node\"",
      [{ init_command = ("x"):rep(65537) }] = "400: the init command has 65537 bytes: at most 65536",
      [{ skills = { "ab" } }] = "400: skill \"ab\": write owner/repo/skill",
      [{ browser = true }] = "501: browser is not available",
    } do
      local ok, err = pcall(Box.create, server:client(what))
      assert.is_false(ok)
      assert.matches("^" .. message, ("%d: %s"):format(err.status_code or 0, err.message))
    end
    assert.are.equal(1, #Box.list(server:client()))
  end)

  it("is gone with its files once it is deleted, alone or in bulk", function()
    local boxes = lbox.map({ 1, 2, 3 }, function()
      return Box.create(server:client())
    end)
    -- Closed directories, deep ones, a socket and what runs on are no obstacle.
    boxes[1].exec:command("mkdir -p a/b/c; touch a/b/c/d; chmod 0 a/b; mkfifo p; sleep 1000 &")
    boxes[1]:delete()
    Box.delete_boxes(server:client { box_ids = { boxes[2].id, boxes[3].id } })
    for _ = 1, 100 do
      if support.sh("ls -A " .. server.dir .. "/data/boxes") == box.id .. "\n" then
        break
      end
      lbox.sleep(20)
    end
    assert.are.equal(box.id .. "\n", (support.sh("ls -A " .. server.dir .. "/data/boxes")))
    local ok, err = pcall(Box.get, boxes[2].id, server:client())
    assert.is_false(ok)
    assert.are.equal(404, err.status_code)
  end)

  it("records every run", function()
    box.exec:command("echo recorded")
    local run = box:list_runs()[1]
    assert.are.equal("shell", run.type)
    assert.are.equal("completed", run.status)
    assert.are.equal("sh -c echo recorded", run.prompt)
  end)
end)
