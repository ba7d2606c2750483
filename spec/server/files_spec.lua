-- The files of a local box, by the wire.
local lbox = require "lbox"
local multipart = require "lbox.server.multipart"
local random = require "spec.support.random"
local support = require "spec.support.local"
local Box = lbox.Box

local function refused(fn, ...)
  local ok, err = pcall(fn, ...)
  assert(not ok, "no error was raised")
  return err.status_code, err.message
end

describe("the files of a local box", function()
  local server, box

  setup(function()
    -- What ASan keeps of freed memory would count as the server's.
    server = support.start { prefix = "env ASAN_OPTIONS=quarantine_size_mb=1" }
    box = Box.create(server:client())
  end)

  teardown(function()
    box:delete()
    server:stop()
  end)

  local function request(method, name, opts)
    return Box.request(method, ("/v2/box/%s/files/%s"):format(box.id, name), server:client(opts))
  end

  local function sh(command)
    return box.exec:command(command).stdout
  end

  --- What curl prints, and the status.
  local function curl(name, options)
    local text = support.sh(("curl -s -w '\n%%{http_code}' -H 'X-Box-Api-Key: %s' %s %s/v2/box/%s/files/%s"):format(
      server.key, options, server.url, box.id, name))
    local body, status = text:match("^(.*)\n(%d+)\n?$")
    return tonumber(status), body
  end

  it("are told of one by one, with a version that changes with them", function()
    sh("echo hello > a; ln -s a link; mkdir dir; mkfifo pipe")
    local info = request("GET", "stat", { query = { path = "a" } })
    assert.are.same({ "file", 6 }, { info.type, info.size })
    assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$", info.mod_time)
    assert.are.equal(sh("stat -c %i a"), info.inode .. "\n")
    assert.are.equal(info.version, request("GET", "stat", { query = { path = "a" } }).version)
    sh("echo HELLO > a")
    assert.are_not.equal(info.version, request("GET", "stat", { query = { path = "a" } }).version)
    assert.are.equal("symlink", request("GET", "stat", { query = { path = "link" } }).type)
    assert.are.equal("file", request("GET", "stat", { query = { path = "link", follow = "true" } }).type)
    assert.are.equal("directory", request("GET", "stat", { query = { path = "dir" } }).type)
    assert.are.equal("other", request("GET", "stat", { query = { path = "pipe" } }).type)
    assert.are.equal(404, (refused(request, "GET", "stat", { query = { path = "nope" } })))
    assert.are.equal(400, (refused(request, "GET", "stat")))
  end)

  it("and directories are made, renamed and removed", function()
    request("POST", "mkdir", { json = { path = "one", parents = false } })
    assert.are.equal(404, (refused(request, "POST", "mkdir", { json = { path = "x/y/z", parents = false } })))
    assert.are.equal(409, (refused(request, "POST", "mkdir", { json = { path = "one", parents = false } })))
    request("POST", "mkdir", { json = { path = "x/y/z", parents = true } })
    request("POST", "rename", { json = { from = "x", to = "one/two" } })
    assert.are.equal("z\n", sh("ls one/two/y"))
    assert.are.equal(409, (refused(request, "POST", "remove", { json = { path = "one", recursive = false } })))
    request("POST", "remove", { json = { path = "one", recursive = true } })
    assert.are.equal("", sh("ls -d one"))
    assert.are.equal(404, (refused(request, "POST", "remove", { json = { path = "one", recursive = true } })))
    assert.are.equal(404, (refused(request, "POST", "rename", { json = { from = "one", to = "two" } })))
    assert.are.equal(403, (refused(request, "POST", "remove", { json = { path = "/usr/bin", recursive = true } })))
    assert.are.equal(400, (refused(request, "POST", "remove", { json = {} })))
  end)

  it("are removed with what a link leads to left alone", function()
    sh("mkdir keep victim; echo x > keep/x; ln -s ../keep victim/link; echo '-rf' > victim/-rf")
    request("POST", "remove", { json = { path = "victim", recursive = true } })
    assert.are.equal("x\n", sh("cat keep/x"))
    sh("ln -s keep alias")
    request("POST", "remove", { json = { path = "alias", recursive = true } })
    assert.are.equal("x\n", sh("cat keep/x; ls -d alias"))
  end)

  it("are uploaded, several at once, with any bytes in them", function()
    local place = support.sh("mktemp"):gsub("\n", "")
    support.sh("head -c 3000000 /dev/urandom > " .. place)
    local status = curl("upload", ("-F paths=up/one.bin -F 'files=@%s;filename=x' -F paths=/home/boxuser/two "
      .. "-F 'files=@%s'"):format(place, place))
    assert.are.equal(200, status)
    local sum = support.sh("sha256sum < " .. place)
    assert.are.equal(sum, sh("sha256sum < up/one.bin"))
    assert.are.equal(sum, sh("sha256sum < /home/boxuser/two"))
    -- As httpx sends it: all paths first.
    status = curl("upload", ("-F paths=a1 -F paths=a2 -F 'files=@%s' -F 'files=@-'</dev/null"):format(place))
    assert.are.equal(200, status)
    assert.are.equal("3000000\n0\n", sh("stat -c %s a1 a2"))
    os.remove(place)
  end)

  -- How much memory the server ever had, in bytes.
  local function peak()
    return 1024 * tonumber(support.sh("grep VmHWM /proc/" .. server.pid .. "/status"):match("%d+"))
  end

  --- Uploads what a shell command writes as the last file's content, while it comes. `prefix` is put before the client.
  local function send(names, command, prefix)
    local head = {}
    for i, name in ipairs(names) do
      head[i] = ('--b\\r\\nContent-Disposition: form-data; name="paths"\\r\\n\\r\\n%s\\r\\n--b\\r\\n'
        .. 'Content-Disposition: form-data; name="files"; filename="x"\\r\\n\\r\\n'):format(name)
    end
    return (support.sh(("{ printf %%b '%s'; %s; printf %%b '\\r\\n--b--\\r\\n'; } | %s curl -s -w '%%{http_code}' "
      .. "-X POST -T - -H 'Content-Type: multipart/form-data; boundary=b' -H 'X-Box-Api-Key: %s' "
      .. "%s/v2/box/%s/files/upload"):format(table.concat(head, "content\\r\\n"), command, prefix or "", server.key,
        server.url, box.id)))
  end

  it("are uploaded in any size, of which the server holds little", function()
    local before = peak()
    local content = "yes 0123456789abcdef 2>/dev/null | head -c 300000000"
    assert.are.equal("{}200", send({ "small", "huge" }, content))
    assert.are.equal("content" .. support.sh(content .. " | sha256sum"), sh("cat small; sha256sum < huge; rm huge"))
    assert.is_true(peak() - before < 20e6, (peak() - before) .. " bytes more")
  end)

  it("that are half uploaded are not there, and what was before is", function()
    sh("mkdir half; echo before > half/a; touch half/z")
    local noted = "/home/boxuser/noted"
    box.exec:command(("( while ! ls -A half | grep -q lbox-write; do sleep 0.05; done; ls -A half > %s ) >&- 2>&- &")
      :format(noted))
    -- The client dies within the second file.
    send({ "half/a", "half/b" }, "head -c 9000000 /dev/zero; sleep 2", "timeout -s KILL 0.7")
    assert.matches("%.lbox%-write%-", sh("cat " .. noted))
    local listed
    for _ = 1, 100 do
      listed = sh("cat half/a; ls -A half")
      if listed == "before\na\nz\n" then
        break
      end
    end
    assert.are.equal("before\na\nz\n", listed)
    assert.not_matches("error:", server:said())
  end)

  it("are uploaded in chunks of any size, to a box that is only starting", function()
    local host, port = server.url:match("//(.-):(%d+)$")
    for _, size in ipairs { 1, 10, 100, 1000, 10000 } do
      box:pause()
      local answer = support.sh(([[python3 -c '
import socket
body = (b"--b\r\nContent-Disposition: form-data; name=\"paths\"\r\n\r\nchunks\r\n"
        b"--b\r\nContent-Disposition: form-data; name=\"files\"; filename=\"x\"\r\n\r\n")
body += b"x" * 5000000 + b"\r\n--b--\r\n"
sent = bytearray(b"POST /v2/box/%s/files/upload HTTP/1.1\r\nHost: localhost\r\nX-Box-Api-Key: %s\r\n"
    b"Transfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n")
for at in range(0, len(body), %d):
    part = body[at:at + %d]
    sent += b"%%x\r\n" %% len(part) + part + b"\r\n"
peer = socket.create_connection(("%s", %s))
peer.settimeout(20)
peer.sendall(sent + b"0\r\n\r\n")
print(peer.recv(12).decode())']]):format(box.id, server.key, size, size, host, port))
      assert.are.equal("HTTP/1.1 200\n", answer)
      assert.are.equal(5000000, box.files:stat("chunks").size)
    end
  end)

  it("that cannot be uploaded are refused before all of them were sent, over a connection that goes on", function()
    local body = support.sh("mktemp"):gsub("\n", "")
    support.sh("head -c 5000000 /dev/zero > " .. body)
    local text = support.sh(("curl -s -w '\\n%%{http_code} %%{num_connects}\\n' -H 'X-Box-Api-Key: %s' "
      .. "-F paths=/usr/x -F 'files=@%s' %s/v2/box/%s/files/upload --next -s -w '\\n%%{http_code} %%{num_connects}' "
      .. "-H 'X-Box-Api-Key: %s' %s/v2/box/%s"):format(server.key, body, server.url, box.id, server.key, server.url,
        box.id))
    assert.matches("read%-only in a box", text)
    assert.matches("\n403 1\n", text)
    assert.matches("\n200 0$", text)
    -- Not an upload, and kept whole: there is a limit.
    support.sh("head -c 70000000 /dev/zero > " .. body)
    local status, said = curl("write", "-H 'Expect:' --data-binary @" .. body)
    assert.are.same({ 413, '{"error":"the request body is too large"}' }, { status, said })
    os.remove(body)
  end)

  it("are uploaded only as they are told", function()
    assert.are.equal(400, (curl("upload", "-F paths=x")))
    assert.are.equal(400, (curl("upload", "-F other=x")))
    assert.are.equal(415, (curl("upload", "-d '{}'")))
    assert.are.equal(400, (curl("upload", "-H 'Content-Type: multipart/form-data' -d x")))
    assert.are.equal(400, (curl("upload", "-H 'Content-Type: multipart/form-data; boundary=b' --data-binary '--b'")))
    assert.are.equal(403, (curl("upload", "-F paths=/usr/x -F 'files=@/etc/hostname'")))
  end)

  it("are downloaded, of any size, and only regular ones", function()
    sh("yes 0123456789 | head -c 40000000 > big.bin; echo hello > 'ö ä'")
    assert.are.equal(sh("sha256sum < big.bin"),
      support.sh(("curl -s -H 'X-Box-Api-Key: %s' '%s/v2/box/%s/files/download?folder=big.bin' | sha256sum"):format(
        server.key, server.url, box.id)))
    assert.are.same({ 200, "hello\n" }, { curl("download?folder=%C3%B6%20%C3%A4", "") })
    sh(": > empty; mkfifo fifo; ln -s /dev/zero zero")
    assert.are.same({ 200, "" }, { curl("download?folder=empty", "") })
    assert.are.equal(404, (curl("download?folder=nope", "")))
    for _, name in ipairs { "fifo", "zero", "." } do
      assert.are.equal(400, (curl("download?folder=" .. name, "")), name)
    end
  end)
end)

--- The parts of a body that comes in pieces of so many bytes.
local function parse(text, boundary, size)
  local at, parts = 1, {}
  multipart.read(function()
    local piece = text:sub(at, at + (size or #text) - 1)
    at = at + #piece
    return piece ~= "" and piece or nil
  end, boundary, function(part)
    parts[#parts + 1] = { name = part.name, filename = part.filename, type = part.type, bytes = part:all() }
  end)
  return parts
end

describe("a multipart body", function()
  local function body(parts, boundary)
    local text = {}
    for i, part in ipairs(parts) do
      text[i] = ('--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n%s\r\n%s\r\n'):format(boundary, part.name,
        part.filename and ('; filename="%s"'):format(part.filename) or "",
        part.type and "Content-Type: " .. part.type .. "\r\n" or "", part.bytes)
    end
    return table.concat(text) .. "--" .. boundary .. "--\r\n"
  end

  it("comes apart as it was put together", function()
    local parts = { { name = "paths", bytes = "a" }, { name = "empty", bytes = "" },
      { name = "files", filename = "x y.bin", type = "a/b", bytes = "\0\r\n--" } }
    for size = 1, 60 do
      assert.are.same(parts, parse(body(parts, "b"), "b", size))
    end
    assert.are.same({}, parse("--b--\r\n", "b"))
    assert.are.same("q\"x", parse(body({ { name = "q%22x", bytes = "" } }, "b"), "b")[1].name)
    assert.are.same("", parse(body({ { name = "", bytes = "" } }, "b"), "b")[1].name)
  end)

  it("names its boundary, or is none", function()
    assert.are.equal("a b", multipart.boundary('multipart/form-data; charset=x; boundary="a b"'))
    assert.are.equal("ab", multipart.boundary("Multipart/Form-Data; boundary=ab; x=y"))
    assert.is_nil(multipart.boundary("application/json"))
    assert.is_nil(multipart.boundary(nil))
    for _, bad in ipairs { "multipart/form-data;", "multipart/form-data; boundary=", "multipart/form-data; boundary="
      .. ("x"):rep(71) } do
      assert.is_false(pcall(multipart.boundary, bad))
    end
  end)

  it("that is cut or damaged anywhere is refused, or still has its parts", function()
    local parts = { { name = "paths", bytes = "a" }, { name = "files", filename = "x", bytes = "content" } }
    local whole = body(parts, "boundary")
    for n = 0, #whole - 5 do
      local ok, err = pcall(parse, whole:sub(1, n), "boundary")
      assert.is_false(ok, n)
      assert.are.equal(400, err.status_code)
    end
    local rnd = random.new(7)
    for _ = 1, 20000 do
      local at = rnd(#whole)
      local ok, result = pcall(parse, whole:sub(1, at - 1) .. string.char(rnd(256) - 1) .. whole:sub(at + 1),
        "boundary", rnd(40))
      assert.is_true(ok and #result <= 2 or not ok and result.status_code == 400, tostring(result))
    end
  end)
end)
