local client = require "lbox.client"
local failure = require "lbox.failure"
local fault = require "spec.support.fault"
local lbox = require "lbox"
local retry = require "lbox.retry"

local ROUTES = [[
local function flaky(status, headers)
  return function(reply, request)
    if request.count == 1 then
      reply:json(status, { error = "not now" }, headers)
    else
      reply:json(200, { count = request.count })
    end
  end
end
local function lost(reply, request)
  if request.count == 1 then
    reply:cut()
  else
    reply:json(200, { count = request.count })
  end
end
routes["GET /ok"] = function(reply) reply:json(200, { a = 1 }) end
routes["POST /ok"] = routes["GET /ok"]
routes["GET /empty"] = function(reply) reply:text(204, "") end
routes["GET /null"] = function(reply) reply:text(200, "null") end
routes["GET /page"] = function(reply) reply:text(200, "<html>hello</html>") end
routes["GET /unavailable"] = flaky(503)
routes["PUT /busy"] = flaky(429)
routes["DELETE /gateway"] = flaky(502)
routes["GET /broken"] = flaky(500)
routes["GET /down"] = function(reply) reply:json(500, { error = "not now" }) end
routes["POST /unavailable"] = flaky(503)
routes["POST /later"] = flaky(429, { ["Retry-After"] = "0" })
routes["POST /much-later"] = flaky(429, { ["Retry-After"] = "3600" })
routes["GET /lost"] = lost
routes["POST /lost"] = lost
routes["GET /half"] = function(reply, request)
  if request.count == 1 then
    reply:raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\"")
    reply:cut()
  else
    reply:json(200, { count = request.count })
  end
end
routes["DELETE /gone"] = function(reply, request)
  if request.count == 1 then
    reply:cut()
  else
    reply:json(404, { error = "no such box" })
  end
end
routes["GET /always"] = function(reply) reply:json(503, { error = "never" }) end
routes["GET /silent"] = function(reply) reply:hold() end
routes["GET /slow-body"] = function(reply)
  reply:raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
  reply:hold()
end
routes["GET /slow-error"] = function(reply)
  reply:raw("HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\n{")
  reply:hold()
end
]]

describe("a client", function()
  local server, api

  setup(function()
    server = fault.start(ROUTES)
    api = client.new(server:options())
  end)

  teardown(function()
    server:stop()
  end)

  local function call(method, path, more)
    local spec = { method = method, path = path }
    for key, value in pairs(more or {}) do
      spec[key] = value
    end
    return api:request(spec)
  end

  local function refused(...)
    return fault.raised(call, ...)
  end

  it("sends key, agent and telemetry headers, and a content type only with a body", function()
    call("GET", "/ok")
    call("POST", "/ok", { json = { b = 1 }, headers = { ["X-Mine"] = "1", accept = "text/plain" } })
    local get = server:log("GET /ok")[1].headers
    local post = server:log("POST /ok")[1]
    assert.are.equal(fault.KEY, get["x-box-api-key"])
    assert.matches("^lbox/%d", get["user-agent"])
    assert.is_nil(get["content-type"])
    assert.is_nil(get["expect"])
    assert.are.equal("application/json", post.headers["content-type"])
    assert.are.equal("1", post.headers["x-mine"])
    assert.are.equal("text/plain", post.headers.accept)
    assert.are.equal('{"b":1}', post.body)
  end)

  it("merges extra into the body as it is", function()
    call("POST", "/ok", { json = { a = 1, b = 2 }, extra = { b = 3, new = { x = true } } })
    local log = server:log("POST /ok")
    assert.are.equal('{"a":1,"b":3,"new":{"x":true}}', log[#log].body)
  end)

  it("refuses headers and bodies that cannot be sent, before any request", function()
    local before = #server:log()
    assert.are.equal("usage", refused("POST", "/ok",
      { headers = { ["X-A"] = "a\r\nX-B: b" } }).kind)
    assert.are.equal("usage", refused("POST", "/ok", { headers = { ["X A"] = "a" } }).kind)
    assert.are.equal("usage", refused("POST", "/ok", { headers = { ["X-A"] = 5 } }).kind)
    assert.are.equal("usage", refused("POST", "/ok", { json = { f = print } }).kind)
    assert.are.equal("usage", refused("POST", "/ok", { json = { s = "\255" } }).kind)
    assert.are.equal(before, #server:log())
  end)

  it("reads null as {}, and an empty answer only where one may be", function()
    assert.are.same({}, (call("GET", "/null")))
    assert.are.same({}, (call("GET", "/empty", { may_be_empty = true })))
    assert.are.equal("api", refused("GET", "/empty").kind)
  end)

  it("says that an answer is none of a Box API", function()
    local err = refused("GET", "/page")
    assert.are.equal("api", err.kind)
    assert.are.equal(200, err.status_code)
    assert.matches("not what a Box API answers", err.message)
  end)

  it("retries what is idempotent after 429 and 502 to 504", function()
    assert.are.equal(2, call("GET", "/unavailable").count)
    assert.are.equal(2, call("PUT", "/busy").count)
    assert.are.equal(2, call("DELETE", "/gateway").count)
  end)

  it("does not retry other errors", function()
    assert.are.equal(500, refused("GET", "/broken").status_code)
    assert.are.equal(1, #server:log("GET /broken"))
  end)

  it("retries a POST only when the server says when", function()
    assert.are.equal(503, refused("POST", "/unavailable", { json = {} }).status_code)
    assert.are.equal(1, #server:log("POST /unavailable"))
    assert.are.equal(2, call("POST", "/later", { json = {} }).count)
  end)

  it("does not wait for a Retry-After beyond the deadline", function()
    local started = lbox.now()
    local err = refused("POST", "/much-later", { json = {}, timeout = 5000 })
    assert.are.equal(429, err.status_code)
    assert.is_true(err.retryable)
    assert.is_true(lbox.now() - started < 2000)
  end)

  it("retries a GET whose answer was lost or cut, never a POST", function()
    assert.are.equal(2, call("GET", "/lost").count)
    assert.are.equal(2, call("GET", "/half").count)
    local err = refused("POST", "/lost", { json = {} })
    assert.are.equal("network", err.kind)
    assert.matches("it may have been carried out", err.message)
    assert.are.equal(1, #server:log("POST /lost"))
  end)

  it("takes the 404 of a repeated DELETE as success", function()
    assert.has_no.errors(function() call("DELETE", "/gone") end)
    assert.are.equal(2, #server:log("DELETE /gone"))
    assert.are.equal(404, refused("DELETE", "/never-there").status_code)
  end)

  it("gives up after a few tries", function()
    assert.are.equal(503, refused("GET", "/always").status_code)
    local tries = #server:log("GET /always")
    assert.is_true(tries > 1 and tries <= 4, tries)
  end)

  it("keeps its deadline whether the head, the body or nothing at all comes", function()
    for _, path in ipairs { "/silent", "/slow-body" } do
      local started = lbox.now()
      local err = refused("GET", path, { timeout = 80 })
      assert.are.equal("timeout", err.kind, path)
      assert.matches("within 80 ms", err.message)
      assert.is_true(lbox.now() - started < 1000, path)
    end
  end)

  it("reports the status of an error whose body never comes", function()
    local err = refused("GET", "/slow-error", { timeout = 80 })
    assert.are.equal("api", err.kind)
    assert.are.equal(500, err.status_code)
  end)

  it("logs requests on stderr when asked to, without the key", function()
    local lines = {}
    local stderr = io.stderr
    -- luacheck: push ignore 122
    io.stderr = { write = function(_, text) lines[#lines + 1] = text end }
    local ok, err = pcall(function()
      local talkative = client.new(server:options { debug = true })
      talkative:request { method = "GET", path = "/ok", query = { { "token", "s3cr3t" } } }
      pcall(talkative.request, talkative, { method = "GET", path = "/down" })
    end)
    io.stderr = stderr
    -- luacheck: pop
    assert.is_true(ok, err)
    assert.are.equal(2, #lines)
    assert.matches("^lbox: GET /ok %-> 200 in %d+ ms\n$", lines[1])
    assert.matches("^lbox: GET /down %-> not now %(500%) in %d+ ms\n$", lines[2])
  end)

  it("ends a request whose task is cancelled", function()
    local err = fault.raised(lbox.timeout, 50, function()
      call("GET", "/silent")
    end)
    assert.are.equal("timeout", err.kind)
  end)
end)

describe("a retry", function()
  it("waits at least as long as it is asked to, in seconds or until a date", function()
    assert.are.equal(1500, retry.retry_after("1.5"))
    assert.are.equal(0, retry.retry_after("-3"))
    assert.are.equal(30000, retry.retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784111777 - 30))
    assert.are.equal(0, retry.retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784111777 + 5))
    assert.are.equal(1000, retry.retry_after("Thu, 29 Feb 2024 00:00:01 GMT", 1709164800))
    for _, nonsense in ipairs { "soon", "", "nan", "inf", "1 Foo 1994 08:49:37 GMT" } do
      assert.is_nil(retry.retry_after(nonsense), nonsense)
    end
    assert.is_nil(retry.retry_after(nil))
    assert.is_nil(retry.retry_after(("1"):rep(90000) .. "x")) -- at once: no look at each digit
  end)

  it("backs off with jitter, and never after what is bound to fail again", function()
    local outcome = { method = "GET", sent = true }
    for try = 1, 3 do
      local delay = retry.delay(try, outcome)
      assert.is_true(delay >= 0 and delay <= 200 * 2 ^ (try - 1))
    end
    assert.is_nil(retry.delay(4, outcome))
    assert.is_nil(retry.delay(1, { method = "GET", sent = false, permanent = true }))
    assert.is_truthy(retry.delay(1, { method = "POST", sent = false }))
    assert.is_nil(retry.delay(1, { method = "POST", sent = true }))
    assert.are.equal(9000, retry.delay(1, { method = "POST", sent = true, status = 429,
      retry_after = 9000 }))
  end)
end)

describe("an error message", function()
  it("shows no secret", function()
    local secrets = { "s3cr3t-v%alue", "abc" }
    local function check(text)
      return failure.redact(text, secrets)
    end
    assert.are.equal("x [redacted] y", check("x s3cr3t-v%alue y"))
    assert.are.equal("abcd", check("abcd")) -- too short to be one
    assert.are.equal("key [redacted]!", check("key box_0123456789abcdef!"))
    assert.are.equal("[redacted]", check("sk-ant-0123456789abcdef"))
    assert.are.equal("Bearer [redacted]", check("Bearer abc.def-ghi"))
    assert.are.equal("box_ids must contain", check("box_ids must contain"))
  end)

  it("is one line of bounded length, cut between characters", function()
    local text = failure.said("a\n  b\tc" .. ("é"):rep(1000))
    assert.not_matches("[\n\t]", text)
    assert.is_true(#text <= 510)
    assert.is_true(require("lbox.core").is_utf8(text))
  end)
end)
