-- Every way a call can fail says so in its own words, with its kind.
local lbox = require "lbox"
local peer = require "spec.support.peer"
local Box = lbox.Box

local function failure(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(lbox.is_error(err), tostring(err))
  return err
end

local function options(url, more)
  local opts = { base_url = url, api_key = "box_secret123" }
  for key, value in pairs(more or {}) do
    opts[key] = value
  end
  return opts
end

describe("arguments", function()
  it("name the nearest option for a typo", function()
    assert.are.equal('unknown option "nmae" (did you mean "name"?)',
      failure(Box.create, options("http://127.0.0.1:1", { nmae = "x" })).message)
  end)

  it("are refused before any request when ids are blank", function()
    assert.are.equal("usage", failure(Box.get, " ", options("http://127.0.0.1:1")).kind)
    assert.are.equal("box_ids must contain at least one non-empty id",
      failure(Box.delete_boxes, options("http://127.0.0.1:1", { box_ids = {} })).message)
  end)

  it("must be sensible addresses", function()
    assert.are.equal("usage", failure(Box.list, options("ftp://x")).kind)
  end)
end)

describe("a server", function()
  it("that is not there", function()
    local err = failure(Box.create, options("http://127.0.0.1:1"))
    assert.are.equal("network", err.kind)
    assert.are.equal("connect", err.code)
    assert.matches("cannot connect to 127%.0%.0%.1:1", err.message)
  end)

  it("whose name is not found", function()
    local err = failure(Box.create, options("http://no-such-host.invalid"))
    assert.are.equal("resolve", err.code)
    assert.matches("no%-such%-host%.invalid was not found", err.message)
  end)

  it("that speaks no TLS", function()
    local server = peer.start("garbage")
    local err = failure(Box.create, options((server.url:gsub("http:", "https:"))))
    server:stop()
    assert.are.equal("network", err.kind)
    assert.are.equal("tls", err.code)
  end)

  for status, message in pairs { [401] = "unauthorized", [404] = "box not found", [500] = "server error" } do
    it("that answers " .. status, function()
      local server = peer.start("status", status, message)
      local err = failure(Box.create, options(server.url))
      server:stop()
      assert.are.equal("api", err.kind)
      assert.are.equal(status, err.status_code)
      assert.are.equal(message, err.message)
    end)
  end

  it("whose error is not JSON and holds our key", function()
    local server = peer.start("html")
    local err = failure(Box.create, options(server.url))
    server:stop()
    assert.are.equal(500, err.status_code)
    assert.matches("Request failed with status 500", err.message)
    assert.not_matches("secret123", tostring(err))
  end)

  it("that never answers, within the deadline", function()
    local server = peer.start("silent")
    local started = lbox.now()
    local err = failure(Box.create, options(server.url, { timeout = 300 }))
    server:stop()
    assert.are.equal("timeout", err.kind)
    assert.is_true(lbox.now() - started < 2000)
    assert.matches("a box may exist", err.message)
  end)

  it("that does the work of a POST and closes: once, and reported", function()
    local server = peer.start("work_and_close")
    Box.list(options(server.url)) -- the connection the POST will find open
    local err = failure(Box.create, options(server.url))
    assert.are.equal("network", err.kind)
    assert.is_true(err.sent)
    assert.are.equal(1, server:count())
    server:stop()
  end)

  it("that cuts a run's stream: never completed", function()
    local server = peer.start("cut_stream")
    local box = Box.get("b", options(server.url))
    local stream = box.agent:stream { prompt = "x" }
    local text = ""
    local err = failure(function()
      for chunk in stream:chunks() do
        text = text .. (chunk.text or "")
      end
    end)
    assert.are.equal("stream", err.kind)
    assert.are.equal("half", err.partial)
    assert.are.equal("half", text)
    assert.are.equal("failed", stream.status)
    server:stop()
  end)
end)
