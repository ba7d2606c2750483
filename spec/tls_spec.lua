-- What happens over TLS: broken certificates and connections, and HTTP/2.
local fault = require "spec.support.fault"
local http = require "lbox.http"
local json = require "lbox.json"
local lbox = require "lbox"
local raised = require "spec.support.raised"
local tls = require "spec.support.tls"

local ROUTES = [[
routes["POST /v2/box/b/run/stream"] = function(reply)
  reply:begin()
  reply:event("run_start", { run_id = "r" })
  reply:event("text", { text = "so far" })
  reply:cut()
end
routes["GET /v2/box/b/exec-session"] = function(reply, request)
  local ws = reply:websocket(request)
  ws:receive()
  ws:send { type = "started", pid = 1, execId = "e" }
  local frame = ws:receive()
  ws:send { type = "stdout", data = frame.data }
  if frame.data == "Y3V0" then
    reply:cut()
  else
    ws:send { type = "exit", code = 0 }
  end
end
routes["GET /v2/box/half"] = function(reply)
  reply:raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"id\":\"half\",\"status\":")
  reply:cut()
end
]]

describe("TLS", function()
  local server, front

  setup(function()
    server = fault.start(ROUTES)
  end)

  teardown(function()
    server:stop()
  end)

  after_each(function()
    front:stop()
  end)

  local function through(mode, cert)
    front = tls.start(mode, server.port, cert)
    return front
  end

  local function get(id, more)
    local opts = { base_url = front.url, api_key = fault.KEY, ca_file = front.ca_file }
    for key, value in pairs(more or {}) do
      opts[key] = value
    end
    return lbox.Box.get(id, opts)
  end

  --- Getting a box fails with this, once and for all or not.
  local function refuses(pattern, retryable, more)
    local err = raised("network", get, "b", more)
    assert.matches(pattern, err.message)
    assert.are.equal(retryable, err.retryable)
  end

  it("is taken when ca_file vouches for the server, and only then", function()
    through("proxy")
    assert.are.equal("b", get("b").id)
    refuses("^no secure connection to https://127%.0%.0%.1:%d+: .*certificate", false, { ca_file = "" })
    refuses("^no secure connection", false, { ca_file = front.dir .. "/nope.pem" })
  end)

  it("is refused with a certificate for another host", function()
    through("proxy", "example.org")
    refuses("^no secure connection to https://127%.0%.0%.1:%d+: ", false)
  end)

  it("is refused with a certificate that has expired", function()
    through("proxy", "expired")
    refuses("^no secure connection to https://127%.0%.0%.1:%d+: .*expired", false)
  end)

  it("that breaks in its handshake is tried again, and then an error", function()
    through("reset")
    refuses("^no secure connection to https://127%.0%.0%.1:%d+: ", true)
  end)

  it("that never gets through its handshake ends at the deadline", function()
    through("silent")
    local err = raised("timeout", get, "b", { timeout = 200 })
    assert.matches("^no answer to GET /v2/box/b within 200 ms$", err.message)
  end)

  it("that is cut is no end of an answer", function()
    through("proxy")
    local err = raised("network", get, "half")
    assert.matches("^the answer to GET /v2/box/half was cut off", err.message)
    err = raised("stream", function()
      get("b").agent:run { prompt = "x" }
    end)
    assert.are.equal("so far", err.partial)
  end)

  --- Says something in a session; what comes back, and how it ended.
  local function talk(opts, said)
    opts.api_key = fault.KEY
    local session = lbox.Box.get("b", opts).exec:session { cmd = "x" }
    session:write(said)
    local _, data = session.output(session)(session)
    return data, pcall(session.wait, session)
  end

  it("carries sessions, and tells when one is cut", function()
    through("proxy")
    local opts = { base_url = front.url, ca_file = front.ca_file }
    assert.are.same({ "hello", true, 0 }, { talk(opts, "hello") })
    local data, ok, err = talk(opts, "cut")
    assert.are.same({ "cut", false, "stream" }, { data, ok, err.kind })
  end)

  it("and sessions go through a proxy, and sessions without TLS, too", function()
    through("proxy", "box.example")
    local tunnel = tls.start("connect", front.url:match("%d+$"))
    local ok, err = pcall(function()
      assert.are.equal("hello", (talk({
        base_url = "https://box.example", ca_file = front.ca_file, proxy = tunnel.url:gsub("^https", "http"),
      }, "hello")))
    end)
    tunnel:stop()
    assert(ok, err)
    tunnel = tls.start("connect", server.port)
    ok, err = pcall(function()
      assert.are.equal("hello", (talk({ base_url = "http://box.example", proxy = tunnel.url:gsub("^https", "http") },
        "hello")))
    end)
    tunnel:stop()
    assert(ok, err)
  end)
end)

describe("a server that speaks HTTP/2", function()
  local server

  before_each(function()
    server = tls.start("h2")
  end)

  after_each(function()
    server:stop()
  end)

  local function box()
    return lbox.Box.get("b", { base_url = server.url, api_key = fault.KEY, ca_file = server.ca_file })
  end

  local function stats()
    local transfer = http.send { method = "GET", url = server.url .. "/_stats", ca_file = server.ca_file }
    transfer:wait(function(req) return req:done() end)
    return assert(json.decode(transfer.req:body()))
  end

  it("is asked over one connection by a whole fan-out", function()
    local b = box()
    local list = {}
    for i = 1, 40 do
      list[i] = i
    end
    lbox.map(list, function()
      assert.are.equal("ok", b.exec:command("x").result)
    end, { concurrency = 20 })
    local seen = stats()
    assert.are.equal(40, seen.requests["POST /v2/box/b/exec HTTP/2"])
    assert.are.equal(1, seen.sessions)
    assert.are.equal(20, seen.most_at_once)
  end)

  it("has a connection for each stream", function()
    local b = box()
    lbox.map({ 1, 2, 3, 4, 5 }, function()
      assert.are.equal("done", b.agent:run({ prompt = "x" }).result)
    end)
    local seen = stats()
    assert.are.equal(5, seen.requests["POST /v2/box/b/run/stream HTTP/1"])
    assert.are.equal(5, seen.http1_connections)
    assert.are.equal(1, seen.sessions)
  end)
end)
