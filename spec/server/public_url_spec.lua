-- Public URLs of local boxes: real HTTP from this machine to programs in boxes.
local lbox = require "lbox"
local support = require "spec.support.local"
local Box = lbox.Box

-- Answers with what it was asked; /up upgrades and echoes, /big is 8 MiB, /early does not want the body, and of /half
-- the answer breaks off.
local APP = [[
import http.server, socketserver, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def serve(self):
        if self.path == "/up":
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
            for line in self.rfile:
                self.wfile.write(b"echo " + line)
            return
        if self.path == "/early":
            self.wfile.write(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nearly")
            self.close_connection = True
            return
        if self.path == "/half":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")
            self.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
            return
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                body += self.rfile.read(size)
                self.rfile.readline()
                if size == 0: break
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/big":
            out = b"x" * (8 << 20)
        else:
            out = ("%s %s auth=%s body=%d" % (self.command, self.path, self.headers.get("Authorization"),
                                              len(body))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(out)))
        self.end_headers()
        self.wfile.write(out)
    do_GET = do_POST = do_PUT = serve
    def log_message(self, *args): pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    address_family = 10 if ":" in sys.argv[1] else 2
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
]]

describe("a public URL of a local box", function()
  local server, box

  local function serve(port, address)
    box.files:write { path = "/opt/app.py", content = APP }
    box.exec:command(("python3 /opt/app.py %s %d >/dev/null 2>&1 & for i in $(seq 100); do "
      .. "python3 -c 'import socket; socket.create_connection((\"%s\", %d))' 2>/dev/null && break; done"):format(
      address or "127.0.0.1", port, address or "127.0.0.1", port))
  end

  --- What curl gets: body and status.
  local function get(url, more)
    local text = support.sh(("curl -s -m 20 -w '\n%%{http_code}' %s %s"):format(more or "", url))
    local body, status = text:match("^(.*)\n(%d+)$")
    return body, tonumber(status)
  end

  --- Sends bytes to a URL's port, in pieces of a size, and returns all that comes until the end, at most for
  --- 3 seconds.
  local function raw(url, bytes, seconds, size)
    local file = server.dir .. "/raw"
    local handle = assert(io.open(file, "wb"))
    handle:write(bytes)
    handle:close()
    return (support.sh(([[timeout %d python3 -c '
import socket, sys, time
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
data, size = open(sys.argv[2], "rb").read(), int(sys.argv[3])
for at in range(0, len(data), size):
    s.sendall(data[at:at + size])
    if size < 10: time.sleep(0.001)
while True:
    data = s.recv(65536)
    if not data: break
    sys.stdout.buffer.write(data); sys.stdout.flush()
' %s %s %d]]):format(seconds or 3, url:match("%d+$"), file, size or #bytes)))
  end

  setup(function()
    server = support.start()
    box = Box.create(server:client())
    serve(3000)
  end)

  teardown(function()
    server:stop()
  end)

  it("leads to a port of the box and is listed until it is deleted", function()
    local made = box:get_public_url(3000)
    assert.matches("^http://127%.0%.0%.1:%d+$", made.url)
    assert.are.same({ url = made.url, port = 3000 }, made)
    assert.are.equal("GET /a?b=c auth=None body=0", get(made.url .. "/a?b=c"))
    assert.are.equal("GET / auth=Mine body=0", get(made.url .. "/", "-H 'Authorization: Mine'"))
    assert.are.equal("GET / auth=None body=0", get(made.url:gsub("127.0.0.1", "localhost") .. "/"))
    local list = box:list_public_urls()
    assert.are.equal(1, #list)
    assert.are.equal(box.id .. "-3000", list[1].id)
    assert.are.equal(made.url, list[1].url)
    assert.is_false(list[1].bearer_token)
    assert.are.equal(made.url, box:get_public_url(3000).url)
    box:delete_public_url(3000)
    assert.are.equal(0, #box:list_public_urls())
    assert.are.equal(0, select(2, get(made.url)))
    local ok, err = pcall(box.delete_public_url, box, 3000)
    assert.is_false(ok)
    assert.are.equal(404, err.status_code)
  end)

  it("carries bodies of every kind, and large ones", function()
    local url = box:get_public_url(3000).url
    support.sh(("head -c 3000000 /dev/zero > %s/upload"):format(server.dir))
    assert.are.equal("POST /x auth=None body=3000000", get(url .. "/x", "--data-binary @" .. server.dir .. "/upload"))
    assert.are.equal("PUT /x auth=None body=3000000", get(url .. "/x", "-H 'Transfer-Encoding: chunked' -T - <"
      .. server.dir .. "/upload"))
    assert.are.equal(8 * 1024 * 1024, #get(url .. "/big"))
    -- A connection is for one request; a client that would like to go on makes another.
    assert.are.equal("GET /1 auth=None body=0, 1 new\nGET /2 auth=None body=0, 1 new\n",
      (support.sh(("curl -s -w ', %%{num_connects} new\n' %s/1 %s/2"):format(url, url))))
  end)

  it("gives the answer of a program that does not want the whole request", function()
    local url = box:get_public_url(3000).url
    support.sh(("head -c 2000000 /dev/zero > %s/upload"):format(server.dir))
    for _ = 1, 20 do
      local body, status = get(url .. "/early", "-H Expect: --data-binary @" .. server.dir .. "/upload")
      assert.are.same({ "early", 413 }, { body, status })
    end
    assert.not_matches("error", server:said())
  end)

  it("ends no answer as if it were whole that broke off", function()
    local url = box:get_public_url(3000).url
    local text = support.sh("curl -sS -m 20 " .. url .. "/half; echo \" $?\"")
    assert.matches("half 56\n$", text)
  end)

  it("reads requests however they are cut", function()
    local url = box:get_public_url(3000).url
    local request = ("POST /cut HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
      .. "a;x=y\r\n0123456789\r\n0\r\nA: b\r\n\r\n"):format(url:match("//(.*)"))
    for size = 1, 7 do
      assert.matches("POST /cut auth=None body=13$", (raw(url, request, 5, size)))
    end
  end)

  it("passes no body on that can be read in two ways", function()
    local url = box:get_public_url(3000).url
    local head = ("POST /cut HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n"):format(url:match("//(.*)"))
    for _, body in ipairs { "3;a\nb\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "3\r\nabc\n0\r\n\r\n",
      "3\r\nabc\r\n0\r\nGET / HTTP/1.1\r\n\r\n", "3\r\nabc\r\n0\r\na: \n\r\n\r\n", "-3\r\nabc\r\n0\r\n\r\n" } do
      assert.not_matches("body=", (raw(url, head .. body)))
    end
    assert.matches("^HTTP/1.1 400", (raw(url, (head:gsub("HTTP/1.1", "HTTP/1.0")) .. "3\r\nabc\r\n0\r\n\r\n")))
  end)

  it("asks for its token or its password, and keeps them from the box", function()
    local made = box:get_public_url(3000, { bearer_token = true, basic_auth = true })
    assert.matches("^%x+$", made.token)
    assert.are.equal("user", made.username)
    local body, status = get(made.url)
    assert.are.equal(401, status)
    assert.matches("needs its token or its password", body)
    for _, wrong in ipairs { "Bearer " .. made.token:reverse(), "Bearer", "Bearer " .. made.token:sub(2),
      "Basic " .. made.token, "Basic ====" } do
      assert.are.equal(401, select(2, get(made.url, "-H 'Authorization: " .. wrong .. "'")), wrong)
    end
    assert.are.equal("GET / auth=None body=0", get(made.url .. "/", "-H 'Authorization: Bearer " .. made.token .. "'"))
    assert.are.equal("GET / auth=None body=0", get(made.url .. "/", "-u user:" .. made.password))
    assert.are.equal(401, select(2, get(made.url, "-u admin:" .. made.password)))
    local listed = box:list_public_urls()[1]
    assert.is_true(listed.bearer_token and listed.basic_auth)
    assert.is_nil(listed.token or listed.password)
    assert.not_matches(made.token, server:said(), 1, true)
    -- Made anew, it has new ones.
    local again = box:get_public_url(3000, { bearer_token = true })
    assert.are.equal(made.url, again.url)
    assert.are.equal(401, select(2, get(made.url, "-H 'Authorization: Bearer " .. made.token .. "'")))
    assert.are.equal(401, select(2, get(made.url, "-u user:" .. made.password)))
    assert.are.equal(200, select(2, get(made.url, "-H 'Authorization: Bearer " .. again.token .. "'")))
  end)

  it("passes one request of a connection on, and checks it", function()
    local made = box:get_public_url(3000, { bearer_token = true })
    local host = "Host: " .. made.url:match("//(.*)") .. "\r\n"
    local good = "GET /good HTTP/1.1\r\n" .. host .. "Authorization: Bearer " .. made.token .. "\r\n\r\n"
    local bad = "GET /bad HTTP/1.1\r\n" .. host .. "\r\n"
    for _, next in ipairs { bad, good } do
      local _, answers = raw(made.url, good .. next):gsub("HTTP/1%.1 200", "")
      assert.are.equal(1, answers)
    end
    for more, body in pairs { ["Upgrade: x\r\nConnection: Upgrade"] = "", ["Content-Length: 3"] = "abc" } do
      local answer = raw(made.url, good:gsub("\r\n\r\n", "\r\n" .. more .. "\r\n\r\n") .. body .. bad)
      assert.matches("/good", answer)
      assert.not_matches("/bad", answer)
    end
    local said = server:said()
    assert.are.equal(401, select(2, get(made.url, "-I")))
    assert.matches(made.url .. ": a request was refused: 401: this URL needs its token\n", server:said():sub(#said), 1,
      true)
  end)

  it("passes no request on that can be read in two ways, or is of another host", function()
    local url = box:get_public_url(3000).url
    local host = "Host: " .. url:match("//(.*)") .. "\r\n"
    local function status(head)
      return raw(url, head .. "\r\n"):match("^HTTP/1%.1 (%d+)")
    end
    assert.are.equal("200", status("GET / HTTP/1.1\r\nConnection: close\r\n" .. host))
    for _, other in ipairs { "Host: evil.example\r\n", "Host: 127.0.0.1\r\n", "Host: evil.example:1\r\n", "",
      host .. "Host: evil.example\r\n" } do
      assert.are.equal("403", status("GET / HTTP/1.1\r\n" .. other), other)
    end
    for _, wrong in ipairs {
      "GET http://evil.example/ HTTP/1.1\r\n" .. host, "CONNECT x:1 HTTP/1.1\r\n" .. host, "nonsense\r\n" .. host,
      "GET / HTTP/1.1\r\n" .. host .. "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
      "GET / HTTP/1.1\r\n" .. host .. "Content-Length: 5\r\nContent-Length: 6\r\n",
      "GET / HTTP/1.1\r\n" .. host .. "Content-Length: -5\r\n",
      "GET / HTTP/1.1\r\n" .. host .. "Transfer-Encoding: gzip, chunked\r\n",
      "GET / HTTP/1.1\r\n" .. host .. " folded\r\n", "GET / HTTP/1.1\r\n" .. host .. "A : b\r\n",
      "GET / HTTP/1.1\r\n" .. host .. "A: b\nAuthorization: x\r\n",
    } do
      assert.are.equal("400", status(wrong), wrong)
    end
    assert.are.equal("431", status("GET / HTTP/1.1\r\n" .. host .. "A: " .. ("x"):rep(40000) .. "\r\n"))
  end)

  it("waits for no head without end", function()
    local url = box:get_public_url(3000).url
    local started = lbox.now()
    assert.are.equal("", raw(url, "GET / HTTP/1.1\r\nHost: x", 15))
    local took = lbox.now() - started
    assert.is_true(took > 9000 and took < 13000, took .. " ms")
  end)

  it("carries upgraded connections both ways", function()
    local url = box:get_public_url(3000).url
    local answer = raw(url, "GET /up HTTP/1.1\r\nHost: " .. url:match("//(.*)")
      .. "\r\nUpgrade: echo\r\nConnection: keep-alive, Upgrade\r\n\r\nfirst\nsecond\n", 2)
    assert.matches("^HTTP/1%.1 101 .*echo first\necho second\n$", answer)
  end)

  it("says when nothing listens in the box", function()
    local url = box:get_public_url(4000).url
    local body, status = get(url)
    assert.are.equal(502, status)
    assert.are.equal("lbox: nothing listens on port 4000 of the box " .. box.id .. "\n", body)
    serve(4001, "::1")
    assert.are.equal("GET / auth=None body=0", get(box:get_public_url(4001).url .. "/"))
  end)

  it("is refused for what is no port", function()
    for _, port in ipairs { "0", "65536", "1.5", '"80"' } do
      local text = support.sh(("curl -s -w '%%{http_code}' -H 'X-Box-Api-Key: %s' -d '{\"port\":%s}' "
        .. "%s/v2/box/%s/preview"):format(server.key, port, server.url, box.id))
      assert.matches("port.*400$", text)
    end
  end)

  it("is gone with its box", function()
    local other = Box.create(server:client())
    local url = other:get_public_url(3000).url
    assert.are.equal(502, select(2, get(url)))
    other:delete()
    assert.are.equal(0, select(2, get(url)))
  end)

  it("leaves no trace in how the server ends when it was deleted", function()
    local apart = support.start()
    local there = Box.create(apart:client())
    local url = there:get_public_url(3000).url
    os.execute(("python3 -c 'import socket, time; s = socket.create_connection((\"127.0.0.1\", %s)); "
      .. "s.sendall(b\"GET\"); time.sleep(2)' &"):format(url:match("%d+$")))
    lbox.sleep(300)
    there:delete_public_url(3000)
    there:get_public_url(3001)
    there:delete()
    lbox.sleep(100)
    apart:kill()
    assert.not_matches("error", apart:said())
    assert.not_matches("lbox serve", apart:said()) -- which is how it says why it failed
    support.sh("rm -rf " .. apart.dir)
  end)

  it("is the same after a restart, wakes its box and waits for the port", function()
    local made = box:get_public_url(3000, { bearer_token = true })
    local other = box:get_public_url(4000).url
    server:kill("KILL")
    server = support.start { dir = server.dir }
    box = Box.get(box.id, server:client())
    assert.are.equal("paused", box.status)
    local task = lbox.spawn(function()
      lbox.sleep(1500)
      serve(3000)
    end)
    local body = server.dir .. "/answer"
    os.execute(("curl -s -m 40 -H 'Authorization: Bearer %s' %s/woken >%s 2>&1 &"):format(made.token, made.url, body))
    task:await()
    lbox.timeout(10000, function()
      while support.sh("cat " .. body) ~= "GET /woken auth=None body=0" do
        lbox.sleep(100)
      end
    end)
    assert.are.equal(401, select(2, get(made.url)))
    assert.are.equal(other, box:list_public_urls()[2].url)
  end)
end)
