-- A server that is told to end.
local async = require "lbox.async"
local lbox = require "lbox"
local receiver = require "spec.support.receiver"
local support = require "spec.support.local"

local HARNESS = { harness = "custom", model = "none", custom_harness = { command = "sh", args = { "-c",
  [[printf 'event: text\ndata: {"text":"begun"}\n\n'; sleep 37]] } } }

describe("a server that is told to end", function()
  local server

  before_each(function()
    server = support.start()
  end)

  after_each(function()
    server:stop()
  end)

  local function signal()
    os.execute("kill -TERM " .. server.pid)
  end

  --- Waits for its end; returns how long that took.
  local function ended()
    local began = async.now()
    while support.sh(("test -e /proc/%s/exe && echo there"):format(server.pid)) ~= "" do
      async.sleep(20)
    end
    return async.now() - began
  end

  it("answers what it was asked, and refuses what is asked then", function()
    local box = lbox.Box.create(server:client())
    local code, refused
    local running = async.spawn(function()
      code = box.exec:command("sleep 1; exit 7").exit_code
    end)
    async.sleep(300)
    signal()
    async.sleep(200)
    refused = select(2, pcall(lbox.Box.list, server:client { timeout = 2000 }))
    running:await()
    assert.are.equal(7, code)
    assert.is_truthy(refused.kind == "network" or refused.status_code == 503, tostring(refused))
    assert.is_true(ended() < 2000)
    local again = support.start { dir = server.dir }
    local back = lbox.Box.get(box.id, again:client())
    assert.are.equal("paused", back:get_status().status)
    assert.are.equal("failed", back:list_runs()[1].status) -- of the exit code
    again:kill()
  end)

  it("says to those it does not wait for that it stopped, and keeps that", function()
    local box = lbox.Box.create(server:client { agent = HARNESS })
    local stream = box.agent:stream { prompt = "x" }
    assert.are.equal("start", stream:next().type)
    local session = box.exec:session { argv = { "sleep", "38" } }
    local command = async.spawn(function() return pcall(box.exec.command, box.exec, "sleep 39") end)
    async.sleep(300)
    signal()
    async.sleep(200)
    signal() -- at once
    local ok, err = pcall(function()
      for _ in stream:chunks() do end
    end)
    assert.is_false(ok)
    assert.are.equal("run", err.kind)
    assert.matches("the server stopped", err.message)
    ok, err = pcall(session.wait, session)
    assert.is_false(ok)
    assert.matches("the server stopped", err.message)
    ok, err = command:await()
    assert.is_false(ok)
    assert.are.equal(503, err.status_code)
    assert.is_true(ended() < 4000)
    assert.are.equal("", support.sh("pgrep -fx 'sleep 3[789]'"))
    local again = support.start { dir = server.dir }
    local runs = lbox.Box.get(box.id, again:client()):list_runs()
    assert.are.equal(3, #runs)
    for _, run in ipairs(runs) do
      assert.are.same({ "failed", "the server stopped" }, { run.status, run.error_message })
    end
    again:kill()
  end)

  it("lets runs that nobody reads end too, and tells their webhooks", function()
    local hook = receiver.start()
    local box = lbox.Box.create(server:client { agent = { harness = "custom", model = "none", custom_harness = {
      command = "sh", args = { "-c", [[printf 'event: done\ndata: {"output":"did it"}\n\n'; sleep 1]] } } } })
    box.agent:run { prompt = "x", webhook = { url = hook.url } }
    async.sleep(200)
    signal()
    assert.is_true(ended() < 4000)
    assert.are.same({ "completed", "did it" }, { hook.told[1].body.status, hook.told[1].body.output })

    server = support.start { dir = server.dir }
    box = lbox.Box.get(box.id, server:client())
    box:configure_custom_harness { command = "sh", args = { "-c", "sleep 41" } }
    box.agent:run { prompt = "x", webhook = { url = hook.url } }
    async.sleep(300)
    signal()
    async.sleep(200)
    signal()
    assert.is_true(ended() < 4000)
    assert.are.same({ "failed", "the server stopped" }, { hook.told[2].body.status, hook.told[2].body.error })
    hook.listener:stop()
  end)

  it("waits ten seconds at most", function()
    local box = lbox.Box.create(server:client())
    local command = async.spawn(function() return pcall(box.exec.command, box.exec, "sleep 40") end)
    async.sleep(300)
    signal()
    local took = ended()
    assert.is_true(took > 9000 and took < 13000, tostring(took))
    assert.is_false((command:await()))
  end)
end)

describe("the service of a user", function()
  it("starts the server as the unit says, which tells that it is ready and that it stops", function()
    local unit = io.open("contrib/lbox.service"):read("a")
    local command = unit:match("\nExecStart=%%h/%.local/bin/lbox (serve [^\n]+)\n")
    assert.matches("\nType=notify\n", unit)
    local dir = support.directory()
    local listener = ([[python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("%s/notify")
s.settimeout(20)
print("bound", flush=True)
for _ in range(2): print(s.recv(100).decode(), flush=True)
' >%s/said 2>&1 &]]):format(dir, dir)
    os.execute(listener)
    local function said(text)
      for _ = 1, 300 do
        if support.sh("cat " .. dir .. "/said"):find(text, 1, true) then
          return
        end
        async.sleep(20)
      end
      error("nothing was said of " .. text)
    end
    said "bound"
    local pid = support.sh(("NOTIFY_SOCKET=%s/notify LBOX_DATA=%s/data %s %s >/dev/null 2>&1 </dev/null & echo $!")
      :format(dir, dir, support.program, (command:gsub(":%d+$", ":0")))):match("%d+")
    said "READY=1"
    os.execute("kill -TERM " .. pid)
    said "STOPPING=1"
    os.execute(("while [ -e /proc/%s/exe ]; do sleep 0.02; done; rm -rf %s"):format(pid, dir))
  end)
end)
