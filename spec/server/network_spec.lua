-- What a box reaches by its network policy: on a machine of its own, with an internet of its own.
local lbox = require "lbox"
local outsides = require "spec.support.outside"
local support = require "spec.support.local"

local FETCH = "curl -s -m 5 -w ' %%{http_code} %%{http_connect} %%{exitcode}' %s"

local function fetch(outside, id, args)
  return outside:run(id, FETCH:format(args))
end

-- Reads ticks until they end, for at most five seconds, and says how that was.
local TICKS = [[python3 - <<'E'
import socket, time
s = socket.create_connection(("93.184.216.34", 7000), 5); s.settimeout(5)
open("/tmp/begun", "w").close()
end = time.time() + 5
try:
    while time.time() < end:
        if not s.recv(100): print("closed"); break
    else: print("lasted")
except Exception as e: print("broken", type(e).__name__)
E]]

-- The same through the proxy.
local TUNNEL = [[s = socket.create_connection(("127.0.0.1", 3128), 5)
s.sendall(b"CONNECT 93.184.216.34:7000 HTTP/1.1\r\n\r\n"); assert b" 200 " in s.recv(100)]]

local function policies(name, opts)
  describe("the network of a box of " .. name, function()
    local outside

    setup(function() outside = outsides.start(opts) end)
    teardown(function() outside:stop() end)

    it("is the internet unless something else is asked for", function()
      local id, told = outside:box()
      assert.are.same({ mode = "allow-all" }, told.network_policy)
      assert.matches("^hello from 93.184.216.34 / host=ok.test .* 200 ", fetch(outside, id, "http://ok.test/"))
      assert.matches("^hello from 93.184.216.35", fetch(outside, id, "-k https://93.184.216.35/"))
      assert.matches("no name", outside:run(id, "getent hosts nothing.test || echo no name"))
      assert.matches("info network: the policy is allow%-all", outside:logs(id))
    end)

    it("is its loopback with deny-all", function()
      local id, told = outside:box { mode = "deny-all" }
      assert.are.same({ mode = "deny-all" }, told.network_policy)
      assert.matches("000 000 7", fetch(outside, id, "http://93.184.216.34/"))
      assert.matches("000 000 6", fetch(outside, id, "http://ok.test/"))
      assert.matches("^%s*lo:[^\n]*\n$", outside:run(id, "tail -n +3 /proc/net/dev"))
      assert.matches("200", outside:run(id, "cd /tmp && python3 -m http.server 8000 >/dev/null 2>&1 & sleep 0.7; "
        .. "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8000/; kill $!"))
    end)

    it("is what a custom policy names, by a proxy that programs are told of", function()
      local policy = { mode = "custom", allowed_domains = { "ok.test", "*.sub.test" },
        allowed_cidrs = { "93.184.216.35/32" } }
      local id, told = outside:box(policy)
      assert.are.same(policy, told.network_policy)
      assert.matches("^hello from 93.184.216.34 / host=ok.test sent=\n 200", fetch(outside, id, "http://ok.test/"))
      assert.matches("hello from 93.184.216.34", fetch(outside, id, "-k https://ok.test/"))
      assert.matches("hello from 93.184.216.35", fetch(outside, id, "-k https://a.sub.test/"))
      assert.matches("hello from 93.184.216.35", fetch(outside, id, "http://93.184.216.35/"))
      assert.matches("hello from 93.184.216.35", fetch(outside, id, "http://other.test/")) -- by its address
      assert.matches("sent=some words", fetch(outside, id, "-d 'some words' http://ok.test/x"))
      assert.matches("sent=in chunks", outside:run(id,
        "curl -s -H 'Transfer-Encoding: chunked' -d 'in chunks' http://ok.test/y"))
      assert.matches("refuses 93.184.216.34:80: .* 403", (fetch(outside, id, "http://93.184.216.34/"):gsub("\n", "")))
      assert.matches("000 403 56", fetch(outside, id, "https://93.184.216.34/"))
      -- Nothing but the proxy leads out.
      assert.matches("000 000 7", fetch(outside, id, "--noproxy '*' http://93.184.216.34/"))
      local env = outside:run(id, "env")
      for _, line in ipairs { "HTTP_PROXY=http://127.0.0.1:3128", "HTTPS_PROXY=http://127.0.0.1:3128",
        "http_proxy=http://127.0.0.1:3128", "https_proxy=http://127.0.0.1:3128", "NO_PROXY=localhost,127.0.0.1",
        "NODE_USE_ENV_PROXY=1" } do
        assert.is_truthy(env:find(line .. "\n", 1, true), line)
      end
      local logs = outside:logs(id)
      assert.is_truthy(logs:find("info network: connected to ok.test:443: 93.184.216.34\n", 1, true), logs)
      assert.is_truthy(logs:find("warn network: refused 93.184.216.34:443: neither the name is in allowed_domains nor "
        .. "the address in allowed_cidrs\n", 1, true), logs)
    end)

    it("is less where an address is denied, whatever else allows it", function()
      local id = outside:box { mode = "custom", allowed_domains = { "ok.test" }, allowed_cidrs = { "93.184.216.0/24" },
        denied_cidrs = { "93.184.216.34" } }
      assert.matches("denied_cidrs.* 403 ", (fetch(outside, id, "http://ok.test/"):gsub("\n", "")))
      assert.matches("^hello from 93.184.216.35", fetch(outside, id, "http://93.184.216.35/"))
    end)

    it("changes while the box runs, and ends what the new policy does not allow", function()
      local id = outside:box { mode = "deny-all" }
      local custom = { mode = "custom", allowed_cidrs = { "93.184.216.34/32" } }
      assert.matches("000 000 7", fetch(outside, id, "http://93.184.216.34/"))
      assert.are.equal(200, (outside:set_policy(id, { mode = "allow-all" })))
      assert.matches("^hello", fetch(outside, id, "http://93.184.216.34/"))
      assert.are.equal("allow-all", select(2, outside:ask("GET", "/" .. id)).network_policy.mode)
      outside:run(id, ("rm -f /tmp/begun; { %s\n} >/tmp/ticks 2>&1 & "):format(TICKS)
        .. "while ! [ -e /tmp/begun ]; do sleep 0.05; done")
      assert.are.equal(200, (outside:set_policy(id, custom)))
      assert.matches("broken", outside:run(id, "sleep 0.5; cat /tmp/ticks"))
      assert.matches("^hello", fetch(outside, id, "http://93.184.216.34/"))
      assert.matches("000 000 7", fetch(outside, id, "--noproxy '*' http://93.184.216.34/"))
      outside:run(id, ("rm -f /tmp/begun; { %s\n} >/tmp/ticks 2>&1 & "):format(TICKS:gsub("s = [^\n;]+", TUNNEL))
        .. "while ! [ -e /tmp/begun ]; do sleep 0.05; done")
      assert.are.equal("", outside:run(id, "sleep 0.3; cat /tmp/ticks"))
      assert.are.equal(200, (outside:set_policy(id, { mode = "custom", allowed_domains = { "ok.test" } })))
      assert.matches("closed", outside:run(id, "sleep 0.3; cat /tmp/ticks"))
      assert.matches("the connection to 93.184.216.34 was ended: the policy has changed", outside:logs(id), 1, true)
      assert.are.equal(200, (outside:set_policy(id, { mode = "deny-all" })))
      assert.matches("000 000 7", fetch(outside, id, "-x http://127.0.0.1:3128 http://ok.test/"))
    end)

    it("is kept over a pause, and set in one", function()
      local id = outside:box { mode = "custom", allowed_domains = { "ok.test" } }
      outside:run(id, "true")
      assert.are.equal(200, (outside:ask("POST", "/" .. id .. "/pause")))
      assert.matches("^hello", fetch(outside, id, "http://ok.test/"))
      outside:ask("POST", "/" .. id .. "/pause")
      assert.are.equal(200, (outside:set_policy(id, { mode = "allow-all" })))
      assert.are.equal("paused", select(2, outside:ask("GET", "/" .. id .. "/status")).status)
      assert.matches("^hello from 93.184.216.35", fetch(outside, id, "http://93.184.216.35/"))
    end)

    it("is given to boxes of snapshots and to ephemeral ones", function()
      local id = outside:box()
      local _, snapshot = outside:ask("POST", "/" .. id .. "/snapshots", { name = "x" })
      for _ = 1, 100 do
        if select(2, outside:ask("GET", "/" .. id .. "/snapshots")).snapshots[1].status == "ready" then
          break
        end
        lbox.sleep(50)
      end
      local status, made = outside:ask("POST", "/from-snapshot", { snapshot_id = snapshot.id,
        network_policy = { mode = "deny-all" } })
      assert.are.equal(200, status)
      assert.are.same({ mode = "deny-all" }, made.network_policy)
      local short, told = outside:box({ mode = "custom", allowed_domains = { "ok.test" } }, { ephemeral = true })
      assert.are.equal("custom", told.network_policy.mode)
      assert.matches("^hello", fetch(outside, short, "http://ok.test/"))
    end)

    it("is gone with the box, and with a server that is killed", function()
      local id = outside:box()
      outside:run(id, "true")
      local function helpers()
        return (support.sh(("for p in $(cat /proc/%s/task/%s/children); do "
          .. "echo $p $(tr '\\0' ' ' </proc/$p/cmdline); done"):format(outside.pid, outside.pid)))
      end
      local before = helpers()
      assert.matches("lbox%-init net", before)
      assert.matches("slirp4netns", before)
      for _, row in ipairs(select(2, outside:ask("GET", ""))) do
        outside:ask("POST", "/" .. row.id .. "/pause")
      end
      lbox.sleep(300)
      assert.not_matches("slirp4netns", helpers())
      assert.not_matches("lbox%-init", helpers())
      outside:run(id, "true")
      local pids = {}
      for pid in helpers():gmatch("(%d+) [^\n]*") do
        pids[#pids + 1] = pid
      end
      assert.is_true(#pids >= 3)
      outside:kill("KILL")
      lbox.sleep(500)
      for _, pid in ipairs(pids) do
        assert.are.equal("", (support.sh("tr -d '\\0' </proc/" .. pid .. "/cmdline 2>/dev/null || true")), pid)
      end
      outside:serve()
      assert.matches("^hello", fetch(outside, id, "http://ok.test/"))
    end)

    it("is there again after slirp4netns has died, and the log says so", function()
      local id = outside:box()
      assert.matches("^hello", fetch(outside, id, "http://ok.test/"))
      local slirp = outside:helper("slirp4netns")
      support.sh("kill -9 " .. slirp)
      lbox.sleep(300)
      assert.matches("000 000", fetch(outside, id, "http://93.184.216.34/"))
      lbox.sleep(1500)
      assert.matches("^hello", fetch(outside, id, "http://ok.test/"))
      assert.matches("error network: slirp4netns has ended: by signal 9", outside:logs(id))
    end)

    it("can have the custom policy again at once after its proxy was used", function()
      local id = outside:box { mode = "deny-all" }
      for _ = 1, 3 do
        assert.are.equal(200, (outside:set_policy(id, { mode = "custom", allowed_domains = { "ok.test" } })))
        assert.matches("^hello", outside:run(id, "curl -s -x http://127.0.0.1:3128 http://ok.test/"))
        assert.are.equal(200, (outside:set_policy(id, { mode = "deny-all" })))
      end
    end)

    it("is its loopback when what holds it has ended, until the box starts again, and the log says so", function()
      local id = outside:box()
      assert.matches("^hello", fetch(outside, id, "http://ok.test/"))
      support.sh("kill -9 " .. outside:helper("lbox-init net"))
      lbox.sleep(300)
      assert.matches("000 000", fetch(outside, id, "http://93.184.216.34/"))
      assert.matches("error network: the process that holds it has ended", outside:logs(id))
      assert.are.equal(200, (outside:set_policy(id, { mode = "deny-all" })))
      local status, answer = outside:set_policy(id, { mode = "allow-all" })
      assert.are.equal(500, status)
      assert.matches("until it is paused and starts again", answer.error)
      outside:ask("POST", "/" .. id .. "/pause")
      assert.matches("^hello", fetch(outside, id, "http://ok.test/"))
    end)

    it("can be set while the box is paused at the same time", function()
      local id = outside:box()
      for i = 1, 10 do
        outside:run(id, "true")
        local set = support.sh(([[api() { curl -s -o /dev/null -w '%%{http_code}' --unix-socket %s/data/sock "$@"; }
          url=http://localhost/v2/box/%s; api -X POST $url/pause >/dev/null & sleep 0.00%d
          api -X PUT -d '{"mode":"%s"}' $url/config/network-policy; wait]]):format(outside.dir, id, i,
          i % 2 == 0 and "allow-all" or "deny-all"))
        assert.are.equal("200", set)
      end
      assert.matches("^hello", fetch(outside, id, "http://ok.test/"))
    end)
  end)
end

describe("a network policy", function()
  local server

  setup(function() server = support.start() end)
  teardown(function() server:stop() end)

  it("that is none is refused, and says what is wrong", function()
    local list = {}
    for i = 1, 257 do
      list[i] = '"a' .. i .. '.test"'
    end
    for body, message in pairs {
      ['{}'] = 'the field \\"mode\\" is required',
      ['{"mode":"some"}'] = 'the mode \\"some\\" is none of allow-all, deny-all, custom',
      ['{"mode":"deny-all","allowed_domains":["a.test"]}'] = "allowed_domains goes with the mode custom",
      ['{"mode":"custom","allowed_domains":["a b"]}'] = 'allowed_domains: \\"a b\\" is not a name',
      ['{"mode":"custom","allowed_domains":["*"]}'] = 'allowed_domains: \\"*\\" is not a name',
      ['{"mode":"custom","allowed_domains":["a.*.test"]}'] = 'is not a name',
      ['{"mode":"custom","allowed_cidrs":["1.2.3.4/33"]}'] = 'allowed_cidrs: \\"1.2.3.4\\/33\\" is not an address',
      ['{"mode":"custom","denied_cidrs":["a.test"]}'] = 'denied_cidrs: \\"a.test\\" is not an address',
      ['{"mode":"custom","allowed_domains":[' .. table.concat(list, ",") .. ']}'] = "has 257 entries: at most 256",
    } do
      local status, answer = server:ask("POST", "/v2/box", '{"network_policy":' .. body .. "}")
      assert.are.equal(400, status, body)
      assert.is_truthy(answer:find(message, 1, true), answer)
    end
    assert.are.equal(0, #lbox.Box.list(server:client()))
  end)

  it("may leave lists out by null", function()
    local status, answer = server:ask("POST", "/v2/box", '{"network_policy":{"mode":"deny-all",'
      .. '"allowed_domains":null,"allowed_cidrs":null,"denied_cidrs":null}}')
    assert.are.equal(200, status)
    assert.is_truthy(answer:find('"network_policy":{"mode":"deny-all"}', 1, true), answer)
  end)

  it("cannot come with headers to attach", function()
    for _, body in ipairs { '{"attach_headers":{"a.test":{"X":"y"}}}',
      '{"ephemeral":true,"attach_headers":{"a.test":{"X":"y"}}}' } do
      local status, answer = server:ask("POST", "/v2/box", body)
      assert.are.equal(501, status)
      assert.matches("attach_headers", answer)
    end
  end)
end)

describe("a machine without slirp4netns", function()
  local server, path

  setup(function()
    path = support.directory()
    support.sh(("ln -s $(command -v bwrap) %s/bwrap"):format(path))
    server = support.start { prefix = "env PATH=" .. path }
  end)
  teardown(function()
    server:stop()
    support.sh("rm -r " .. path)
  end)

  it("gives boxes their loopback, and says so", function()
    local status, answer = server:ask("POST", "/v2/box", "{}")
    assert.are.equal(200, status)
    assert.is_truthy(answer:find('"network_policy":{"mode":"deny-all"}', 1, true), answer)
    assert.is_truthy(server:said():find("boxes have no internet here: the program slirp4netns is not on PATH; "
      .. "fix: apt-get install slirp4netns", 1, true), server:said())
    local box = lbox.Box.list(server:client())[1]
    assert.are.equal("works\n", lbox.Box.get(box.id, server:client()).exec:command("echo works").result)
  end)

  it("refuses the internet to who asks for it, and says what to install", function()
    local box = lbox.Box.create(server:client())
    for _, ask in ipairs { { "POST", "/v2/box", '{"network_policy":{"mode":"allow-all"}}' },
      { "PUT", "/v2/box/" .. box.id .. "/config/network-policy", '{"mode":"allow-all"}' } } do
      local status, answer = server:ask(table.unpack(ask))
      assert.are.equal(501, status)
      assert.is_truthy(answer:find("fix: apt-get install slirp4netns", 1, true), answer)
    end
    assert.are.equal("deny-all", lbox.Box.get(box.id, server:client()).network_policy.mode)
  end)

  it("keeps custom policies all the same", function()
    local box = lbox.Box.create(server:client { network_policy = { mode = "custom", allowed_domains = { "ok.test" } } })
    assert.matches("refuses other.test:80: the name is not in allowed_domains",
      box.exec:command("curl -s http://other.test/").result, 1, true)
  end)

  it("is named by the doctor", function()
    local text, status = support.sh(("env PATH=%s %s doctor"):format(path, support.program))
    assert.matches("no internet %(deny%-all%): the program slirp4netns is not on PATH\n[^\n]*apt%-get install", text)
    assert.are.equal(0, status)
  end)
end)

-- Two namespaces and a pair of devices take root; who is not root has the rest of this file.
if support.sh("id -u"):match("^0") then
  policies("root", {})
  describe("a machine whose /dev/net/tun is root's alone", function()
    local outside

    teardown(function() outside:stop() end)

    it("gives the boxes of an ordinary user no internet, and says how it could", function()
      outside = outsides.start { as_user = true,
        prepare = "mount -t tmpfs -o mode=755 none /dev/net && mknod -m 600 /dev/net/tun c 10 200" }
      local _, told = outside:box()
      assert.are.same({ mode = "deny-all" }, told.network_policy)
      local status, answer = outside:ask("POST", "", { network_policy = { mode = "allow-all" } })
      assert.are.equal(501, status)
      assert.matches("/dev/net/tun cannot be opened by this user; fix: sudo chmod 666 /dev/net/tun", answer.error,
        1, true)
      local id = outside:box { mode = "custom", allowed_domains = { "ok.test" } }
      assert.matches("^hello", fetch(outside, id, "http://ok.test/"))
    end)
  end)
  policies("an ordinary user", { as_user = true,
    prepare = "mount -t tmpfs -o mode=755 none /dev/net && mknod -m 666 /dev/net/tun c 10 200" })
end
