-- Ports of this machine that boxes reach: bytes go both ways, and only to the ports that were named.
local lbox = require "lbox"
local support = require "spec.support.local"
local Box = lbox.Box

-- A program of the box that speaks with a port of 127.0.0.1.
local function client(port, body)
  return ("python3 - <<'E'\nimport socket\ns = socket.create_connection(('127.0.0.1', %d), 5)\n%s\nE\n")
    :format(port, body)
end

--- Starts a program of this machine that prints its port first; returns pid and port.
local function start(source)
  local out = os.tmpname()
  local pid = support.sh(("python3 -u -c '%s' >%s 2>/dev/null </dev/null & echo $!"):format(source, out)):match("%d+")
  local port
  for _ = 1, 100 do
    local file = io.open(out)
    port = file:read("l")
    file:close()
    if port and port ~= "" then
      break
    end
    lbox.sleep(20)
  end
  os.remove(out)
  return pid, tonumber(port)
end

-- Gives back what it is sent, until that ends, and then says how much it was.
local ECHO = [[
import socket, threading
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); print(s.getsockname()[1])
def serve(c):
    n = 0
    while True:
        b = c.recv(65536)
        if not b: break
        n += len(b); c.sendall(b)
    c.sendall(b"|%d" % n); c.close()
while True:
    c, _ = s.accept(); threading.Thread(target=serve, args=(c,), daemon=True).start()
]]

describe("a port of this machine", function()
  local server, box, pid, port, other, other_port, free

  setup(function()
    other, other_port = start(ECHO)
    pid, free = start(ECHO)
    os.execute("kill " .. pid)
    pid, port = start(ECHO)
    server = support.start { args = ("--host-port %d --host-port %d"):format(port, free) }
    box = Box.create(server:client())
  end)

  teardown(function()
    os.execute(("kill %s %s"):format(pid, other))
    server:stop()
  end)

  local function run(script)
    return box.exec:command(script).result
  end

  it("is reached from a box at 127.0.0.1, both ways, also after one way has ended", function()
    assert.are.equal("hello|5", run(client(port, [[
s.sendall(b"hello"); s.shutdown(socket.SHUT_WR)
b = b""
while True:
    x = s.recv(100)
    if not x: break
    b += x
print(b.decode(), end="")]])))
  end)

  it("takes no more than is read of it, and loses nothing", function()
    assert.are.equal("20000000 |20000000", run(client(port, [[
import threading, time
def send():
    for i in range(200): s.sendall(bytes([i]) * 100000)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
time.sleep(0.3)
b = bytearray()
while True:
    x = s.recv(1 << 20)
    if not x: break
    b += x
good = all(b[i * 100000] == i and b[i * 100000 + 99999] == i for i in range(200))
print(20000000 if good else "damaged", b[20000000:].decode(), end="")]])))
  end)

  it("serves many connections at once", function()
    assert.are.equal("100", run(client(port, [[
import concurrent.futures
def one(i):
    c = socket.create_connection(("127.0.0.1", s.getpeername()[1]), 20)
    c.sendall(b"%d" % i); c.shutdown(socket.SHUT_WR)
    b = b""
    while True:
        x = c.recv(100)
        if not x: return b.startswith(b"%d|" % i)
        b += x
with concurrent.futures.ThreadPoolExecutor(100) as pool:
    print(sum(pool.map(one, range(100))), end="")]])))
  end)

  it("that was not named is not reached", function()
    assert.matches("refused", run(client(other_port, "")))
  end)

  it("on which nobody listens ends the connection", function()
    assert.are.equal("closed", run(client(free, [[
try: print("closed" if s.recv(1) == b"" else "data", end="")
except ConnectionResetError: print("closed", end="")]])))
  end)

  it("is reached again by a box that was stopped, and by another one", function()
    local hello = client(port, 's.sendall(b"x"); print(s.recv(1).decode(), end="")')
    local second = Box.create(server:client())
    assert.are.equal("x", second.exec:command(hello).result)
    second:delete()
    server:kill("TERM")
    local dir = server.dir
    os.remove(server.log)
    server = support.start { dir = dir, args = ("--host-port %d"):format(port) }
    box = Box.get(box.id, server:client())
    assert.are.equal("x", run(hello))
  end)

  it("is a number", function()
    local said, status = support.sh(support.program .. " serve --data " .. server.dir .. "/x --host-port 80")
    assert.matches("80: a number from 1024 to 65535 is needed", said, 1, true)
    assert.is_true(status ~= 0)
  end)
end)
