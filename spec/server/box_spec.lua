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

  it("kills everything of a snippet that takes too long, double-forked children too", function()
    local run = box.exec:code { lang = "python", timeout = 400, code = [[
import os, sys, time
print("begun", flush=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "77"])
    os._exit(0)
time.sleep(60)]] }
    assert.are.equal(124, run.exit_code)
    assert.are.equal("begun\n", run.stdout)
    assert.matches("timed out", run.stderr)
    assert.not_matches("sleep 77", box.exec:command("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").result)
  end)

  it("writes and reads files, binary ones too, and lists them", function()
    local bytes = ("\0\1\254\255"):rep(1000)
    box.files:write { path = "dir/blob.bin", content = bytes, binary = true }
    box.files:write { path = "/work/note.txt", content = "höhe\n" }
    assert.are.equal(bytes, box.files:read("dir/blob.bin", { binary = true }))
    assert.are.equal("höhe\n", box.files:read("/work/note.txt"))
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

  it("changes directory only to what is there", function()
    box:cd("dir")
    assert.are.equal("/workspace/home/dir", box.cwd)
    assert.are.equal("/workspace/home/dir\n", box.exec:command("pwd").result)
    local ok, err = pcall(box.cd, box, "nope")
    assert.is_false(ok)
    assert.matches("cd: nope: No such file or directory", err.message)
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

  it("records every run", function()
    box.exec:command("echo recorded")
    local run = box:list_runs()[1]
    assert.are.equal("shell", run.type)
    assert.are.equal("completed", run.status)
    assert.are.equal("sh -c echo recorded", run.prompt)
  end)
end)

describe("an agent in a local box", function()
  local server, box

  local AGENT = [[
    require("lbox").harness.run(function(ctx, emit)
      if ctx.prompt:find("silent") then os.exit(0, true) end
      if ctx.prompt:find("fail") then error("no luck") end
      emit.text("thinking\n")
      if ctx.prompt:find("long") then os.execute("sleep 60") end
      emit.tool { tool_call_id = "1", name = "look", input = { path = "." } }
      emit.tool_result { tool_call_id = "1", output = { "a", "b" } }
      local output = ctx.json_schema and '{"n": 3}' or "done with " .. ctx.prompt
      return { output = output, input_tokens = 7, output_tokens = 5, session_id = "s1" }
    end)]]

  setup(function()
    server = support.start()
    box = Box.create(server:client {
      agent = { harness = "custom", custom_harness = { command = "lbox", args = { "/home/boxuser/a.lua" } } },
    })
    box.files:write { path = "/home/boxuser/a.lua", content = AGENT }
  end)

  teardown(function()
    server:stop()
  end)

  it("streams text, tools, the finish with usage, and stats", function()
    local kinds = {}
    local stream = box.agent:stream { prompt = "x" }
    for chunk in stream:chunks() do
      kinds[#kinds + 1] = chunk.type
    end
    assert.are.same({ "start", "text-delta", "tool-call", "tool-result", "finish", "stats" }, kinds)
    assert.are.equal("completed", stream.status)
    assert.are.equal(7, stream.cost.input_tokens)
  end)

  it("gives typed output by a schema", function()
    local run = box.agent:run { prompt = "count", response_schema = { n = "integer" } }
    assert.are.equal(3, run.result.n)
    local ok, err = pcall(box.agent.run, box.agent, { prompt = "count", response_schema = { m = "string" } })
    assert.is_false(ok)
    assert.are.equal("schema", err.kind)
  end)

  it("fails when it says so, and when it ends without a word", function()
    local ok, err = pcall(box.agent.run, box.agent, { prompt = "fail" })
    assert.is_false(ok)
    assert.are.equal("run", err.kind)
    assert.matches("no luck", err.message)
    ok, err = pcall(box.agent.run, box.agent, { prompt = "silent" })
    assert.is_false(ok)
    assert.matches("without saying that it was done", err.message)
    assert.are.equal("failed", box:list_runs()[1].status)
  end)

  it("is cancelled on the server when its deadline passes", function()
    local ok, err = pcall(box.agent.run, box.agent, { prompt = "long", timeout = 500 })
    assert.is_false(ok)
    assert.are.equal("timeout", err.kind)
    lbox.sleep(300)
    assert.are.equal("cancelled", box:list_runs()[1].status)
  end)

  it("goes on when its reader leaves", function()
    local stream = box.agent:stream { prompt = "left alone" }
    stream:next()
    stream:close()
    assert.are.equal("detached", stream.status)
    lbox.sleep(500)
    assert.are.equal("completed", box:list_runs()[1].status)
  end)
end)
