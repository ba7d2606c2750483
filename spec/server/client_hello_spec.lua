-- The name a TLS client asks for: read at every split, and never from anything that is no ClientHello.
local client_hello = require "lbox.server.client_hello"
local random = require "spec.support.random"

local function names(name, kind)
  return (">s2"):pack((">Bs2"):pack(kind or 0, name))
end

local function hello(extensions, tail)
  local list = {}
  for i, each in ipairs(extensions) do
    list[i] = (">I2s2"):pack(each[1], each[2])
  end
  return (">I2c32s1s2s1s2"):pack(0x303, ("r"):rep(32), ("s"):rep(32), "\x13\x01\x13\x02", "\0", table.concat(list))
    .. (tail or "")
end

local function records(body, size)
  local handshake = "\1" .. (">I3"):pack(#body) .. body
  local out = {}
  for at = 1, #handshake, size or 16384 do
    out[#out + 1] = (">BBBs2"):pack(22, 3, 1, handshake:sub(at, at + (size or 16384) - 1))
  end
  return table.concat(out)
end

local HELLO = records(hello { { 43, "\2\3\4" }, { 0, names("ok.test") }, { 16, "\0\3\2h2" } })

describe("a ClientHello", function()
  it("tells the name", function()
    assert.are.same({ "name", "ok.test" }, { client_hello.read(HELLO) })
    assert.are.same({ "name", "ok.test" }, { client_hello.read(HELLO .. "\20\3\3\0\1\1\23\3\3\0\1x") })
    assert.are.same({ "name" }, { client_hello.read(records(hello { { 43, "\2\3\4" } })) })
  end)

  it("is not read before it is whole, wherever it is cut", function()
    for n = 0, #HELLO - 1 do
      assert.are.equal("more", (client_hello.read(HELLO:sub(1, n))), n)
    end
  end)

  it("may come in many records", function()
    local body = hello { { 0, names("ok.test") } }
    for size = 1, 60 do
      local bytes = records(body, size)
      assert.are.same({ "name", "ok.test" }, { client_hello.read(bytes) })
      assert.are.equal("more", (client_hello.read(bytes:sub(1, -2))))
    end
  end)

  it("is refused when it says two things, or what no client says", function()
    for what, bytes in pairs {
      ["two names"] = records(hello { { 0, names("ok.test") }, { 0, names("other.test") } }),
      ["two names in one"] = records(hello { { 0, (">s2"):pack((">Bs2"):pack(0, "a") .. (">Bs2"):pack(0, "b")) } }),
      ["a name of another kind"] = records(hello { { 0, names("ok.test", 1) } }),
      ["bytes behind the name"] = records(hello { { 0, names("ok.test") .. "x" } }),
      ["bytes behind it all"] = records(hello({ { 0, names("ok.test") } }, "x")),
      ["no name of the DNS"] = records(hello { { 0, names("ok.test\0.other.test") } }),
      ["another handshake"] = "\22\3\1\0\4\2\0\0\0",
      ["another record"] = "\23\3\1\0\4\1\0\0\0",
      ["another protocol"] = "\22\2\1\0\4\1\0\0\0",
      ["an empty record"] = "\22\3\1\0\0",
      ["a record that is too long"] = "\22\3\1\255\255",
      ["a handshake that is too long"] = "\22\3\1\0\4\1\255\255\255",
      ["a short one"] = records("\3\3"),
      ["a long one in small records"] = ("\22\3\1\0\1\1"):rep(20000),
    } do
      assert.are.equal("bad", (client_hello.read(bytes)), what)
    end
  end)

  it("does not break on any bytes", function()
    local next_random = random.new(7)
    for _ = 1, 20000 do
      local at = next_random(#HELLO)
      local bytes = HELLO:sub(1, at - 1) .. string.char(next_random(256) - 1) .. HELLO:sub(at + 1)
      local verdict, name = client_hello.read(bytes)
      assert.is_true(verdict == "more" or verdict == "bad" or verdict == "name", verdict)
      assert.is_true(name == nil or #name <= #HELLO)
    end
  end)
end)
