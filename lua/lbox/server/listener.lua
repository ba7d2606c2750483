--- HTTP requests for the server's handlers: one task each, answers as JSON or as streams with
--- back-pressure.
local async = require "lbox.async"
local core = require "lbox.core"
local errors = require "lbox.errors"
local httpd = require "lbox.server.httpd"
local json = require "lbox.json"
local multipart = require "lbox.server.multipart"
local sockets = require "lbox.server.socket"

local M = {}

-- A stream's writer waits while more than this is unsent.
local HIGH_WATER = 256 * 1024
-- Requests handled at once; further ones wait in the HTTP server, which refuses the rest with 503.
local MAX_LIVE = 1000
local MAX_JSON = 4 * 1024 * 1024
-- Bodies that are wanted whole: each, and all together.
local MAX_BODY, MAX_BODIES = 64 * 1024 * 1024, 256 * 1024 * 1024

-- ------------------------------------------------------------------------------ parts of a URL

local function byte_of(hex)
  return string.char(tonumber(hex, 16))
end

--- Percent-decodes; what is not an escape stays as it is.
---@param text string
---@return string
function M.unescape(text)
  return (text:gsub("%%(%x%x)", byte_of))
end

--- A query string as a table; the last of several values wins.
---@param text string
---@return table<string, string>
function M.parse_query(text)
  local query = {}
  for pair in text:gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=?(.*)$")
    name = M.unescape((name:gsub("%+", " ")))
    if name ~= "" then
      query[name] = M.unescape((value:gsub("%+", " ")))
    end
  end
  return query
end

--- The path of a request target: also of an absolute one, which a client may send as if to a proxy.
--- Nil when it is neither (and not the `*` of OPTIONS).
local function path_of(target, method)
  if target:sub(1, 1) == "/" or (target == "*" and method == "OPTIONS") then
    return target
  end
  local rest = target:match("^[Hh][Tt][Tt][Pp][Ss]?://[^/]+(.*)$")
  return rest and (rest == "" and "/" or rest)
end

-- ------------------------------------------------------------------------------------ requests

---@class lbox.server.Request
---@field method string    a HEAD is handled as the GET it asks about; its answer goes without the body
---@field path string      as sent, without the query
---@field query table<string, string>
---@field peer string|nil  "unix" or "tcp"
---@field uid integer|nil  of a unix peer
---@field address string|nil  of a tcp peer, "127.0.0.1:1234"
---@field answered boolean
---@field status integer|nil  of the answer
---@field began number     when the handler got it, in async.now()
local Request = {}
Request.__index = Request

--- The (first) header of that name, or nil.
---@param name string
---@return string|nil
function Request:header(name)
  return self.conn:header(name)
end

--- Waits until more of the body is here, or there is room to write, or the connection is upgraded, or the client is
--- gone.
local function wait_for_change(conn)
  local id = conn:id()
  local op = async.op(function() async.source(id, nil) end)
  async.source(id, function()
    async.source(id, nil)
    op:resolve()
  end)
  async.wait(op)
end

local REFUSED = { [413] = "the request body is too large", [503] = "too many request bodies at once" }

--- The next piece of the body, nil at its end. A large body is read while it comes, and its client waits as long as
--- nobody reads. Raises kind `api` 413 or 503 when it is too much, `network` when the client went away.
---@return string|nil
function Request:read()
  while true do
    local bytes, status = self.conn:read()
    if bytes == false and REFUSED[status] then
      errors.raise("api", REFUSED[status], { status_code = status })
    elseif bytes == false then
      errors.raise("network", "the client went away within its request")
    elseif bytes ~= "" then
      return bytes
    end
    wait_for_change(self.conn)
  end
end

--- Makes room for bytes of a body that is kept whole, until the request is done.
local function keep(self, n, max)
  local listener = self.listener
  self.kept = self.kept + n
  listener.kept = listener.kept + n
  local status = self.kept > (max or MAX_BODY) and 413 or listener.kept > MAX_BODIES and 503
  if status then
    errors.raise("api", REFUSED[status], { status_code = status })
  end
end

--- The body.
---@return string
function Request:body()
  if not self.bytes then
    local parts = {}
    for bytes in self.read, self do
      keep(self, #bytes)
      parts[#parts + 1] = bytes
    end
    self.bytes = table.concat(parts)
  end
  return self.bytes
end

--- The body, decoded; an empty one is {}. Raises kind `api` 400 when it is not a JSON object, 413 when it
--- is larger than `max` (4 MiB): while it is decoded nobody else is served.
---@param max integer|nil  bytes
---@return table
function Request:json(max)
  max = max or MAX_JSON
  local body = self:body()
  if not body:find("%S") then
    return {}
  elseif #body > max then
    errors.raise("api", ("the request body is larger than %d bytes"):format(max), { status_code = 413 })
  end
  -- For the decoder a NUL is the end, whatever comes behind it.
  local nul = body:find("\0", 1, true)
  local value, why = json.decode(body)
  if nul then
    errors.raise("api", "the request body is not JSON: it has a NUL", { status_code = 400 })
  elseif why then
    errors.raise("api", "the request body is not JSON: " .. why, { status_code = 400 })
  elseif not core.is_utf8(body) then
    errors.raise("api", "the request body is not UTF-8", { status_code = 400 })
  elseif type(value) ~= "table" or json.is_array(value) or #value > 0 then
    errors.raise("api", "the request body must be a JSON object", { status_code = 400 })
  end
  return json.strip_nulls(value)
end

--- Calls `fn(part)` for one part of a multipart/form-data body after the other, while it comes: `part:read()` gives
--- its pieces. Raises kind `api` 415 when the body is none, 400 when it is not whole.
---@param fn fun(part: lbox.server.Part)
function Request:each_part(fn)
  local boundary = multipart.boundary(self:header("Content-Type"))
  if not boundary then
    errors.raise("api", "the request body must be multipart/form-data", { status_code = 415 })
  end
  multipart.read(function() return self:read() end, boundary, fn)
end

--- The parts of a multipart/form-data body, each with its content in `bytes`: of at most `max` (64 MiB) together.
---@param max integer|nil  bytes
---@return lbox.server.Part[]
function Request:parts(max)
  local parts = {}
  self:each_part(function(part)
    part.bytes = part:all(function(n) keep(self, n, max) end)
    parts[#parts + 1] = part
  end)
  return parts
end

--- Whether it is a HEAD, of which only the head of the answer is sent.
function Request:is_head()
  return self.conn:method() == "HEAD"
end

--- Whether the client hung up.
function Request:gone()
  return self.conn:gone()
end

--- Answers with bytes.
---@param status integer
---@param headers table<string, string>
---@param body string
function Request:respond(status, headers, body)
  self.conn:respond(status, headers, body)
  self.answered, self.status = true, status
end

--- Answers with a JSON value.
---@param status integer
---@param value any
function Request:answer(status, value)
  self:respond(status, { ["Content-Type"] = "application/json" }, json.encode(value))
end

--- Answers with `{ name = list }`. The items are encoded one after the other, so that others get their
--- turn in between.
---@param status integer
---@param name string
---@param list any[]
---@param item fun(value: any): any  what is encoded for each
function Request:answer_list(status, name, list, item)
  local parts = {}
  for i, value in ipairs(list) do
    parts[i] = json.encode(item(value))
    async.checkpoint()
  end
  self:respond(status, { ["Content-Type"] = "application/json" },
    ("{%s:[%s]}"):format(json.encode(name), table.concat(parts, ",")))
end

--- Answers 101: the connection is a socket from here on, which is closed with the request. Raises kind `network` when
--- the client is gone.
---@param headers table<string, string>
---@return lbox.server.Socket
function Request:upgrade(headers)
  self.conn:upgrade(headers)
  self.answered, self.status = true, 101
  while true do
    local fd, bytes = self.conn:socket()
    if fd then
      self.socket = sockets.new(fd)
      self.socket.buffer = bytes
      return self.socket
    elseif fd == false then
      errors.raise("network", "the client went away")
    end
    wait_for_change(self.conn)
  end
end

---@class lbox.server.Writer
local Writer = {}
Writer.__index = Writer

--- Begins an answer that is written piece by piece. It is the client's only when `finish` was called;
--- otherwise the connection is cut when the handler returns.
---@param status integer
---@param content_type string
---@param headers table<string, string>|nil  more of them
---@return lbox.server.Writer
function Request:stream(status, content_type, headers)
  local all = { ["Content-Type"] = content_type, ["Cache-Control"] = "no-cache" }
  for name, value in pairs(headers or {}) do
    all[name] = value
  end
  self.conn:begin(status, all)
  self.answered, self.status = true, status
  self.writer = setmetatable({ conn = self.conn, id = self.conn:id() }, Writer)
  return self.writer
end

--- Waits until most of what was written is sent, or the client is gone.
local function wait_for_room(writer)
  local op = async.op(function() async.source(writer.id, nil) end)
  writer.waiting = op
  async.source(writer.id, function()
    async.source(writer.id, nil)
    op:resolve()
  end)
  async.wait(op)
  writer.waiting = nil
end

--- From here on nothing waits for the client: what comes yet is little.
function Writer:hurry()
  self.hurried = true
  if self.waiting then
    async.source(self.id, nil)
    self.waiting:resolve()
  end
end

--- Sends bytes; waits while much is unsent. Raises kind `network` when the client is gone.
---@param bytes string
function Writer:write(bytes)
  local unsent = 0
  if bytes ~= "" and not self.ended then
    unsent = self.conn:write(bytes)
  end
  while unsent > HIGH_WATER and not self.hurried and not self:gone() do
    wait_for_room(self)
    unsent = self.ended and 0 or self.conn:unsent()
  end
  if self:gone() then
    errors.raise("network", "the client went away")
  end
end

--- Whether nothing written reaches the client any more.
---@return boolean
function Writer:gone()
  return self.ended == "cut" or (not self.ended and self.conn:gone())
end

--- Sends bytes like `write`; false, and nothing, when the client is gone.
---@param bytes string
---@return boolean
function Writer:offer(bytes)
  local ok, err = pcall(self.write, self, bytes)
  if not ok and not errors.is(err, "network") then
    error(err, 0)
  end
  return ok
end

--- The answer is complete.
function Writer:finish()
  if not self.ended then
    self.ended = "finished"
    self.conn:finish()
  end
end

--- Cuts the answer, so that the client sees that it is not whole.
function Writer:abort()
  if not self.ended then
    self.ended = "cut"
    self.conn:abort()
  end
end

local function new_request(listener, conn)
  local peer, detail = conn:peer()
  local method = conn:method()
  return setmetatable({
    conn = conn,
    listener = listener,
    kept = 0,
    method = method == "HEAD" and "GET" or method,
    path = path_of(conn:path(), method),
    query = M.parse_query(conn:query()),
    peer = peer,
    uid = peer == "unix" and detail or nil,
    address = peer == "tcp" and detail or nil,
    answered = false,
    began = async.now(),
  }, Request)
end

-- ------------------------------------------------------------------------------------ listeners

---@class lbox.server.Listener
local Listener = {}
Listener.__index = Listener

local function handle(self, request)
  local ok, err = pcall(self.handler, request)
  if request.writer then
    request.writer:abort()
  end
  if request.socket then
    request.socket:close()
  end
  request.conn:close()
  self.kept = self.kept - request.kept
  self.live = self.live - 1
  self:accept()
  if not ok then
    error(err, 0)
  end
end

--- Starts a task for every request there is.
function Listener:accept()
  while self.live < MAX_LIVE and not self.stopped do
    local conn = self.server:accept()
    if not conn then
      return
    end
    local request = new_request(self, conn)
    if request.path then
      self.live = self.live + 1
      self.spawn(function() handle(self, request) end)
    else
      request:answer(400, { error = "bad request target" })
      conn:close()
    end
  end
end

--- Serves `handler(request)`, each in a task of `scope` (or of nobody's). The handler answers; its
--- errors are its own. The listener stops, at the latest, when the current scope is left.
---@param opts { fd: integer, key: string|nil, max_body: integer|nil, scope: lbox.async.Scope|nil,
---  handler: fun(request: lbox.server.Request), connection_limit: integer|nil,
---  waiting_limit: integer|nil, idle_timeout: number|nil, write_timeout: number|nil }  fd: a listening
---  socket, the listener's from here on; key: of whom lacks this X-Box-Api-Key the body is thrown away;
---  times in ms
---@return lbox.server.Listener
function M.new(opts)
  local server = httpd.new(async.engine(), opts)
  local scope = opts.scope
  local self = setmetatable({
    server = server,
    id = server:id(),
    handler = opts.handler,
    live = 0,
    kept = 0,
    stopped = false,
    spawn = scope and function(fn) return scope:spawn(fn) end or async.spawn,
  }, Listener)
  async.source(self.id, function()
    self:accept()
  end)
  self.closer = async.on_close(function() self:stop() end)
  return self
end

--- Number of open connections, and of requests whose answer is not wholly sent.
---@return integer connections
---@return integer requests
function Listener:connections()
  if self.stopped then
    return 0, 0
  end
  return self.server:connections()
end

--- Takes no more connections.
function Listener:quiesce()
  if not self.stopped then
    self.server:quiesce()
  end
end

--- Ends the connections there are too.
function Listener:stop()
  if self.stopped then
    return
  end
  self:quiesce()
  self.stopped = true
  self.closer:remove()
  async.source(self.id, nil)
  self.server:stop()
end

return M
