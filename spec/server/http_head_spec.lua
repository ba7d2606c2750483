-- Heads of HTTP requests: what is read, and what is refused.
local http_head = require "lbox.server.http_head"
local random = require "spec.support.random"

describe("the head of an HTTP request", function()
  it("is read, changed and written", function()
    local head = assert(http_head.parse("GET /a?b HTTP/1.1\r\nHost: x:1\r\nX-Odd:\t y \r\nAuthorization: z\r\n"
      .. "authorization: again\r\nConnection: keep-alive, Upgrade\r\n\r\n"))
    assert.are.equal("GET", head.method)
    assert.are.equal("x:1", head:get("host"))
    assert.are.equal("y", head:get("x-odd"))
    assert.is_nil(head:get("cookie"))
    assert.is_false(head:get("authorization"))
    assert.is_true(head:lists("connection", "upgrade"))
    assert.is_false(head:lists("connection", "up"))
    head:remove("authorization")
    assert.are.equal("GET /a?b HTTP/1.1\r\nHost: x:1\r\nX-Odd:\t y \r\nConnection: keep-alive, Upgrade\r\n\r\n",
      head:encode())
  end)

  it("tells how long the body is, when there is one way to read that", function()
    for fields, want in pairs {
      [""] = 0,
      ["Content-Length: 12\r\n"] = 12,
      ["Transfer-Encoding: Chunked\r\n"] = "chunked",
      ["Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"] = false,
      ["Content-Length: 1\r\nContent-Length: 1\r\n"] = false,
      ["Content-Length: +1\r\n"] = false,
      ["Content-Length: 1, 1\r\n"] = false,
      ["Content-Length: \r\n"] = false,
      ["Content-Length: 1000000000000000\r\n"] = false,
      ["Transfer-Encoding: identity\r\n"] = false,
      ["Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"] = false,
    } do
      local head = assert(http_head.parse("GET / HTTP/1.1\r\n" .. fields .. "\r\n"))
      assert.are.equal(want, head:body() or false, fields)
    end
  end)

  it("comes out as it went in, or not at all, whatever the bytes are", function()
    local draw = random.new(3)
    local parts = { "GET ", "/", " HTTP/1.1", "\r\n", "\r", "\n", "\0", ":", " ", "\t", "a", "Host", "\255",
      "\r\n\r\n" }
    local read = 0
    for _ = 1, 20000 do
      local text = draw(2) == 1 and "GET / HTTP/1.1\r\n" or ""
      for _ = 1, draw(8) do
        text = text .. parts[draw(#parts)]
      end
      text = text .. "\r\n\r\n"
      text = text:sub(1, select(2, text:find("\r\n\r\n", 1, true)))
      local head, why = http_head.parse(text)
      read = read + (head and 1 or 0)
      assert.are.equal(head and text or "refused", head and head:encode() or why and "refused")
    end
    assert.is_true(read > 500, read)
  end)
end)
