-- Attacks from inside of a box: using up what the machine has, or what the server has. Others are asked for all the
-- time; the limits are small, so that the machine is not used up in earnest.
local attacks = require "spec.support.attacks"
local lbox = require "lbox"
local support = require "spec.support.local"

local MEMORY = "memory limit of 128 MB: killed process"
-- How much memory the server may have gained from a flood.
local SERVER_KB = 150 * 1024

describe("an attack by using up:", function()
  local attack

  setup(function()
    local harness = { command = "sh", args = { "/home/boxuser/agent.sh" } }
    attack = attacks.start { args = "--limit memory=128M --limit disk=32M --limit processes=200",
      box = { agent = { harness = "custom", custom_harness = harness } } }
  end)

  teardown(function()
    attack:stop()
  end)

  -- What an attack left in the background ends with it, and its files go. There may be no room for one process more.
  after_each(function()
    lbox.timeout(15000, function()
      while not pcall(attack.run, attack, "kill -9 -1") do
        lbox.sleep(20)
      end
      while not pcall(attack.run, attack, "rm -rf /workspace/home/* /tmp/* /dev/shm/*") do
        lbox.sleep(20)
      end
    end)
    attack:check()
  end)

  local function resident()
    return tonumber((support.sh("cat /proc/" .. attack.server.pid .. "/status"):match("VmRSS:%s*(%d+)")))
  end

  local function logged(text, box)
    lbox.timeout(5000, function()
      while true do
        for _, entry in ipairs((box or attack.box):logs()) do
          if entry.message:find(text, 1, true) then
            return
          end
        end
        lbox.sleep(20)
      end
    end)
  end

  --- Runs Python for so long at most; then it is killed with all that it started.
  local function bomb(code, ms)
    return attack:during(function()
      return attack.box.exec:code { lang = "python", code = code, timeout = ms or 1000 }
    end)
  end

  it("processes: a fork bomb that never rests", function()
    -- The process that began may be killed for the memory of all: then the others go on in the background.
    local run = bomb "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    assert.is_true(run.exit_code == 124 or run.exit_code == 137, run.exit_code)
  end)

  it("processes: so many in the background that nothing can be started in the box any more", function()
    local server = support.start { args = "--limit processes=100" }
    local box = lbox.Box.create(server:client())
    box.files:write { path = "/tmp/many.py", content = [[
import os
while True:
    try:
        if os.fork() == 0: os.execvp('sleep', ['sleep', '600'])
    except OSError: pass
]] }
    box.exec:command("setsid python3 /tmp/many.py >/dev/null 2>&1 & true")
    local err
    local function try()
      lbox.sleep(20)
      local ok, why = pcall(box.exec.command, box.exec, "true")
      err = not ok and why
    end
    lbox.timeout(5000, function() repeat try() until err end)
    assert.matches("as many processes as it may have; a pause ends them", err.message)
    lbox.timeout(10000, function() repeat try() until not err end)
    logged("limit of 100 processes: killed what ran in it", box)
    server:stop()
  end)

  it("processes: as many as a box may have when nobody says less", function()
    local server = attack.server
    attack.server = support.start()
    local box = lbox.Box.create(attack.server:client())
    local mine = attack.other
    attack.other = lbox.Box.create(attack.server:client())
    attack.other.files:write { path = "mine", content = "untouched" }
    local run = attack:during(function()
      return box.exec:code { lang = "python", timeout = 2000,
        code = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass" }
    end)
    attack.server:stop()
    attack.server, attack.other = server, mine
    assert.is_true(run.exit_code == 124 or run.exit_code == 137, run.exit_code)
  end)

  it("processes: a fork bomb of sessions that come and go", function()
    local run = bomb [[
import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if os.fork(): signal.pause()
while True:
    try:
        if os.fork(): os._exit(0)
        os.setsid()
        if os.fork() and os.getpid() % 8: os._exit(0)
    except OSError: pass]]
    assert.is_true(run.exit_code == 124 or run.exit_code == 137, run.exit_code)
  end)

  it("processes: threads", function()
    local run = bomb [[
import threading, time
n = 0
try:
    while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); n += 1
except RuntimeError: print(100 < n < 200, flush=True)
import os; os._exit(0)]]
    assert.are.equal("True\n", run.stdout)
  end)

  it("memory: one process that takes ever more", function()
    local run = bomb("x = []\nwhile True: x.append(b'x' * (1 << 20))", 10000)
    assert.are.equal(137, run.exit_code)
    logged(MEMORY .. " \"python3\"")
  end)

  it("memory: many processes that take a little each", function()
    local run = bomb([[
import os, time
for i in range(30):
    if os.fork() == 0:
        x = os.urandom(12 << 20); time.sleep(60)
time.sleep(60)]], 2000)
    assert.is_true(run.exit_code ~= 0)
    logged(MEMORY)
  end)

  it("memory: files in memory", function()
    local _, text = attack:during(function()
      return attack:run("cd /dev/shm; for i in 1 2 3; do head -c 30M /dev/zero > $i; done; "
        .. "for i in 1 2 3; do head -c 30M /dev/zero > /run/$i; done; head -c 90M /dev/zero > /dev/x; rm -f /run/[123]")
    end)
    assert.matches("No space left", text)
    assert.matches("Read%-only", text)
  end)

  it("disk: one file, also without writing it", function()
    for _, command in ipairs { "head -c 200M /dev/zero > big", "fallocate -l 100M big", "truncate -s 100M big" } do
      local code = attack:during(function() return (attack:run(command)) end)
      assert.are_not.equal(0, code, command)
      local _, size = attack:run("stat -c %s big 2>/dev/null || echo 0; rm -f big")
      assert.is_true(tonumber(size) <= 32 << 20, size)
    end
  end)

  it("disk: many files", function()
    local code = attack:during(function()
      return (attack:run("i=0; while [ $i -lt 400 ]; do head -c 500000 /dev/zero > f$i; i=$((i+1)); sleep 0.01; done"))
    end)
    assert.are.equal(137, code)
    logged("disk limit of 32 MB")
    local ok, err = pcall(attack.box.files.write, attack.box.files, { path = "x", content = ("x"):rep(1000000) })
    assert.is_false(ok)
    assert.are.equal(507, err.status_code)
  end)

  it("disk: files without content, of which a file system has only so many", function()
    local code = attack:during(function()
      return (attack:run("python3 -c \"\nimport os, time\nfor d in range(400):\n os.mkdir('d%d' % d)\n"
        .. " for f in range(1000): os.close(os.open('d%d/%d' % (d, f), os.O_CREAT))\n time.sleep(0.02)\n\""))
    end)
    assert.are.equal(137, code)
    logged("disk limit of 32 MB")
    local made = tonumber((select(2, attack:run("find . -type f | wc -l"))))
    assert.is_true(made < 100000, made)
  end)

  it("disk: through the file endpoints", function()
    local refused
    attack:during(function()
      for i = 1, 12 do
        local file = { path = "f" .. i, content = ("x"):rep(4000000) }
        local ok, err = pcall(attack.box.files.write, attack.box.files, file)
        refused = refused or (not ok and err.status_code)
        lbox.sleep(60)
      end
    end)
    assert.are.equal(507, refused)
    local used = tonumber((select(2, attack:run("du -sk . | cut -f1"))))
    assert.is_true(used < 48 * 1024, used)
  end)

  it("memory that belongs to no process: System V segments, sets of semaphores", function()
    local _, text = attack:run([[python3 -c "
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def made(fn, size, most):
    n = 0
    while n < most and fn(0, size, 0o600) >= 0: n += 1
    return n
print(made(lambda k, size, how: libc.shmget(k, ctypes.c_size_t(size), how), 1 << 20, 100))
print(made(libc.semget, 32000, 100))
print(made(lambda k, size, how: libc.shmget(k, ctypes.c_size_t(size), how), 65536, 100), made(libc.semget, 17, 100))
"; ipcrm -a]])
    assert.are.equal("0\n0\n100 100\n", text)
  end)

  it("descriptors: all that its processes can have", function()
    local run = bomb([[
import os, resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
for i in range(8):
    if os.fork() == 0: break
try:
    while True: os.open('/dev/null', os.O_RDONLY)
except OSError: time.sleep(60)]], 1500)
    assert.are.equal(124, run.exit_code)
  end)

  it("descriptors: watches of files, keys of epoll, pipes and sockets", function()
    local run = bomb([[
import ctypes, os, select, socket, time
libc = ctypes.CDLL(None)
keep = []
def until_refused(fn):
    for i in range(1000):
        try: keep.append(fn())
        except OSError: return
for i in range(4): os.fork()
for i in range(100): keep.append(libc.inotify_init1(0))
until_refused(os.pipe); until_refused(socket.socketpair)
time.sleep(60)]])
    assert.are.equal(124, run.exit_code)
  end)

  it("descriptors: passed to each other without end, so that the server could pass none", function()
    -- What is under way is counted by user: a box that has the server's own user makes it run short.
    attack.box.files:write { path = "/tmp/under-way.py", content = [[
import array, os, socket, time
a, b = socket.socketpair()
for i in range(6):
    a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * 100))])
time.sleep(1.5)
]] }
    attack.box.exec:command("nohup python3 /tmp/under-way.py >/dev/null 2>&1 & sleep 0.3")
    local before = support.sh("prlimit --noheadings --raw -o SOFT --nofile --pid " .. attack.server.pid):match("%d+")
    support.sh(("prlimit --nofile=500: --pid %s"):format(attack.server.pid))
    local ok, err = pcall(attack.run, attack, "true")
    assert.is_true(ok or tostring(err):find("Too many references", 1, true) ~= nil, tostring(err))
    support.sh(("prlimit --nofile=%s: --pid %s"):format(before, attack.server.pid))
    lbox.sleep(1500)
    -- The box lived on, and so did its link.
    assert.are.equal("alive\n", select(2, attack:run("echo alive")))
  end)

  it("the server's memory: a flood of output, in an answer and in a stream that nobody reads", function()
    local before = resident()
    local ok, err = attack:during(function()
      return pcall(attack.run, attack, "cat /dev/zero")
    end)
    assert.is_false(ok)
    assert.are.equal(413, err.status_code)
    assert.matches("output is larger", err.message)
    support.sh(("curl -s -o /dev/null -m 2 --limit-rate 1000 -H 'X-Box-Api-Key: %s' -d '%s' %s/v2/box/%s/exec-stream &")
      :format(attack.server.key, '{"command":["timeout","2","cat","/dev/zero"]}', attack.server.url, attack.box.id))
    attack:during(function() lbox.sleep(1500) end)
    assert.is_true(resident() - before < SERVER_KB, resident() - before)
  end)

  it("the server's memory and log: a flood of errors, and of output in the background", function()
    local said = #attack.server:said()
    local ok, err = pcall(bomb, "import os\nif os.fork() == 0: os.setsid()\nwhile True: os.write(2, b'x' * 65536)")
    assert.is_false(ok)
    assert.are.equal(413, err.status_code)
    attack:run("yes & yes >&2 & true")
    attack:during(function() lbox.sleep(300) end)
    local lines = select(2, attack.server:said():sub(said + 1):gsub("\n[^\nGP][^\n]*", ""))
    assert.is_true(lines < 20, lines)
  end)

  it("the server's time: a custom harness that never ends", function()
    attack.box.files:write { path = "/home/boxuser/agent.sh",
      content = "trap '' TERM INT; setsid sleep 4251 & sleep 4252" }
    local ok, err = attack:during(function()
      return pcall(attack.box.agent.run, attack.box.agent, { prompt = "x", timeout = 500 })
    end)
    assert.is_false(ok)
    assert.are.equal("timeout", err.kind)
    lbox.timeout(5000, function()
      while select(2, attack:run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")):find("sleep 425[12]") do
        lbox.sleep(50)
      end
    end)
  end)

  it("the server's time and memory: a custom harness that floods", function()
    for _, agent in ipairs { "yes 'event: text\ndata: {\"text\":\"" .. ("spam"):rep(2000) .. "\"}\n'", "cat /dev/zero",
      "yes ''", "yes 'event: tool'", "printf 'data: '; yes | tr -d '\\n'" } do
      attack.box.files:write { path = "/home/boxuser/agent.sh", content = agent }
      local before = resident()
      attack:during(function()
        return pcall(attack.box.agent.run, attack.box.agent, { prompt = "x", timeout = 600 })
      end)
      assert.is_true(resident() - before < SERVER_KB, agent:sub(1, 40))
    end
  end)
end)
