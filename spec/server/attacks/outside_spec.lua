-- Attacks from outside: by who has no key, and by who has one and sends what no client sends.
local attacks = require "spec.support.attacks"
local lbox = require "lbox"
local support = require "spec.support.local"

-- By Python: `connect()`, and `answers(bytes)`, all that comes back until nothing does for a while.
local RAW = [[
import socket, sys, time
host, port, key = sys.argv[1].split('//')[1].split(':')[0], int(sys.argv[1].rsplit(':', 1)[1]), sys.argv[2]
def connect():
    return socket.create_connection((host, port), 5)
def answers(data):
    with connect() as s:
        got = b''
        s.settimeout(1.5)
        try:
            s.sendall(data)
            while piece := s.recv(65536): got += piece
        except OSError: pass
        return got
]]

describe("an attack from outside:", function()
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

  --- Starts Python beside the specs; returns how to wait for its output.
  local function start(code)
    local path, out = attack.server.dir .. "/outside.py", attack.server.dir .. "/out"
    local file = assert(io.open(path, "w"))
    file:write(RAW .. code)
    file:close()
    local pid = support.sh(("python3 %s %s %s >%s 2>&1 & echo $!"):format(path, attack.server.url, attack.server.key,
      out)):match("%d+")
    return function()
      lbox.timeout(30000, function()
        while support.sh("ps -o stat= -p " .. pid):find("^[^Z]") do
          lbox.sleep(50)
        end
      end)
      return (support.sh("cat " .. out))
    end
  end

  local function python(code)
    return attack:during(function() return start(code)() end)
  end

  --- Every route with no key or a wrong one, as curl has it.
  local function statuses(header)
    local urls, seen = {}, {}
    attacks.each_route({ id = attack.box.id, any = "x" }, function(method, path)
      urls[#urls + 1] = ("-X %s %s%s"):format(method, attack.server.url, path)
    end)
    for _, each in ipairs(urls) do
      local status = support.sh(("curl -s -m 10 -o /dev/null -w '%%{http_code}' %s %s"):format(header, each))
      seen[status] = (seen[status] or 0) + 1
    end
    return seen, #urls
  end

  it("no key, or a wrong one, at every endpoint", function()
    for _, header in ipairs { "", "-H 'X-Box-Api-Key: box_wrong'" } do
      local seen, count = statuses(header)
      assert.are.same({ ["401"] = count }, seen)
    end
    assert.are.equal(attack.box.id, lbox.Box.get(attack.box.id, attack.server:client()).id)
  end)

  it("keys that are nearly right", function()
    local key, wrong = attack.server.key, {}
    for i = 1, #key do
      wrong[#wrong + 1] = key:sub(1, i - 1) .. (key:sub(i, i) == "a" and "b" or "a") .. key:sub(i + 1)
      wrong[#wrong + 1] = key:sub(1, i - 1)
    end
    for _, each in ipairs { key .. "a", key .. key, key:upper(), "%00" .. key, "*", "box_", key .. ", " .. key } do
      wrong[#wrong + 1] = each
    end
    local text = python(("for k in ['%s']:\n"):format(table.concat(wrong, "','")) .. [[
    head = f'Host: localhost\r\nX-Box-Api-Key: {k}\r\nConnection: close\r\n'
    print(answers(f'GET /v2/box HTTP/1.1\r\n{head}\r\n'.encode())[9:12].decode())
]])
    assert.are.equal(("401\n"):rep(#wrong), text)
  end)

  it("huge heads", function()
    local text = python [[
for data in (b'GET /' + b'a' * 2000000 + b' HTTP/1.1\r\nHost: localhost\r\n\r\n',
             b'GET / HTTP/1.1\r\nHost: localhost\r\nX: ' + b'a' * 2000000 + b'\r\n\r\n',
             b'GET / HTTP/1.1\r\nHost: localhost\r\n' + b'X: y\r\n' * 300000 + b'\r\n',
             b'GET / HTTP/1.1\r\n' + b'X' * 2000000, b'A' * 2000000, b'\r\n' * 1000000, b'\0' * 1000000):
    print(answers(data)[:12].decode() or 'cut')
]]
    for line in text:gmatch("[^\n]+") do
      assert.is_true(line == "cut" or line:find("^HTTP/1.[01] 4%d%d$") ~= nil, line)
    end
    assert.are.equal(7, select(2, text:gsub("\n", "")), text)
  end)

  it("huge bodies, announced or not, by who has the key and who has not", function()
    local before = tonumber((support.sh("cat /proc/" .. attack.server.pid .. "/status"):match("VmRSS:%s*(%d+)")))
    local text = python [[
def status(more, body, times, wait=5):
    with connect() as s:
        s.settimeout(wait)
        got = b''
        try:
            s.sendall(f'POST /v2/box HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n'.encode())
            for i in range(times): s.sendall(body)
        except OSError: pass
        try:
            while piece := s.recv(65536): got += piece
        except OSError: pass
        return got[9:12].decode() or 'cut'
with_key, mega = f'X-Box-Api-Key: {key}\r\n', b'x' * 1000000
chunk = b'f4240\r\n' + mega + b'\r\n'
print(status(with_key + 'Content-Length: 70000000\r\n', mega, 70))
print(status('Content-Length: 70000000\r\n', mega, 20, 1))
print(status(with_key + 'Content-Length: 99999999999999999999\r\n', b'', 0, 1))
print(status(with_key + 'Content-Length: -1\r\n', b'', 0, 1))
print(status(with_key + 'Transfer-Encoding: chunked\r\n', chunk, 70))
print(status('Transfer-Encoding: chunked\r\n', chunk + b'0\r\n\r\n', 1))
]]
    local after = tonumber((support.sh("cat /proc/" .. attack.server.pid .. "/status"):match("VmRSS:%s*(%d+)")))
    local told = {}
    for line in text:gmatch("[^\n]+") do
      told[#told + 1] = line
      assert.is_true(line == "cut" or line:find("^4%d%d$") ~= nil, text)
    end
    assert.are.equal(6, #told)
    assert.are.equal("401", told[6])
    assert.is_true(after - before < 200 * 1024, after - before)
  end)

  it("slow loris: more connections than there may be, each with a head or a body that never comes", function()
    local wait = start [[
import selectors
all = []
for i in range(700):
    try:
        s = connect()
        s.sendall((b'GET / HTTP/1.1\r\nHost: localhost\r\nX: ', b'POST /v2/box HTTP/1.1\r\nHost: localhost\r\n'
            b'Content-Length: 1000\r\n\r\n{', b'')[i % 3])
        all.append(s)
    except OSError: pass
for tick in range(12):
    for s in all:
        try: s.sendall(b'a')
        except OSError: pass
    time.sleep(0.1)
print(len(all) > 100)
]]
    lbox.sleep(1500)
    -- Strangers have a second then; who has the key gets in within that.
    local began = lbox.now()
    assert.is_true(#lbox.Box.list(attack.server:client { timeout = 5000 }) >= 1)
    assert.is_true(lbox.now() - began < 1500, lbox.now() - began)
    -- The socket is nobody's but the user's, and has its own places.
    assert.matches('"version"', (support.sh(("curl -s -m 1 --unix-socket %s/data/sock http://localhost/lbox/hello")
      :format(attack.server.dir))))
    assert.are.equal("True\n", wait())
    lbox.timeout(5000, function()
      while not pcall(attack.check, attack) do
        lbox.sleep(100)
      end
    end)
  end)

  it("paths in ids, at every endpoint", function()
    -- What is not there is deleted with 200 where names are not ids.
    local values = { "..", ".", "%2e%2e", "..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "x%00", "%00", "%ff%fe",
      "%20", "*", "'%20OR%201=1;--", "%22;DROP%20TABLE%20boxes;--", "%0d%0aX:%20y", ("a"):rep(5000), "-rf", "$(id)",
      "lbox.db",
      attack.other.id .. "%2f..%2f" .. attack.box.id, "%", "%zz", "x%2e", ".new-x", ".deleted-x" }
    local requests, what = {}, {}
    for _, value in ipairs(values) do
      attacks.each_route({ any = value }, function(method, path)
        if path:find(value, 1, true) then
          requests[#requests + 1] = { method = method, path = path, body = method ~= "GET" and "{}" or nil }
          what[#what + 1] = method .. " " .. path
        end
      end)
    end
    for i, answer in ipairs(attack:ask(requests)) do
      local told = ("%s: %d %s"):format(what[i], answer.status, answer.body:sub(1, 200))
      local by_name = what[i]:find("^DELETE /v2/box/agent%-credentials/")
        or what[i]:find("^DELETE /v2/box/settings/env/")
      assert.is_true(answer.status >= 400 and answer.status < 500 or answer.status == 501
        or (by_name ~= nil and answer.status == 200), told)
      assert.is_true(answer.ms < 5000, told)
      assert.not_matches("root:x:", answer.body)
    end
  end)

  -- Those that have no use for a body, and so do not read one.
  local NO_BODY = {
    ["POST pause"] = true, ["POST resume"] = true, ["POST cancel"] = true, ["DELETE {id}"] = true,
    ["DELETE startup"] = true, ["DELETE {label}"] = true, ["DELETE {skill}"] = true, ["DELETE {repo}"] = true,
    ["DELETE {provider}"] = true, ["DELETE {key}"] = true, ["DELETE {port}"] = true, ["DELETE {schedule}"] = true,
    ["DELETE {snapshot}"] = true, ["POST stop"] = true,
  }

  it("malformed JSON at every endpoint", function()
    local bodies = { "{nope", "[]", "5", '"x"', "null", "[1", '{"a":}', '{"a":1}{', "{'a':1}", '{"a":1,}', "\0",
      "\255\254", '{"a":"\237\160\128"}', '{"a":"\\ud800"', ("["):rep(100000), ('{"a":'):rep(50000),
      '{"a":' .. ("9"):rep(100000) .. "}e", "{\"a\":1}\0", "<xml/>", (" "):rep(100000) .. "}" }
    local requests, what = {}, {}
    attacks.each_route({ id = attack.box.id, any = "x" }, function(method, path, parts)
      if method ~= "GET" and not NO_BODY[method .. " " .. parts[#parts]] then
        for _, body in ipairs(bodies) do
          requests[#requests + 1] = { method = method, path = path, body = body }
          what[#what + 1] = ("%s %s %s"):format(method, path, body:sub(1, 20))
        end
      end
    end)
    assert.is_true(#requests > 30 * #bodies)
    for i, answer in ipairs(attack:ask(requests)) do
      local told = ("%s: %d %s"):format(what[i], answer.status, answer.body:sub(1, 200))
      assert.is_true(answer.status >= 400 and answer.status < 500, told)
      assert.is_true(answer.ms < 5000, told)
      assert.matches('^{"error":"', answer.body)
    end
  end)

  it("fields of the wrong kind at every endpoint", function()
    local names = { "name", "labels", "label", "size", "command", "code", "language", "timeout", "folder", "path",
      "from", "to", "content", "encoding", "recursive", "parents", "ids", "prompt", "model", "agent", "custom_runner",
      "env_vars", "network_policy", "port", "cron", "type", "webhook_url", "snapshot_id", "skill", "skills", "value",
      "provider", "api_key", "init_command", "git_user_name", "repo", "branch", "message", "args", "title", "body",
      "ttl", "ephemeral", "json_schema", "agent_options", "mcp_servers", "bearer_token", "basic_auth", "headers",
      "metadata", "files", "webhook" }
    local requests, what = {}, {}
    for _, value in ipairs { "{}", "[]", "[[]]", "[{}]", "-1", "1e308", "true", '"\\u0000"', '["a",1]',
      '{"a":{"b":[]}}', '{"1":2}', '""' } do
      local fields = {}
      for i, name in ipairs(names) do
        fields[i] = ('"%s":%s'):format(name, value)
      end
      attacks.each_route({ id = attack.box.id, any = "x" }, function(method, path, parts)
        if method ~= "GET" and not NO_BODY[method .. " " .. parts[#parts]] then
          requests[#requests + 1] = { method = method, path = path, body = "{" .. table.concat(fields, ",") .. "}" }
          what[#what + 1] = ("%s %s %s"):format(method, path, value)
        end
      end)
    end
    for i, answer in ipairs(attack:ask(requests)) do
      local told = ("%s: %d %s"):format(what[i], answer.status, answer.body:sub(1, 200))
      assert.is_true(answer.status >= 200 and answer.status < 500 or answer.status == 501, told)
      assert.is_true(answer.ms < 5000, told)
      assert.not_matches("table: 0x", answer.body)
    end
  end)

  it("request smuggling: what can be read in two ways is not read at all", function()
    local text = python [[
inner = f'GET /v2/box/smuggled HTTP/1.1\r\nHost: localhost\r\nX-Box-Api-Key: {key}\r\n\r\n'
def shape(more, body='', line='POST /v2/box/none/exec HTTP/1.1'):
    head = f'{line}\r\nHost: localhost\r\nX-Box-Api-Key: {key}\r\n{more}\r\n'
    got = answers((head + body).encode('latin-1'))
    print('smuggled' if b'smuggled' in got else got[9:12].decode() or 'cut')
n = len(inner)
shape('Content-Length: 2\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n' + inner)
shape(f'Transfer-Encoding: chunked\r\nContent-Length: {n + 5}\r\n', '0\r\n\r\n' + inner)
shape(f'Content-Length: 0\r\nContent-Length: {n}\r\n', inner)
shape(f'Content-Length: {n}, 0\r\n', inner)
shape(f'Content-Length: +{n}\r\n', inner)
shape(f'Content-Length: 0x{n:x}\r\n', inner)
shape(f'Content-Length : {n}\r\n', inner)
shape('Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n' + inner)
shape('Transfer-Encoding: chunked, identity\r\n', '0\r\n\r\n' + inner)
shape('Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n', '0\r\n\r\n' + inner)
shape('Transfer-Encoding: xchunked\r\n', '0\r\n\r\n' + inner)
shape('Transfer-Encoding : chunked\r\n', '0\r\n\r\n' + inner)
shape(' Transfer-Encoding: chunked\r\n', '0\r\n\r\n' + inner)
shape('X: y\r\n Transfer-Encoding: chunked\r\n', '0\r\n\r\n' + inner)
shape('Transfer-Encoding: chunked\r\n', 'zz\r\n' + inner)
shape('Transfer-Encoding: chunked\r\n', '-1\r\n' + inner)
shape('Transfer-Encoding: chunked\r\n', 'fffffffffffffffff\r\n' + inner)
shape('Transfer-Encoding: chunked\r\n', '0 \n\n' + inner)
shape('Transfer-Encoding: chunked\n\nGET /v2/box/smuggled HTTP/1.1\r\n')
shape('X: y\rContent-Length: 5\r\n', inner)
shape('', inner, 'GET /v2/box/none HTTP/1.1\r\nContent-Length: 5 5')
shape('', inner, 'GET /v2/box/none HTTP/0.9')
shape('', inner, 'GET  /v2/box/none  HTTP/1.1')
shape('', inner, 'GET /v2/box/none HTTP/1.1 HTTP/1.1')
shape('', inner, 'G@T /v2/box/none HTTP/1.1')
]]
    local count = select(2, text:gsub("\n", ""))
    assert.are.equal(25, count, text)
    for line in text:gmatch("[^\n]+") do
      assert.is_true(line == "cut" or line == "505" or line:find("^4%d%d$") ~= nil, text)
    end
  end)
end)
