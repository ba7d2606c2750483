--- One public URL: a port of this machine's loopback that leads to a port of a box. Every request is read
--- as far as its head, checked, freed of the credentials and passed on with its body; answers, and what
--- follows an upgrade, are copied as they are.
local async = require "lbox.async"
local core = require "lbox.core"
local errors = require "lbox.errors"
local http_body = require "lbox.server.http_body"
local http_client = require "lbox.server.http_client"
local posix = require "lbox.server.posix"
local secret = require "lbox.server.secret"
local sockets = require "lbox.server.socket"

local M = {}

local USER = "user"
local MAX_CONNECTIONS = 256
-- Without descriptors left, nobody is accepted for so long.
local SHORTAGE_MS = 100

---@class lbox.server.PublicUrl
---@field port integer       of this machine
---@field token string|nil   one of which a request must bring, if there is any
---@field password string|nil
---@field connections table<lbox.async.Task, lbox.server.Socket>
local PublicUrl = {}
PublicUrl.__index = PublicUrl

-- --------------------------------------------------------------------------------- who may ask

local function is_own_host(self, host)
  host = host and host:lower()
  return host == ("127.0.0.1:%d"):format(self.port) or host == ("localhost:%d"):format(self.port)
end

local function is_authorized(self, head)
  if not self.token and not self.password then
    return true
  end
  local scheme, given = (head:get("authorization") or ""):match("^(%a+) +(%S+)$")
  scheme = scheme and scheme:lower()
  if scheme == "bearer" and self.token then
    return secret.equal(given, self.token)
  elseif scheme == "basic" and self.password then
    return secret.equal(core.base64_decode(given), USER .. ":" .. self.password)
  end
  return false
end

--- Why a request is not passed on, as status and text; nil when it is. A page of another origin could be
--- led here by DNS, and cannot change the Host it asks for.
local function objection(self, head)
  if not is_own_host(self, head:get("host")) then
    return 403, ("the Host of the request is not 127.0.0.1:%d"):format(self.port)
  elseif not is_authorized(self, head) then
    return 401, "this URL needs " .. (self.token and (self.password and "its token or its password" or "its token")
      or "its password")
  end
end

local function refuse(self, client, status, text)
  http_client.refuse(client, status, text, status == 401
    and ("WWW-Authenticate: %s realm=\"lbox\""):format(self.password and "Basic" or "Bearer") or nil)
end

-- ------------------------------------------------------------------------------------- requests

--- The next head of a client whose body can be passed on: nil when there is no more, or status and text of what is
--- wrong.
local function read_head(client)
  local head, status, text = http_client.read_head(client)
  local length, why
  if head then
    length, why = head:body()
  end
  if length then
    return head
  end
  return nil, head and 400 or status, why or text
end

--- Passes a request on.
local function pass(self, client, box, head)
  local body = head:body()
  if self.token or self.password then
    head:remove("authorization")
  end
  box:write(head:encode())
  http_body.pass(client, box, body)
end

--- Waits until the box has agreed to an upgrade, which is what its answer then begins with; from there on
--- bytes are passed without a look at them.
local function pass_upgraded(client, box, answer)
  async.wait(answer.begun)
  if not answer.upgraded then
    return
  end
  for bytes in client:pieces() do
    box:write(bytes)
  end
end

--- Passes requests on until the client sends no more. Each is checked, for a browser sends those of
--- different pages over one connection; one that is not in order is as good as none.
local function pass_requests(self, client, box, head, answer)
  repeat
    pass(self, client, box, head)
    if head:lists("connection", "upgrade") then
      pass_upgraded(client, box, answer)
    end
    head = (client.buffer ~= "" or client:fill()) and read_head(client)
    -- What an upgrade is answered is looked for at the beginning of the connection only.
  until not head or objection(self, head) or head:lists("connection", "upgrade")
end

--- Copies what the box answers. `answer` hears whether that begins with the agreement to an upgrade.
local function pass_answers(box, client, answer)
  local start = ""
  for bytes in box:pieces() do
    if not answer.begun.settled then
      start = start .. bytes
      answer.upgraded = start:match("^HTTP/1%.1 101 ") ~= nil
      if #start >= #"HTTP/1.1 101 " then
        answer.begun:resolve()
      end
    end
    client:write(bytes)
  end
end

--- Serves a connection to the end of the box's answers.
local function relay(self, client, box, head)
  local answer = { begun = async.op() }
  async.race(function()
    pass_answers(box, client, answer)
  end, function()
    pass_requests(self, client, box, head, answer)
    box:shut() -- an answer may still come
    async.wait(async.op())
  end)
  client:shut()
end

local function serve(self, client)
  local head, status, text = read_head(client)
  if not head then
    return status and refuse(self, client, status, text)
  end
  status, text = objection(self, head)
  if status then
    return refuse(self, client, status, text)
  end
  local ok, fd, why = pcall(self.connect)
  if not ok and not errors.is(fd) then
    error(fd, 0)
  elseif not ok or not fd then
    return refuse(self, client, 502, ok and why or fd.message)
  end
  local box = sockets.new(fd)
  local relayed, err = pcall(relay, self, client, box, head)
  box:close()
  if not relayed then
    error(err, 0)
  end
end

-- ---------------------------------------------------------------------------------- connections

local function handle(self, client)
  local ok, err = pcall(serve, self, client)
  client:close()
  -- A connection that breaks, or is broken here, is nobody's fault and nobody's news.
  if not ok and not (errors.is(err, "network") or errors.is(err, "cancelled")) then
    self.log("error: a connection to " .. self.url .. ": " .. async.describe(err))
  end
end

local function count(set)
  local n = 0
  for _ in pairs(set) do
    n = n + 1
  end
  return n
end

local function accept(self, fd)
  if count(self.connections) >= MAX_CONNECTIONS then
    return posix.reset(fd)
  end
  local client, task = sockets.new(fd), nil
  task = self.scope:spawn(function()
    handle(self, client)
    self.connections[task] = nil
  end)
  self.connections[task] = client
end

local function listen(self)
  while true do
    self.watched:wait("r")
    local fd, _, name = posix.accept(self.fd)
    if fd then
      accept(self, fd)
    elseif name == "EMFILE" or name == "ENFILE" or name == "ENOBUFS" or name == "ENOMEM" then
      async.sleep(SHORTAGE_MS)
    end
  end
end

--- Opens a public URL. `connect()` gives a descriptor of a connection to the box, or nil and why not.
---@param opts { port: integer, token: string|nil, password: string|nil, connect: fun(): (integer|nil, string|nil),
---  scope: lbox.async.Scope, log: fun(line: string) }  port: 0 for any
---@return lbox.server.PublicUrl|nil
---@return string|nil why, string|nil errno
function M.open(opts)
  local fd, port, errno = posix.listen { host = "127.0.0.1", port = opts.port }
  if not fd then
    return nil, port, errno
  end
  local self = setmetatable({ fd = fd, watched = async.fd(fd), port = port, url = ("http://127.0.0.1:%d"):format(port),
    token = opts.token, password = opts.password, connect = opts.connect, scope = opts.scope, log = opts.log,
    connections = {} }, PublicUrl)
  self.listening = opts.scope:spawn(function() listen(self) end)
  return self
end

local function end_connections(self, why)
  for task, client in pairs(self.connections) do
    task:cancel(why)
    client:close()
  end
  self.connections = {}
end

--- Who may ask from now on. What was connected by the old rules is cut.
---@param token string|nil
---@param password string|nil
function PublicUrl:set_credentials(token, password)
  self.token, self.password = token, password
  end_connections(self, "the credentials have changed")
end

--- Closes it, with every connection.
function PublicUrl:close()
  self.listening:cancel("the public URL was deleted")
  self.watched:close()
  posix.close(self.fd)
  end_connections(self, "the public URL was deleted")
end

return M
