-- A box server that knows one box and one agent run, for benchmarks and for reading fast:
--
--     build/lbox spec/support/replay_server.lua [EVENTS [PAYLOAD_BYTES [EVENT]]]
--
-- prints its port, then answers GET /v2/box/{id} and POST /v2/box/{id}/run/stream until it is killed.
local async = require "lbox.async"
local posix = require "lbox.server.posix"

local EVENTS = tonumber(arg[1]) or 200000
local PAYLOAD = tonumber(arg[2]) or 40
local EVENT = arg[3] or "text"
local BATCH = 1000

local BOX = [[{"id":"replay","status":"idle","agent":"custom","model":"none","created_at":1,"updated_at":1}]]

local batch = ('event: %s\ndata: {"text":"%s"}\n\n'):format(EVENT, ("x"):rep(PAYLOAD)):rep(BATCH)

local function write_all(fd, ready, bytes)
  local sent = 0
  while sent < #bytes do
    local n, _, errno = posix.write(fd, sent == 0 and bytes or bytes:sub(sent + 1))
    if n then
      sent = sent + n
    elseif errno == "EAGAIN" then
      ready:wait("w")
    else
      return false
    end
  end
  return true
end

--- One chunk of a chunked body.
local function chunk(bytes)
  return ("%x\r\n%s\r\n"):format(#bytes, bytes)
end

local function replay(fd, ready)
  local ok = write_all(fd, ready, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    .. "Transfer-Encoding: chunked\r\n\r\n"
    .. chunk('event: run_start\ndata: {"run_id":"run_replay"}\n\n'))
  local whole = chunk(batch)
  for _ = 1, EVENTS // BATCH do
    ok = ok and write_all(fd, ready, whole)
  end
  return ok and write_all(fd, ready,
    chunk('event: done\ndata: {"input_tokens":1,"output_tokens":1}\n\n') .. "0\r\n\r\n")
end

local function serve(fd)
  local ready = async.fd(fd)
  local input = ""
  while true do
    local head, rest = input:match("^(.-\r\n\r\n)(.*)$")
    local length = head and tonumber(head:match("\r\n[Cc]ontent%-[Ll]ength:%s*(%d+)")) or 0
    if head and #rest >= length then
      input = rest:sub(length + 1)
      local ok
      if head:match("^POST") then
        ok = replay(fd, ready)
      else
        ok = write_all(fd, ready, ("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
          .. "Content-Length: %d\r\n\r\n%s"):format(#BOX, BOX))
      end
      if not ok then
        break
      end
    else
      local bytes, _, errno = posix.read(fd, 65536)
      if bytes and bytes ~= "" then
        input = input .. bytes
      elseif errno == "EAGAIN" then
        ready:wait("r")
      else
        break
      end
    end
  end
  ready:close()
  posix.close(fd)
end

local listener, port = assert(posix.listen { host = "127.0.0.1", port = 0 })
print(port)
io.stdout:flush()
local ready = async.fd(listener)
while true do
  local fd = posix.accept(listener)
  if fd then
    posix.set_nonblock(fd)
    async.spawn(serve, fd)
  else
    ready:wait("r")
  end
end
