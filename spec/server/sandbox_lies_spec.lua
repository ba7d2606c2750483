-- A lbox-init that says what it should not: nothing that comes out of a box is believed.
local async = require "lbox.async"
local posix = require "lbox.server.posix"
local sandbox = require "lbox.server.sandbox"
local sandboxes = require "spec.support.sandbox"
local support = require "spec.support.local"

local open_fds, raised = sandboxes.open_fds, sandboxes.raised

describe("a lbox-init that lies", function()
  local dir
  local place = sandboxes.place()

  --- Starts a box whose lbox-init is a Python program: `answer` handles one request.
  local function start(body)
    local bin = dir .. "/bad-bin"
    support.sh("mkdir -p " .. bin)
    local file = assert(io.open(bin .. "/lbox-init", "w"))
    file:write([[#!/usr/bin/python3
import array, os, socket, struct, sys, time
s = socket.socket(fileno=3)
def say(id, code=0, fields=b"", fds=()):
    s.sendmsg([struct.pack("=Ii", id, code) + fields],
              [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
def hear():
    bytes, *_ = s.recvmsg(65536, 4096)
    if not bytes:
        sys.exit(0)
    return struct.unpack("=II", bytes[:8])
]] .. body)
    file:close()
    support.sh("chmod 755 " .. bin .. " " .. bin .. "/lbox-init")
    support.sh("mkdir -p " .. dir .. "/boxes/bad && chmod 711 " .. dir .. "/boxes/bad")
    if not posix.lstat(dir .. "/boxes/bad/root") then
      sandbox.create_root(dir .. "/boxes/bad/root", sandboxes.uid)
    end
    return sandbox.start {
      id = "bad", root = dir .. "/boxes/bad/root", uid = sandboxes.uid, etc = place.data.etc, bin = bin,
    }
  end

  setup(function()
    dir = place.make()
  end)

  teardown(place.remove)

  local function ended(sb)
    async.timeout(5000, sb.run, sb)
    assert.is_true(sb.closed)
  end

  it("and passes something that is no file is not read", function()
    local sb = start([[
say(0)
while True:
    op, id = hear()
    r, w = os.pipe()
    say(id, 0, struct.pack("=I", 0) if op == 5 else b"", [r])
]])
    assert.are.equal("EINVAL", raised("local", sb.read_file, sb, "/x", 10).errno)
    raised("local", sb.list, sb, "/x")
    assert.are.equal("EINVAL", raised("local", sb.write_file, sb, "/x", "y").errno)
    sb:close()
    ended(sb)
  end)

  it("and passes something that is no socket does not connect", function()
    local sb = start([[
say(0)
while True:
    op, id = hear()
    say(id, 0, b"", [os.open("/etc/passwd", os.O_RDONLY)])
]])
    local before = open_fds()
    assert.are.same({ nil, "ENOTSOCK" }, { sb:connect(80) })
    assert.are.equal(before, open_fds())
    sb:close()
    ended(sb)
  end)

  it("and lists nonsense is not believed", function()
    local sb = start([[
say(0)
while True:
    op, id = hear()
    fd = os.memfd_create("x")
    os.write(fd, b"\0" * 20 + b"\xff\xff\xff\xff")
    os.lseek(fd, 0, 0)
    say(id, 0, b"", [fd])
]])
    assert.matches("no list", raised("local", sb.list, sb, "/x").message)
    sb:close()
    ended(sb)
  end)

  it("and lists more than there may be is not believed", function()
    local sb = start([[
say(0)
while True:
    op, id = hear()
    fd = os.memfd_create("x")
    os.write(fd, (b"\0" * 17 + struct.pack("=I", 0)) * 50001)
    os.lseek(fd, 0, 0)
    say(id, 0, b"", [fd])
]])
    assert.matches("no list", raised("local", sb.list, sb, "/x").message)
    sb:close()
    ended(sb)
  end)

  for what, body in pairs {
    ["answers what nobody asked"] = "say(0); hear(); say(4711)",
    ["says twice that it is up"] = "say(0); hear(); say(0)",
    ["answers too little"] = "say(0); hear(); s.send(b'abc')",
    ["answers too much"] = "say(0); op, id = hear(); say(id, 0, b'x' * 10000)",
    ["passes too many files"] = "say(0); op, id = hear(); f = os.open('/etc/passwd', 0); "
      .. "say(id, 0, b'', [f, f])",
    ["passes very many files"] = "say(0); op, id = hear(); f = os.open('/etc/passwd', 0); "
      .. "say(id, 0, b'', [f] * 200)",
    ["passes files with an empty message"] = "say(0); hear(); f = os.open('/etc/passwd', 0); "
      .. "s.sendmsg([b''], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [f] * 8))])",
    ["passes a file with an error"] = "say(0); op, id = hear(); say(id, 2, b'', [0])",
    ["passes no file"] = "say(0); op, id = hear(); say(id)",
    ["floods"] = "say(0); hear()\nwhile True: say(99)",
    ["goes away"] = "say(0); hear(); sys.exit()",
  } do
    it("and " .. what .. " is ended", function()
      start("say(0)\nwhile True: hear()"):close()
      local sb = start(body .. "\nwhile True: hear()\n")
      local before = open_fds()
      raised("local", sb.read_file, sb, "/x", 10)
      ended(sb)
      async.sleep(20)
      assert.is_true(open_fds() <= before)
    end)
  end

  it("and never answers does not hold up who gives up waiting", function()
    local sb = start("say(0)\nwhile True: hear()\n")
    local err = raised("timeout", async.timeout, 50, function() sb:read_file("/x", 10) end)
    assert.is_truthy(err)
    sb:close()
    ended(sb)
  end)

  it("and ends at once is reported with what it said", function()
    local err = raised("local", start, "sys.stderr.write('no thanks\\n')\n")
    assert.matches("no thanks", err.message)
  end)

  it("and ignores the end of the link is killed", function()
    local sb = start("say(0); s.close(); time.sleep(60)\n")
    ended(sb)
  end)
end)
