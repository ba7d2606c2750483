-- Who may ask the server, and what it says to requests it cannot serve.
local support = require "spec.support.local"

describe("the server's door", function()
  local server

  setup(function()
    server = support.start()
  end)

  teardown(function()
    server:stop()
  end)

  --- Status and body of a request made with curl.
  local function ask(arguments, path)
    local text = support.sh(("curl -sS -m 10 -w '\\n%%{http_code}' %s '%s%s'"):format(
      arguments, server.url, path or "/v2/box"))
    local body, status = text:match("^(.*)\n(%d+)$")
    return tonumber(status), body
  end

  local function keyed(arguments)
    return ("-H 'X-Box-Api-Key: %s' %s"):format(server.key, arguments or "")
  end

  it("opens to the key and to nothing else", function()
    assert.are.equal(200, (ask(keyed())))
    assert.are.equal(401, (ask("")))
    assert.are.equal(401, (ask("-H 'X-Box-Api-Key: box_wrong'")))
    assert.are.equal(401, (ask("-H 'X-Box-Api-Key: " .. server.key:sub(1, -2) .. "'")))
  end)

  it("keeps the key, and what the boxes were given, to its user", function()
    assert.are.equal("600\n600\n600\n", (support.sh(("cd %s/data && stat -c %%a key lbox.db lbox.db-wal"):format(
      server.dir))))
  end)

  it("refuses a Host that is not it", function()
    assert.are.equal(403, (ask(keyed("-H 'Host: evil.example'"))))
    -- An address is no name that DNS could lead here.
    assert.are.equal(200, (ask(keyed("-H 'Host: 192.0.2.7:80'"))))
    assert.are.equal(200, (ask(keyed("-H 'Host: [2001:db8::7]'"))))
  end)

  it("keeps no memory for the body of who has no key", function()
    local big = server.dir .. "/big"
    support.sh("truncate -s 67108864 " .. big)
    for _ = 1, 8 do
      support.sh(("curl -s -m 3 --limit-rate 2000 -H 'Expect:' -H 'X-Box-Api-Key: box_wrong' -T %s %s/v2/box &"):format(
        big, server.url))
    end
    support.sh("sleep 0.3")
    assert.are.equal(400, (ask(keyed("-X POST -d '{\"labels\":5}'"))))
    assert.are.equal(401, (ask("-X POST -d '{}'")))
  end)

  it("needs no key on its socket", function()
    local text = support.sh(("curl -sS -m 10 --unix-socket %s/data/sock http://localhost/lbox/hello"):format(
      server.dir))
    assert.matches('"version":"', text)
  end)

  it("says what is wrong with a request", function()
    local status, body = ask(keyed("-X POST -d '{nope'"))
    assert.are.equal(400, status)
    assert.matches("not JSON", body)
    assert.are.equal(404, (ask(keyed(), "/v2/box/no-such-box")))
    assert.are.equal(404, (ask(keyed(), "/nope")))
    assert.are.equal(405, (ask(keyed("-X PATCH"))))
    assert.are.equal(400, (ask(keyed("-X DELETE -d '{\"ids\":[]}'"))))
    for _, wrong in ipairs { '{"labels":5}', '{"labels":["a",null]}', '{"labels":["a\\u0000"]}', "[]", '["a"]',
      '{"name":"\255"}', '{"ttl":1e999}', '{"env_vars":{"A":5}}', '{"env_vars":{"A=":"b"}}',
      '{"network_policy":{"mode":{}}}', '{"name":"snapshots"}', '{"name":".."}',
      '{"env_vars":{"A":"' .. ("x"):rep(130000) .. '"}}' } do
      local file = assert(io.open(server.dir .. "/body", "wb"))
      file:write(wrong)
      file:close()
      status, body = ask(keyed("-X POST --data-binary @" .. server.dir .. "/body"))
      assert.are.equal(400, status, wrong:sub(1, 80))
      assert.not_matches("table: 0x", body)
    end
    status, body = ask(keyed("-X POST -d '{\"agent\":\"clod\",\"model\":\"m\"}'"))
    assert.are.equal(400, status)
    assert.matches("claude%-code, codex, cursor, custom, opencode", body)
    assert.are.equal(501, (ask(keyed("-X POST -d '{\"browser\":true}'"))))
    status, body = ask(keyed("-X POST"), "/v2/box/x/browser")
    assert.are.equal(501, status)
    assert.matches("not available on local boxes", body)
  end)
end)
