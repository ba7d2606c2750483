-- Attacks from inside of a box: on the server, on the host's processes, on other boxes.
local attacks = require "spec.support.attacks"
local lbox = require "lbox"
local support = require "spec.support.local"

describe("an attack on others:", function()
  local attack

  setup(function()
    attack = attacks.start()
  end)

  teardown(function()
    attack:stop()
  end)

  after_each(function()
    attack:check()
  end)

  it("reading the server's data, its key, another box or the host's files", function()
    local dir = attack.server.dir
    for _, path in ipairs { attack.secret, dir .. "/data/key", dir .. "/data/lbox.db", dir .. "/data",
      ("%s/data/boxes/%s/root/workspace/home/mine"):format(dir, attack.other.id), "/etc/shadow", "/root", "/sys/kernel",
      "/var/log", support.program } do
      local code, text = attack:run(("cat %s; ls %s/."):format(path, path))
      assert.are_not.equal(0, code, path)
      assert.is_false(attack:is_told(text), path)
      assert.not_matches("untouched", text)
    end
    assert.are.equal("boxuser\n", select(2, attack:run("ls /home")))
    assert.are.equal("lbox\n", select(2, attack:run("ls /run")))
    local _, text = attack:run("find / -xdev -name '*.db' -o -xdev -name key; env; cat /proc/self/mountinfo; "
      .. "cat /proc/self/environ /proc/*/cmdline | tr '\\0' ' '")
    assert.is_false(attack:is_told(text), text)
  end)

  it("seeing, signalling or tracing processes of the host or of another box", function()
    local _, text = attack:run("ls -d /proc/[0-9]* | wc -l")
    assert.is_true(tonumber(text) < 15, text)
    assert.not_matches("serve", select(2, attack:run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")))
    _, text = attack:python(([[
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
for pid in list(range(300, 4000)) + [%s]:
    if os.path.exists('/proc/%%d' %% pid): continue
    try:
        os.kill(pid, signal.SIGKILL)
        print('killed', pid)
    except ProcessLookupError: pass
    if libc.ptrace(16, pid, 0, 0) == 0: print('traced', pid)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.kill(-1, signal.SIGTERM)
]]):format(attack.server.pid))
    assert.are.equal("", text)
    attack:run("kill -9 1; kill -STOP 1; kill -9 -1; true")
    assert.are.equal(0, select(2, support.sh("kill -0 " .. attack.server.pid)))
  end)

  it("reaching the server's socket, or another box by a socket or shared memory", function()
    local _, text = attack:python(([[
import os, socket
for path in '%s/data/sock', '\0lbox', '\0other':
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET:
        try:
            socket.socket(socket.AF_UNIX, kind).connect(path)
            print('connected', path)
        except OSError: pass
]]):format(attack.server.dir))
    assert.are.equal("", text)
    -- An abstract socket of another box is in another network namespace, a segment in another of IPC.
    attack.other.exec:command("nohup python3 -c \"import socket, time; s = socket.socket(socket.AF_UNIX); "
      .. "s.bind('\\0other'); s.listen(); time.sleep(3)\" >/dev/null 2>&1 & ipcmk -M 4096; sleep 0.2")
    _, text = attack:python([[
import socket
try:
    socket.socket(socket.AF_UNIX).connect('\0other')
    print('connected')
except OSError: pass
]])
    assert.are.equal("", text)
    assert.are.equal("0\n", select(2, attack:run("ipcs -m | grep -c boxuser || true")))
  end)

  it("children in sessions of their own, double-forked, after a timeout", function()
    local run = attack.box.exec:code { lang = "python", timeout = 400, code = [[
import os, sys, time
print("begun", flush=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("setsid", ["setsid", "sleep", "77"])
    os._exit(0)
time.sleep(60)]] }
    assert.are.equal(124, run.exit_code)
    assert.are.equal("begun\n", run.stdout)
    assert.matches("timed out", run.stderr)
    assert.not_matches("sleep 77", select(2, attack:run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")))
  end)

  it("DNS rebinding, through a public URL and at the server itself", function()
    attack:run("nohup python3 -m http.server 8000 >/dev/null 2>&1 &")
    local url = attack.box:get_public_url(8000).url
    local function status(at, host, more)
      return (support.sh(("curl -s -m 10 -o /dev/null -w '%%{http_code}' -H 'Host: %s' %s %s/"):format(host, more or "",
        at)))
    end
    local port = url:match(":(%d+)$")
    lbox.timeout(5000, function()
      while status(url, "127.0.0.1:" .. port) ~= "200" do
        lbox.sleep(50)
      end
    end)
    for _, host in ipairs { "evil.example", "evil.example:" .. port, "127.0.0.1.evil.example:" .. port,
      "localhost.evil.example:" .. port, "127.0.0.1:1" } do
      assert.are.equal("403", status(url, host), host)
    end
    for _, host in ipairs { "evil.example", "127.0.0.1.evil.example", "localhost.evil.example" } do
      local key = ("-H 'X-Box-Api-Key: %s'"):format(attack.server.key)
      assert.are.equal("403", status(attack.server.url .. "/v2/box", host, key))
    end
    attack.box:delete_public_url(8000)
    attack:run("pkill -f http.serve[r]; true")
  end)

  it("staying after the server was killed", function()
    attack:run("setsid sleep 4242 & setsid sh -c 'sleep 4243 &'; true")
    local server = attack.server
    server:kill("KILL")
    lbox.timeout(3000, function()
      while support.sh("pgrep -f '^sleep 424[23]' || true") ~= "" do
        lbox.sleep(20)
      end
    end)
    local again = support.start { dir = server.dir }
    os.remove(server.log)
    attack.server = again
    attack.box = lbox.Box.get(attack.box.id, again:client())
    attack.other = lbox.Box.get(attack.other.id, again:client())
    attack.other.exec:command("nohup sleep 3600 >/dev/null 2>&1 &")
  end)
end)
