local async = require "lbox.async"
local fault = require "spec.support.fault"
local http = require "lbox.http"
local process = require "spec.support.process"

local ROUTES = [[
routes["GET /hello"] = function(reply) reply:text(200, "hello", { ["X-Thing"] = "a" }) end
routes["GET /silent"] = function(reply) reply:hold() end
routes["GET /drip"] = function(reply)
  reply:begin()
  for i = 1, 3 do
    reply:chunk("event: text\ndata: {\"text\":\"" .. i .. "\"}\n\n")
    reply:sleep(20)
  end
  reply:finish()
end
routes["GET /texts"] = function(reply)
  reply:begin()
  for _, data in ipairs { '{"text":"a"}', '{"text":""}', '{"text":"a\\"b"}', '{"text": "b"}',
    '{"text":"\\\\n\\n\\t\\r\\b\\f\\/."}', '{"text":"\\\\"}', '{"text":"\\"}', '{"text":"\\x"}',
    '{"text":"a","b":"c"}', '{"text":"\\u00e9"}', '{"text":"é"}', '{"text":"}',
      '{"text":"a\tb"}' } do
    reply:event("text", data)
  end
  reply:event("thinking", '{"text":"a\\nb"}')
  reply:event("more", '{"text":"a"}')
  reply:finish()
end
routes["GET /endless"] = function(reply)
  reply:begin()
  while reply:event("text", { text = "x" }) do
    reply:sleep(10)
  end
end
]]

local function done(req)
  return req:done()
end

describe("a transfer", function()
  local server

  setup(function()
    server = fault.start(ROUTES)
  end)

  teardown(function()
    server:stop()
  end)

  local function send(path, mode)
    return http.send { method = "GET", url = server.url .. path, mode = mode }
  end

  it("is waited for to its end", function()
    local transfer = send("/hello")
    assert.is_true(transfer:wait(done))
    assert.are.equal(200, transfer.req:status())
    assert.are.equal("hello", transfer.req:body())
    assert.are.equal("a", transfer.req:header("x-thing"))
    assert.is_true(transfer:wait(done))
    assert.is_true(transfer:was_sent())
  end)

  it("is waited for no longer than a limit", function()
    local transfer = send("/silent")
    local started = async.now()
    assert.is_false(transfer:wait(done, started + 50))
    assert.is_true(async.now() - started >= 49)
    assert.is_false(transfer:wait(done, started)) -- long past
    assert.is_true(transfer:was_sent())
    assert.is_true(transfer.req:done())
    transfer:close()
  end)

  it("is waited for change by change", function()
    local transfer = send("/drip", "sse")
    local texts, waits = {}, 0
    while true do
      local name, data = transfer.req:next()
      if name then
        texts[#texts + 1] = data
      elseif transfer.req:done() then
        break
      else
        waits = waits + 1
        assert.is_true(transfer:wait_change(async.now() + 5000))
      end
    end
    assert.are.same({ '{"text":"1"}', '{"text":"2"}', '{"text":"3"}' }, texts)
    assert.is_true(waits >= 3, waits)
  end)

  it("gives the text of plain text events without the JSON around it, on request", function()
    local transfer = http.send { method = "GET", url = server.url .. "/texts", mode = "sse",
      texts = true }
    transfer:wait(done)
    local events = {}
    local name, data, text = transfer.req:next()
    while name do
      events[#events + 1] = { name, data or false, text or false }
      name, data, text = transfer.req:next()
    end
    assert.are.same({
      { "text", false, "a" }, { "text", false, "" }, { "text", false, 'a"b' },
      { "text", '{"text": "b"}', false }, { "text", false, "\\n\n\t\r\b\f/." },
      { "text", false, "\\" }, { "text", '{"text":"\\"}', false }, { "text", '{"text":"\\x"}', false },
      { "text", '{"text":"a","b":"c"}', false },
      { "text", '{"text":"\\u00e9"}', false }, { "text", false, "é" },
        { "text", '{"text":"}', false },
      { "text", '{"text":"a\tb"}', false }, { "thinking", false, "a\nb" }, { "more", '{"text":"a"}', false },
    }, events)
  end)

  it("says that nothing was sent when nobody listens", function()
    local transfer = http.send { method = "GET", url = "http://127.0.0.1:1/" }
    assert.is_true(transfer:wait(done))
    assert.is_false(transfer:was_sent())
  end)

  it("ends when nothing holds it any more", function()
    send("/hello"):wait(done)
    collectgarbage()
    local before = process.open_fds()
    local held = {}
    for i = 1, 10 do
      held[i] = send("/endless", "sse")
      assert.is_true(held[i]:wait_change(async.now() + 5000))
    end
    assert.is_true(process.open_fds() >= before + 9)
    for i = 1, 10 do
      held[i] = nil
    end
    collectgarbage()
    collectgarbage()
    async.sleep(10)
    assert.is_true(process.open_fds() <= before + 1, process.open_fds() .. " > " .. before)
  end)
end)
