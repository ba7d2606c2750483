-- What no box must reach by the network, whatever its policy is, each tried from inside. Needs root, for a
-- machine and an internet of its own.
local lbox = require "lbox"
local outsides = require "spec.support.outside"
local support = require "spec.support.local"

-- Sends datagrams in every way that does not ask the routes of the sender.
local DATAGRAMS = [[python3 - <<'E'
import socket, struct, fcntl
def index(): return socket.if_nametoindex("eth0")
def plain(s): pass
def device(s): s.setsockopt(socket.SOL_SOCKET, 25, b"eth0")
def unicast_if(s): s.setsockopt(socket.IPPROTO_IP, 50, struct.pack("!I", index()))
def group_if(s):
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("4s4si", b"\0" * 4, b"\0" * 4, index()))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 9)
def loose_route(s):
    s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([131, 7, 4]) + socket.inet_aton(via) + b"\0")
for to in ("239.255.255.250", "224.0.0.251", "255.255.255.255", "192.168.77.1", "10.0.2.255", "10.0.3.3", "10.0.2.2",
           "93.184.216.1", "169.254.169.254"):
    for via in "93.184.216.34", "10.0.2.2":
        for how in plain, device, unicast_if, group_if, loose_route:
            for flags in 0, socket.MSG_DONTROUTE:
                s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                try:
                    how(s)
                    s.sendto(("%s by %s" % (to, how.__name__)).encode(), flags, (to, 1900))
                except OSError: pass
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b"allowed", ("93.184.216.34", 1900))
E
sleep 0.5]]

-- Connects in such ways, and says to what it was connected.
local CONNECTIONS = [[python3 - <<'E'
import socket, struct
for to, port in (("169.254.169.254", 80), ("192.168.77.1", 80), ("10.7.7.7", 80), ("10.0.2.2", 8080),
                 ("10.0.2.3", 8080), ("10.0.2.3", 80), ("93.184.216.1", 8080), ("10.0.2.100", 8080),
                 ("10.0.3.1", 8080)):
    for way in "plain", "device", "unicast_if", "options":
        s = socket.socket(); s.settimeout(0.4)
        try:
            if way == "device": s.setsockopt(socket.SOL_SOCKET, 25, b"eth0")
            if way == "unicast_if":
                s.setsockopt(socket.IPPROTO_IP, 50, struct.pack("!I", socket.if_nametoindex("eth0")))
            if way == "options":
                s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS,
                             bytes([131, 7, 4]) + socket.inet_aton("93.184.216.34") + b"\0")
            s.connect((to, port)); s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            if s.recv(1): print(to, port, way)
        except OSError: pass
E
echo end]]

local function attacks(name, opts)
  describe("with the internet, a box of " .. name, function()
    local outside, id

    setup(function()
      outside = outsides.start(opts)
      id = outside:box { mode = "allow-all" }
    end)
    teardown(function() outside:stop() end)

    local function code(where)
      return outside:run(id, ("curl -s -m 1 -o /dev/null -w '%%{http_code}' 'http://%s/'"):format(where))
    end

    it("does not reach this machine, private networks or the metadata of clouds", function()
      assert.are.equal("end\n", outside:run(id, CONNECTIONS))
      for _, host in ipairs { "loop.test", "meta.test", "own.test", "lan.test", "[::ffff:192.168.77.1]", "[::1]", "0",
        "[64:ff9b::c0a8:4d01]" } do
        for _, port in ipairs { 80, 8080 } do
          assert.are.equal("000", code(host .. ":" .. port), host)
        end
      end
      assert.are.equal("200", code("93.184.216.34"))
    end)

    it("does not reach an address that this machine gets while the box runs", function()
      support.sh(("ip -n %s addr add 93.184.216.77/32 dev lo"):format(outside.machine))
      lbox.sleep(300)
      assert.are.equal("200", (support.sh(("ip netns exec %s curl -s -o /dev/null -w '%%{http_code}' "
        .. "http://93.184.216.77:8080/"):format(outside.machine))))
      assert.are.equal("000", code("93.184.216.77:8080"))
    end)

    it("does not reach another box by its public URL", function()
      local other = outside:box { mode = "deny-all" }
      outside:run(other, "cd /tmp; setsid python3 -m http.server 8000 >/dev/null 2>&1 </dev/null & sleep 1")
      local _, told = outside:ask("POST", "/" .. other .. "/preview", { port = 8000 })
      local url = assert(told.url, told.error)
      assert.are.equal("200", (support.sh(("ip netns exec %s curl -s -o /dev/null -w '%%{http_code}' %s/"):format(
        outside.machine, url))))
      for _, host in ipairs { "127.0.0.1", "10.0.2.2", "10.0.2.3", "93.184.216.1" } do
        assert.are.equal("000", code(host .. ":" .. url:match(":(%d+)")))
      end
    end)

    it("sends nothing to groups, to everybody, or past the routes", function()
      outside:run(id, DATAGRAMS)
      assert.are.equal("allowed\n", outside:noted("heard"))
    end)

    it("cannot change its routes, addresses or devices, nor make packets of its own", function()
      for _, command in ipairs { "ip route del prohibit 192.168.0.0/16", "ip route replace 192.168.77.1 via 10.0.3.1",
        "ip addr add 10.0.2.7/24 dev eth0", "ip link set eth0 down", "ip rule add prio 1 lookup main",
        "ip link add x0 type veth", "ip neigh add 192.168.77.1 lladdr 2:0:0:0:0:1 dev eth0",
        "unshare -Urn true", "unshare -Ur ip link set lo down" } do
        assert.matches("not permitted", outside:run(id, "PATH=$PATH:/usr/sbin:/sbin; " .. command), 1, true, command)
      end
      for _, kind in ipairs { "socket.AF_INET, socket.SOCK_RAW, 255", "socket.AF_INET, socket.SOCK_RAW, 1",
        "socket.AF_PACKET, socket.SOCK_RAW, 3", "socket.AF_NETLINK, socket.SOCK_RAW, 12" } do
        assert.matches("Error", outside:run(id, ("python3 -c 'import socket; socket.socket(%s)'"):format(kind)))
      end
      assert.not_matches("1", outside:run(id, "echo 1 > /proc/sys/net/ipv4/ip_forward; "
        .. "cat /proc/sys/net/ipv4/ip_forward"):match("[^\n]*\n$"))
      assert.are.equal("1\n", outside:run(id, "for n in /proc/[0-9]*/ns/net; do readlink $n; done | sort -u | wc -l"))
    end)

    it("is held by processes that have no power over this machine", function()
      local slirp = outside:helper("slirp4netns")
      local status = support.sh(("cat /proc/%s/status"):format(slirp))
      assert.not_matches("\nUid:\t0", status)
      assert.matches("\nSeccomp:\t2", status)
      assert.matches("\nCapEff:\t0000000000000400", status)
      -- It has a root of its own with nothing in it but what it reads names with.
      assert.are.equal("etc run ", (support.sh(("ls /proc/%s/root/ | tr '\\n' ' '"):format(slirp))))
      for _, part in ipairs { "lbox-init net", "bwrap" } do
        assert.not_matches("\nUid:\t0", (support.sh(("cat /proc/%s/status"):format(assert(outside:helper(part))))))
      end
    end)
  end)

  describe("with a custom policy, a box of " .. name, function()
    local outside, id

    local function fetch(args)
      return (outside:run(id, "curl -s -m 5 -w ' %{http_code} %{http_connect} %{exitcode}' " .. args):gsub("\n", ""))
    end
    -- What the proxy answers to bytes, as Python writes them.
    local function say(bytes)
      return outside:run(id, ([[python3 - <<'E'
import socket
s = socket.create_connection(("127.0.0.1", 3128), 5); s.settimeout(1); s.sendall(%s)
b = b""
try:
    while True:
        x = s.recv(65536)
        if not x: break
        b += x
except OSError: pass
print(b.decode("latin1"))
E]]):format(bytes))
    end

    setup(function() outside = outsides.start(opts) end)
    before_each(function()
      id = outside:box { mode = "custom", allowed_domains = { "ok.test", "loop.test", "meta.test", "own.test",
        "lan.test", "2130706433", "0x7f000001", "127.1" }, allowed_cidrs = { "127.0.0.0/8", "169.254.0.0/16",
        "192.168.0.0/16", "93.184.216.1/32", "::/0" } }
    end)
    after_each(function() outside:ask("DELETE", "/" .. id) end)
    teardown(function() outside:stop() end)

    it("reaches nothing that is special or this machine's, by whatever name", function()
      for _, host in ipairs { "loop.test", "meta.test", "own.test", "lan.test", "127.0.0.2", "2130706433", "0x7f000001",
        "127.1", "169.254.169.254", "192.168.77.1", "93.184.216.1", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[::1]",
        "[64:ff9b::7f00:1]", "[fe80::1]", "[2002:7f00:1::]" } do
        for _, port in ipairs { 80, 8080 } do
          assert.matches("403 000 0$", fetch(("--noproxy '' 'http://%s:%d/'"):format(host, port)))
        end
        assert.matches("000 403 56$", fetch(("--noproxy '' 'https://%s/'"):format(host)))
      end
    end)

    it("does not ask the name server for what it may not reach", function()
      local strict = outside:box { mode = "custom", allowed_domains = { "ok.test" } }
      assert.matches("403.*403", outside:run(strict,
        "curl -s -w '%{http_code}' http://secret.other.test/ http://x.ok.test/"))
      assert.not_matches("secret", outside:noted("asked"))
      assert.not_matches("x.ok", outside:noted("asked"), 1, true)
    end)

    it("does not get one name by another one's tunnel", function()
      assert.matches("^hello", fetch("-k https://ok.test/"))
      assert.matches(" 000 200 35$", fetch("-k --connect-to other.test:443:ok.test:443 https://other.test/"))
      assert.matches(" 000 200 35$", fetch("-k --connect-to 93.184.216.34:443:ok.test:443 https://93.184.216.34/"))
      -- Nor without TLS, or with half a hello.
      assert.not_matches("hello", say([[b"CONNECT ok.test:443 HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n"]]))
      assert.not_matches("hello", say([[b"CONNECT ok.test:443 HTTP/1.1\r\n\r\n\x16\x03\x01\x00\x04\x01\x00\x00\x00"]]))
      local logs = outside:logs(id)
      assert.is_truthy(logs:find("warn network: refused ok.test:443: it asks for other.test by TLS\n", 1, true), logs)
      assert.is_truthy(logs:find("warn network: refused ok.test:443: it asks for no name by TLS\n", 1, true), logs)
      assert.is_truthy(logs:find("warn network: refused ok.test:443: it is not TLS\n", 1, true), logs)
    end)

    it("gets nothing past the proxy by requests that can be read in two ways", function()
      local before = #outside:noted("requests")
      for _, each in ipairs {
        { "400", [[b"GET http://ok.test@other.test/ HTTP/1.1\r\n\r\n"]] },
        { "400", [[b"GET http://other.test#ok.test/ HTTP/1.1\r\n\r\n"]] },
        { "403", [[b"GET http://other.test?ok.test/ HTTP/1.1\r\n\r\n"]] },
        { "400", [[b"GET http://ok.test:80:80/ HTTP/1.1\r\n\r\n"]] },
        { "400", [[b"GET http://[ok.test]/ HTTP/1.1\r\n\r\n"]] },
        { "400", [[b"GET http://ok.test%2eother.test/ HTTP/1.1\r\n\r\n"]] },
        { "400", [[b"GET https://ok.test/ HTTP/1.1\r\n\r\n"]] },
        { "400", [[b"GET / HTTP/1.1\r\nHost: ok.test\r\n\r\n"]] },
        { "400", [[b"CONNECT ok.test HTTP/1.1\r\n\r\n"]] },
        { "400", [[b"CONNECT ok.test:0 HTTP/1.1\r\n\r\n"]] },
        { "400", [[b"CONNECT ok.test:99999 HTTP/1.1\r\n\r\n"]] },
        { "400", [[b"GET http://ok.test/ HTTP/1.1\r\nContent-Length: 5\r\n"
b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]] },
        { "400", [[b"GET http://ok.test/ HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456"]] },
        { "400", [[b"GET http://ok.test/ HTTP/1.1\nHost: ok.test\n\n\r\n\r\n"]] },
        { "431", [[b"GET http://ok.test/ HTTP/1.1\r\nX: " + b"x" * 40000 + b"\r\n\r\n"]] },
      } do
        assert.matches("^HTTP/1.1 " .. each[1] .. " ", say(each[2]), 1, false, each[2])
      end
      assert.are.equal(before, #outside:noted("requests"))
      -- The Host is the one of the target, and a second request on the connection is nobody's.
      local text = say([[b"GET http://ok.test/1 HTTP/1.1\r\nHost: other.test\r\n\r\n"
b"GET http://other.test/2 HTTP/1.1\r\n\r\n"]])
      assert.matches("hello from 93.184.216.34 /1 host=ok.test", text, 1, true)
      assert.not_matches("/2", text, 1, true)
      assert.not_matches("/2", outside:noted("requests"), 1, true)
    end)

    it("does not flood its log", function()
      local strict = outside:box { mode = "custom", allowed_domains = { "ok.test" } }
      local said = outside:run(strict, [[python3 - <<'E'
import socket
for i in range(300):
    s = socket.create_connection(("127.0.0.1", 3128), 5)
    s.sendall(b"CONNECT %d.bad.test:443 HTTP/1.1\r\n\r\n" % (i if i % 2 else 0)); s.recv(100); s.close()
E]])
      assert.are.equal("", said)
      local logs = outside:logs(strict)
      assert.is_true(select(2, logs:gsub("\n", "\n")) < 120, logs)
      assert.matches("more than can be told %(%d+ times%)", logs)
    end)
  end)
end

if support.sh("id -u"):match("^0") then
  attacks("root", {})
  attacks("an ordinary user", { as_user = true,
    prepare = "mount -t tmpfs -o mode=755 none /dev/net && mknod -m 666 /dev/net/tun c 10 200" })
end
