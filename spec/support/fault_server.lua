-- A Box API server that misbehaves on purpose. Run by the lbox program:
--
--     build/lbox spec/support/fault_server.lua ROUTES_FILE
--
-- prints its port and serves until it is killed. The file returns a table of handlers by "METHOD
-- /path"; each is called as handler(reply, request) and does what it likes with the connection.
-- A handler "EARLY /path" is called before the body is read.
-- What has no handler is answered as a healthy server would: GET /v2/box/{id} with a box that has
-- an agent, anything else with 404. GET /_log lists every request so far, with bodies as base64. Of
-- bodies over a megabyte only the size is kept.
local async = require "lbox.async"
local core = require "lbox.core"
local json = require "lbox.json"
local posix = require "lbox.server.posix"

local routes = dofile(arg[1])
local MOST_KEPT = 1024 * 1024

local log = json.array {}
local counts = {}
local connections = 0

-- ---------------------------------------------------------------------------- one connection

local Reply = {}
Reply.__index = Reply

--- Of this answer only so many bytes are written; then the connection is cut, or `how` says "reset" or "hold".
function Reply:cut_after(n, how)
  self.left, self.how = n, how or "cut"
end

--- Writes bytes as they are; false when the client is gone.
function Reply:raw(bytes)
  local sent = 0
  if self.left and #bytes > self.left then
    local begun = bytes:sub(1, self.left)
    self.left = nil
    self:raw(begun)
    self[self.how](self)
    return false
  elseif self.left then
    self.left = self.left - #bytes
  end
  while sent < #bytes and not self.broken do
    local n, _, errno = posix.write(self.fd, sent == 0 and bytes or bytes:sub(sent + 1))
    if n then
      sent = sent + n
    elseif errno == "EAGAIN" then
      self.ready:wait("w")
    else
      self.broken = true
    end
  end
  return not self.broken
end

local function head(status, headers)
  local lines = { ("HTTP/1.1 %d Status"):format(status) }
  for name, value in pairs(headers or {}) do
    lines[#lines + 1] = name .. ": " .. value
  end
  return table.concat(lines, "\r\n") .. "\r\n"
end

--- A whole answer.
function Reply:text(status, body, headers)
  return self:raw(head(status, headers) .. ("Content-Length: %d\r\n\r\n%s"):format(#body, body))
end

function Reply:json(status, value, headers)
  return self:text(status, json.encode(value), headers)
end

--- The beginning of an answer that comes in pieces.
function Reply:begin(status, headers)
  return self:raw(head(status or 200, headers) .. "Transfer-Encoding: chunked\r\n\r\n")
end

function Reply:chunk(bytes)
  return self:raw(("%x\r\n%s\r\n"):format(#bytes, bytes))
end

--- One event of an agent run; `data` is a table or text as it is.
function Reply:event(name, data)
  data = type(data) == "string" and data or json.encode(data)
  return self:chunk(("event: %s\ndata: %s\n\n"):format(name, data))
end

--- The clean end of a piecewise answer.
function Reply:finish()
  return self:raw("0\r\n\r\n")
end

--- Closes the connection now.
function Reply:cut()
  self.broken = true
end

--- Resets the connection now.
function Reply:reset()
  self.broken, self.is_reset = true, true
end

--- Becomes the server's side of a WebSocket: `ws:send(value)` frames a JSON value, `ws:receive()` gives the next one,
--- nil when the client is gone. `accept`: what to answer to the key instead of what is right.
function Reply:websocket(request, accept)
  self:raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    .. (accept or core.websocket_accept(request.headers["sec-websocket-key"])) .. "\r\n\r\n")
  local peer, reply, ws = core.websocket_peer(), self, {}
  function ws.send(_, value)
    peer:send(type(value) == "string" and value or json.encode(value))
    return reply:raw(peer:output())
  end
  function ws.hang_up()
    peer:hang_up()
    return reply:raw(peer:output())
  end
  function ws.receive()
    while not reply.broken do
      local kind, bytes = peer:next()
      reply:raw(peer:output())
      if kind == "message" then
        return json.decode(bytes)
      elseif kind then
        reply:cut()
        return nil
      end
      local input, _, errno = posix.read(reply.fd, 65536)
      if input and input ~= "" then
        peer:feed(input)
      elseif errno == "EAGAIN" then
        reply.ready:wait("r")
      else
        reply.broken = true
      end
    end
  end
  return ws
end

function Reply.sleep(_, ms)
  async.sleep(ms)
end

--- Says nothing more until the client is gone.
function Reply:hold()
  while not self.broken do
    self.ready:wait("r")
    local bytes, _, errno = posix.read(self.fd, 4096)
    if bytes == "" or (not bytes and errno ~= "EAGAIN") then
      self.broken = true
    end
  end
end

-- ---------------------------------------------------------------------------------- serving

local function parse(text, body, size, connection)
  local method, target = text:match("^(%S+) (%S+)")
  local path, query = target:match("^([^?]*)%??(.*)$")
  local headers = {}
  for name, value in text:gmatch("\r\n([^:\r\n]+):%s*([^\r\n]*)") do
    headers[name:lower()] = value
  end
  local name = method .. " " .. path
  counts[name] = (counts[name] or 0) + 1
  return {
    name = name, method = method, path = path, query = query, headers = headers, body = body, size = size,
    count = counts[name], connection = connection,
  }
end

local function answer(reply, request)
  if request.name == "GET /_log" then
    reply:json(200, log)
    return
  end
  local entry = {}
  for key, value in pairs(request) do
    entry[key] = value
  end
  entry.body = core.base64_encode(request.body)
  log[#log + 1] = entry
  request.entry = entry -- for handlers that note something
  local handler = routes[request.name]
  local id = request.method == "GET" and request.path:match("^/v2/box/([^/]+)$")
  if handler then
    handler(reply, request)
  elseif id then
    reply:json(200, { id = id, status = "idle", agent = "custom", model = "none", created_at = 1 })
  else
    reply:json(404, { error = "no route " .. request.name })
  end
end

--- Reads the rest of a body of which `input` has come. Returns it, "" when it is too large to be kept,
--- and what came after it; nothing when the client goes away before its end.
local function read_body(reply, input, length)
  local kept, got = { input }, #input
  while got < length do
    local bytes, _, errno = posix.read(reply.fd, 65536)
    if bytes and bytes ~= "" then
      got = got + #bytes
      kept[#kept + 1] = length <= MOST_KEPT and bytes or nil
    elseif errno == "EAGAIN" then
      reply.ready:wait("r")
    else
      return nil
    end
  end
  if length > MOST_KEPT then
    return "", ""
  end
  local all = table.concat(kept)
  return all:sub(1, length), all:sub(length + 1)
end

local function serve(fd)
  connections = connections + 1
  local connection = connections
  local reply = setmetatable({ fd = fd, ready = async.fd(fd) }, Reply)
  local input = ""
  while not reply.broken do
    local text, rest = input:match("^(.-\r\n\r\n)(.*)$")
    if text then
      local length = tonumber(text:match("\r\n[Cc]ontent%-[Ll]ength:%s*(%d+)")) or 0
      local early = rawget(routes, "EARLY " .. text:match("^%S+ (%S+)"))
      if early then
        early(reply)
      end
      local body
      body, input = read_body(reply, rest, length)
      if not body then
        break
      end
      reply.left = nil
      answer(reply, parse(text, body, length, connection))
    elseif input:byte(1) == 22 then -- a TLS handshake: not understood here
      reply:raw("HTTP/1.1 400 Bad Request\r\n\r\n")
      reply:cut()
    else
      local bytes, _, errno = posix.read(fd, 65536)
      if bytes and bytes ~= "" then
        input = input .. bytes
      elseif errno == "EAGAIN" then
        reply.ready:wait("r")
      else
        break
      end
    end
  end
  reply.ready:close()
  if reply.is_reset then
    posix.reset(fd)
  else
    posix.close(fd)
  end
end

async.run(function()
  local listener, port = assert(posix.listen { host = "127.0.0.1", port = 0 })
  posix.set_nonblock(listener)
  io.stdout:write(("%d\n"):format(port))
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
end)
