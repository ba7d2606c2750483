--- One public URL: a port of this machine's loopback that leads to a port of a box. A connection is for one request,
--- which is read as far as its head, checked, freed of the credentials and passed on with its body; the answer, and
--- what follows an upgrade, are copied as they are.
local acceptor = require "lbox.server.acceptor"
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
-- Who comes then waits until another has left.
local MAX_CONNECTIONS = 256

---@class lbox.server.PublicUrl
---@field port integer       of this machine
---@field token string|nil   one of which a request must bring, if there is any
---@field password string|nil
---@field uses integer       how many requests are in the box
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

--- Answers a request that is not passed on, and says so in the log.
local function refuse(self, client, head, status, text)
  self.log(("%s: a request was refused: %d: %s"):format(self.url, status, text))
  http_client.refuse(client, status, text, status == 401
    and ("WWW-Authenticate: %s realm=\"lbox\""):format(self.password and "Basic" or "Bearer") or nil,
    head and head.method == "HEAD")
end

-- ------------------------------------------------------------------------------------- requests

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

--- Passes the request on, and waits until the client has nothing more to say. The connection is for this request
--- alone: a browser sends those of different pages over one, and what comes behind a request is not looked at.
local function pass_request(self, client, box, head, length, answer)
  if self.token or self.password then
    head:remove("authorization")
  end
  local upgrades = head:lists("connection", "upgrade")
  if not upgrades then
    head:remove("connection")
    head:remove("keep-alive")
    head:add("Connection", "close")
  end
  box:write(head:encode())
  http_body.pass(client, box, length)
  if upgrades then
    pass_upgraded(client, box, answer)
  elseif client.buffer == "" then
    client:fill()
  end
end

--- Copies what the box answers. `answer` hears whether that begins with the agreement to an upgrade.
local function pass_answer(box, client, answer)
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

--- Serves a request to the end of the box's answer.
local function relay(self, client, box, head, length)
  local answer = { begun = async.op() }
  async.race(function()
    pass_answer(box, client, answer)
  end, function()
    sockets.unless_deaf(box, function() pass_request(self, client, box, head, length, answer) end)
    box:shut() -- an answer may still come
    async.wait(async.op())
  end)
  if box.broken then
    errors.raise("network", "the connection to the box broke")
  end
end

local function with_box(self, client, head, fn)
  local ok, fd, why = pcall(self.connect)
  if not ok and not errors.is(fd) then
    error(fd, 0)
  elseif not ok or not fd then
    return refuse(self, client, head, 502, ok and why or fd.message)
  end
  local box = sockets.new(fd)
  local fine, err = pcall(fn, box)
  box:close()
  if not fine then
    error(err, 0)
  end
end

local function serve(self, client)
  local head, status, text = http_client.read_head(client)
  local length
  if head then
    length, text = head:body()
    status = not length and 400 or nil
  end
  if length then
    status, text = objection(self, head)
  end
  if status then
    return refuse(self, client, head, status, text)
  elseif not head then
    return
  end
  self.uses = self.uses + 1
  local ok, err = pcall(with_box, self, client, head, function(box) relay(self, client, box, head, length) end)
  self.uses = self.uses - 1
  if not ok then
    error(err, 0)
  end
end

-- ---------------------------------------------------------------------------------- connections

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
  local self = setmetatable({ port = port, url = ("http://127.0.0.1:%d"):format(port), token = opts.token,
    password = opts.password, connect = opts.connect, log = opts.log, uses = 0 }, PublicUrl)
  self.acceptor = acceptor.open(fd, {
    max = MAX_CONNECTIONS, scope = opts.scope,
    serve = function(client) serve(self, client) end,
    complain = function(why) self.log(("error: a request to %s: %s"):format(self.url, why)) end,
    failed = function(why) self.log(("error: nobody is served at %s any more: %s"):format(self.url, why)) end,
  })
  return self
end

--- Who may ask from now on. What was connected by the old rules is cut.
---@param token string|nil
---@param password string|nil
function PublicUrl:set_credentials(token, password)
  self.token, self.password = token, password
  self.acceptor:cut_all("the credentials have changed")
end

--- Closes it, with every connection.
function PublicUrl:close()
  self.acceptor:close()
end

return M
