-- What a user sees when something is wrong: one clear sentence each, with its kind and its status.
local fault = require "spec.support.fault"
local lbox = require "lbox"

local Box = lbox.Box

local ROUTES = [[
routes["GET /v2/box/unauthorized"] = function(reply) reply:json(401, { error = "unauthorized" }) end
routes["GET /v2/box/missing"] = function(reply) reply:json(404, { error = "box not found" }) end
routes["GET /v2/box/broken"] = function(reply)
  reply:json(500, { error = "Failed to execute command" })
end
routes["GET /v2/box/limited"] = function(reply)
  reply:json(400, { error = { message = "budget exhausted", code = "budget" } },
    { ["X-Request-Id"] = "req_9" })
end
routes["GET /v2/box/page"] = function(reply)
  reply:text(403, "<html>\n<h1>Forbidden</h1>\n</html>")
end
routes["GET /v2/box/wordless"] = function(reply) reply:json(418, {}) end
routes["GET /v2/box/empty"] = function(reply) reply:text(418, "") end
routes["GET /v2/box/moved"] = function(reply)
  reply:text(301, "", { Location = "https://me:pw@new.example/v2/box" })
end
routes["GET /v2/box/garbage"] = function(reply) reply:raw("SSH-2.0-OpenSSH\r\n\r\n") reply:cut() end
routes["GET /v2/box/echo"] = function(reply, request)
  reply:text(400, "bad key " .. request.headers["x-box-api-key"])
end
routes["GET /v2/box/line"] = function(reply)
  local piece = ("x"):rep(1000)
  reply:raw("HTTP/1.1 200 OK\r\nX-Endless: ")
  for _ = 1, 400 do
    reply:raw(piece)
  end
  reply:cut()
end
routes["GET /v2/box/headers"] = function(reply)
  reply:raw("HTTP/1.1 200 OK\r\n" .. ("X-Pad: " .. ("x"):rep(1000) .. "\r\n"):rep(100) .. "\r\n")
end
routes["POST /v2/box/b/exec"] = function(reply) reply:cut() end
routes["POST /v2/box/b/run/stream"] = function(reply)
  reply:begin()
  reply:event("run_start", { run_id = "r1" })
  reply:event("text", { text = "so far" })
  reply:hold()
end
]]

local BARE = { UPSTASH_BOX_API_KEY = false, UPSTASH_BOX_BASE_URL = false }

local function check(err, kind, pattern)
  assert.is_true(lbox.is_error(err, kind), tostring(err))
  assert.matches(pattern, err.message)
  assert.not_matches("\n", err.message)
  assert.not_matches("traceback", err.message)
  assert.not_matches(fault.KEY, err.message, 1, true)
  assert.are.equal(("lbox: %s: %s"):format(kind, err.message), tostring(err))
  return err
end

local function get(url, id, more)
  local opts = { base_url = url, api_key = fault.KEY, timeout = 20000 }
  for key, value in pairs(more or {}) do
    opts[key] = value
  end
  return fault.raised(Box.get, id or "b", opts)
end

describe("without a server to talk to", function()
  it("no key", function()
    fault.with_env(BARE, function()
      check(fault.raised(Box.create), "usage", "^api_key is required: pass api_key, set "
        .. "UPSTASH_BOX_API_KEY, or use local boxes %(lbox %-%-local%)$")
    end)
  end)

  it("an unknown option", function()
    check(fault.raised(Box.create, { keep_alvie = true }), "usage",
      '^unknown option "keep_alvie" %(did you mean "keep_alive"%?%)$')
  end)

  it("a list that is none, whose items would be lost on the way", function()
    for _, wrong in ipairs { { labels = { a = "a" } }, { labels = { "a", 5 } }, { skills = { [1] = "a", [3] = "c" } },
      { network_policy = { mode = "custom", allowed_domains = { x = "y" } } } } do
      wrong.base_url, wrong.api_key = "http://127.0.0.1:1", "k"
      local ok, err = pcall(Box.create, wrong)
      assert.is_false(ok)
      assert.are.equal("usage", err.kind)
      assert.matches("must be a list of strings", err.message)
    end
  end)

  it("a header that is not for callers to set", function()
    for _, name in ipairs { "Content-Length", "transfer-encoding" } do
      local ok, err = pcall(Box.list, { base_url = "http://127.0.0.1:1", api_key = "k", headers = { [name] = "5" } })
      assert.is_false(ok)
      assert.are.equal("usage", err.kind)
      assert.matches("the header " .. name:gsub("%-", "%%-") .. " is set by lbox", err.message)
    end
  end)

  it("a host name that does not exist", function()
    -- A label is at most 63 characters: no resolver has to be asked.
    local host = ("a"):rep(64) .. ".invalid"
    local err = check(get("http://" .. host), "network", "^the host name \"" .. host
      .. "\" cannot be resolved")
    assert.is_true(err.retryable)
  end)

  it("a port nobody listens on", function()
    local err = check(get("http://127.0.0.1:1"), "network",
      "^cannot connect to http://127%.0%.0%.1:1: Connection refused$")
    assert.is_true(err.retryable)
  end)

  it("an address that cannot be reached", function()
    check(get("http://255.255.255.255"), "network",
      "^cannot connect to http://255%.255%.255%.255: .*unreachable$")
  end)
end)

describe("from a server", function()
  local server

  setup(function()
    server = fault.start(ROUTES)
  end)

  teardown(function()
    server:stop()
  end)

  it("401", function()
    local err = check(get(server.url, "unauthorized"), "api",
      "^the server refused the API key: unauthorized %(401%)$")
    assert.are.equal(401, err.status_code)
    assert.is_false(err.retryable)
  end)

  it("404", function()
    assert.are.equal(404, check(get(server.url, "missing"), "api",
      "^box not found %(404%)$").status_code)
  end)

  it("500", function()
    local err = check(get(server.url, "broken"), "api", "^Failed to execute command %(500%)$")
    assert.are.equal(500, err.status_code)
    assert.is_true(err.retryable)
  end)

  it("an error with a code and a request id", function()
    local err = check(get(server.url, "limited"), "api", "^budget exhausted %(400%)$")
    assert.are.equal("budget", err.code)
    assert.are.equal("req_9", err.request_id)
  end)

  it("an error that is not JSON", function()
    local err = check(get(server.url, "page"), "api",
      "^request failed with status 403 %(GET /v2/box/page%): <html> <h1>Forbidden</h1> </html>$")
    assert.are.equal(403, err.status_code)
  end)

  it("an error without words", function()
    check(get(server.url, "wordless"), "api",
      "^request failed with status 418 %(GET /v2/box/wordless%)$")
    check(get(server.url, "empty"), "api", "^request failed with status 418 %(GET /v2/box/empty%)$")
  end)

  it("a redirect, which is not followed", function()
    local err = check(get(server.url, "moved"), "api",
      "redirects .* to https://new%.example %(301%): set base_url")
    assert.are.equal(301, err.status_code)
  end)

  it("something that is not HTTP", function()
    check(get(server.url, "garbage"), "network", "GET /v2/box/garbage")
  end)

  it("endless headers", function()
    check(get(server.url, "headers"), "network",
      "^the answer to GET /v2/box/headers cannot be taken: ")
  end)

  it("an endless header", function()
    check(get(server.url, "line"), "network",
      "^the answer to GET /v2/box/line cannot be taken: its headers are too long, or memory ran out$")
  end)

  it("our own key in an error", function()
    check(get(server.url, "echo"), "api", "bad key %[redacted%]$")
  end)

  it("plain HTTP where TLS was expected", function()
    local url = server.url:gsub("^http:", "https:")
    check(get(url), "network", "^no secure connection to https://127%.0%.0%.1:%d+: ")
  end)

  it("a POST that was carried out on a reused connection which closed before the answer", function()
    local box = server:box("b")
    local err = check(fault.raised(box.exec.command, box.exec, "make money"), "network",
      "broke before POST /v2/box/b/exec was answered; it may have been carried out$")
    assert.are.equal("b", err.box_id)
    local log = server:log("POST /v2/box/b/exec")
    local gets = server:log("GET /v2/box/b")
    assert.are.equal(1, #log)
    assert.are.equal(gets[#gets].connection, log[1].connection) -- it was a reused one
  end)

  it("a server killed while a run goes on", function()
    local doomed = fault.start(ROUTES)
    local stream = doomed:box("b").agent:stream { prompt = "x", timeout = 20000 }
    stream:next()
    stream:next()
    doomed:stop()
    local started = lbox.now()
    local err = check(fault.raised(stream.next, stream), "stream",
      "^the stream of the run was cut off, and the server could not be asked about it$")
    assert.are.equal("network", err.cause.kind)
    assert.are.equal("r1", err.run_id)
    assert.are.equal("so far", err.partial)
    assert.are_not.equal("completed", stream.status)
    assert.is_true(lbox.now() - started < 5000)
  end)
end)
