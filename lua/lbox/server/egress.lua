--- The way out of a box with a custom network policy: an HTTP proxy that the box reaches at 127.0.0.1:3128
--- and that is this server. The server looks names up itself, and connects to the very address that it has
--- compared with the policy. For a tunnel that was allowed by its name, the TLS client in the box has to ask
--- for that name too.
local async = require "lbox.async"
local box_port = require "lbox.server.box_port"
local client_hello = require "lbox.server.client_hello"
local errors = require "lbox.errors"
local http_body = require "lbox.server.http_body"
local http_client = require "lbox.server.http_client"
local names = require "lbox.server.names"
local network_policy = require "lbox.server.network_policy"
local posix = require "lbox.server.posix"
local sockets = require "lbox.server.socket"

local M = {}

M.PORT = 3128
--- What commands of such a box have in their environment.
M.ENV = { HTTP_PROXY = "http://127.0.0.1:3128", HTTPS_PROXY = "http://127.0.0.1:3128",
  http_proxy = "http://127.0.0.1:3128", https_proxy = "http://127.0.0.1:3128", NO_PROXY = "localhost,127.0.0.1",
  no_proxy = "localhost,127.0.0.1", NODE_USE_ENV_PROXY = "1" }

local MAX_CONNECTIONS = 128
local HELLO_MS, CONNECT_MS = 10000, 10000
-- A connection on which nothing came for so long is ended.
local IDLE_MS = 15 * 60 * 1000
-- Addresses of one name that are tried.
local MAX_TRIED = 4
local HTTPS = 443
-- What is between the client and this proxy.
local HOP_BY_HOP = { "connection", "keep-alive", "proxy-authorization", "proxy-connection", "te", "upgrade", "host" }

---@class lbox.server.Egress
---@field policy table
---@field tunnels table<lbox.async.Task, { host: string, address: string }>  connections that were let out
local Egress = {}
Egress.__index = Egress

-- ------------------------------------------------------------------------------------- destinations

--- A destination `host:port` or `[host]:port`; nil when it is none. The host is a numeric address or a name.
---@param text string
---@param port integer|nil  when the text has none
local function destination(text, port)
  local host, digits = text:match("^%[([%x:.]+)%]:?(%d*)$")
  if not host then
    host, digits = text:match("^([^:%[%]]+):?(%d*)$")
  end
  if host and digits ~= "" then
    port = #digits <= 5 and math.tointeger(tonumber(digits)) or nil
  end
  local name = host and (posix.address(host) and host:lower() or network_policy.name(host))
  if not name or not port or port < 1 or port > 65535 then
    return nil
  end
  return { host = name, port = port, address = posix.address(name) }
end

local function shown(to)
  return (to.host:find(":", 1, true) and "[%s]:%d" or "%s:%d"):format(to.host, to.port)
end

local function log(self, level, verb, to, why)
  self.log(level, ("network: %s %s: %s"):format(verb, shown(to), why))
end

--- The addresses that a destination may be reached at; or none, and why.
local function candidates(self, to)
  if not to.address and not self.policy.allowed_cidrs and not network_policy.names(self.policy, to.host) then
    return {}, "the name is not in allowed_domains" -- and is not even looked up
  end
  local found, why = {}, nil
  local list = to.address and { to.address } or names.resolve(to.host)
  for _, address in ipairs(list) do
    local objection = network_policy.objection(self.policy, to.host, address, self.own())
    if not objection then
      found[#found + 1] = address
    else
      why = why or objection
    end
  end
  return found, why
end

--- Connects to a destination: a socket and the address; or nil, a status and what to answer.
local function connect(self, to)
  local list, objection = candidates(self, to)
  if #list == 0 and objection then
    log(self, "warn", "refused", to, objection)
    return nil, 403, ("the network policy of this box refuses %s: %s"):format(shown(to), objection)
  elseif #list == 0 then
    return nil, 502, ("there is no address for %s"):format(to.host)
  end
  local wrong
  for i = 1, math.min(#list, MAX_TRIED) do
    local fd, _, name = posix.connect { host = posix.address_text(list[i]), port = to.port }
    if fd then
      local socket = sockets.new(fd)
      local ok, connected, why = pcall(sockets.connected, fd, CONNECT_MS)
      if ok and connected then
        return socket, list[i]
      end
      socket:close()
      if not ok then
        error(connected, 0)
      end
      name = why
    end
    wrong = wrong or name
  end
  return nil, wrong == "ETIMEDOUT" and 504 or 502, ("%s cannot be reached: %s"):format(shown(to), wrong)
end

--- Runs `fn(seen)` until it has ended, or nothing was seen for long.
local function unless_idle(fn)
  local seen_at = async.now()
  async.race(function()
    fn(function() seen_at = async.now() end)
  end, function()
    while async.now() - seen_at < IDLE_MS do
      async.sleep(IDLE_MS - (async.now() - seen_at) + 1)
    end
    errors.raise("network", "nothing came for too long")
  end)
end

--- What `to` takes of `from`, to its end.
local function copy(from, to, seen)
  if sockets.unless_deaf(to, function()
    for bytes in from:pieces() do
      seen()
      to:write(bytes)
    end
  end) then
    to:shut()
  end
end

-- ----------------------------------------------------------------------------------------- tunnels

--- Waits for the name that the client asks for. Nil and why when it may not go on. Whoever does not begin with
--- TLS may, but not on the port of HTTPS.
local function check_name(client, to)
  if client.buffer == "" and not client:fill() then
    return true
  elseif not client_hello.is_tls(client.buffer) then
    return to.port ~= HTTPS, "it is not TLS"
  end
  local verdict, name = client_hello.read(client.buffer)
  local began = async.now()
  while verdict == "more" do
    if not async.timeout(math.max(1, HELLO_MS - (async.now() - began)), client.fill, client) then
      return nil, "it ended within its TLS handshake"
    end
    verdict, name = client_hello.read(client.buffer)
  end
  if verdict == "bad" then
    return nil, "its TLS handshake cannot be read"
  elseif not name then
    return nil, "it asks for no name by TLS"
  elseif network_policy.name(name) ~= to.host then
    return nil, ("it asks for %s by TLS"):format(name)
  end
  return true
end

local function tunnel(self, client, outer, to, by_name)
  unless_idle(function(seen)
    async.scope(function(scope)
      scope:spawn(copy, outer, client, seen)
      if by_name then
        local fine, why = check_name(client, to)
        if not fine then
          log(self, "warn", "refused", to, why)
          errors.raise("network", why)
        end
      end
      copy(client, outer, seen)
    end)
  end)
end

--- Connects to a destination that the policy allows, and calls `fn(outer)` with the connection; or refuses.
local function with_outer(self, client, to, task, fn)
  local outer, address, text = connect(self, to)
  if not outer then
    return http_client.refuse(client, address, text)
  end
  self.tunnels[task] = { host = to.host, address = address }
  local ok, err = pcall(function()
    log(self, "info", "connected to", to, posix.address_text(address))
    fn(outer)
    if outer.broken then
      errors.raise("network", "the connection broke")
    end
  end)
  outer:close()
  if not ok then
    error(err, 0)
  end
end

local function serve_connect(self, client, head, task)
  local to = destination(head.target)
  if not to then
    return http_client.refuse(client, 400, "CONNECT needs a host and a port")
  end
  with_outer(self, client, to, task, function(outer)
    client:write("HTTP/1.1 200 Connection established\r\n\r\n")
    tunnel(self, client, outer, to, network_policy.names(self.policy, to.host))
  end)
end

-- ---------------------------------------------------------------------------------------- requests

--- Makes the head of a request to a proxy one to the server itself, for this one request.
local function rewrite(head, to, path)
  local default = to.port == 80
  for _, name in ipairs(HOP_BY_HOP) do
    head:remove(name)
  end
  head.line = ("%s %s HTTP/1.1"):format(head.method, path)
  local host = default and shown(to):gsub(":80$", "") or shown(to)
  table.insert(head.fields, 1, { name = "host", line = "Host: " .. host })
  head:add("Connection", "close")
end

--- Passes one request on, and the answer back. What the client sends behind it is not read.
local function serve_request(self, client, head, task)
  local authority, path = head.target:match("^[Hh][Tt][Tt][Pp]://([^/?#@]+)([^#]*)$")
  local to = authority and (path == "" or path:find("^[/?]")) and destination(authority, 80)
  local length, why = head:body()
  if not to or not length then
    return http_client.refuse(client, 400, why or "write http://host/path, or CONNECT host:port")
  end
  with_outer(self, client, to, task, function(outer)
    rewrite(head, to, path:sub(1, 1) == "/" and path or "/" .. path)
    unless_idle(function(seen)
      async.race(function()
        copy(outer, client, seen)
      end, function()
        sockets.unless_deaf(outer, function()
          outer:write(head:encode())
          http_body.pass(client, outer, length)
        end)
        async.wait(async.op())
      end)
    end)
  end)
end

local function serve(self, client, task)
  local head, status, text = http_client.read_head(client, true)
  if not head then
    return status and http_client.refuse(client, status, text)
  elseif head.method == "CONNECT" then
    return serve_connect(self, client, head, task)
  end
  return serve_request(self, client, head, task)
end

--- Opens the proxy in a sandbox. Raises kind `local` when its port is taken there.
---@param box lbox.server.Sandbox
---@param policy table
---@param opts { scope: lbox.async.Scope, log: fun(level: string, message: string),
---  own: fun(): table<string, true>, complain: fun(why: string), failed: fun(why: string) }  own: the addresses of this
---  machine; the last two as of acceptor.open
---@return lbox.server.Egress
function M.open(box, policy, opts)
  local self = setmetatable({ policy = policy, log = opts.log, own = opts.own, tunnels = {} }, Egress)
  self.port = box_port.open(box, M.PORT, {
    max = MAX_CONNECTIONS, scope = opts.scope, complain = opts.complain, failed = opts.failed,
    serve = function(client, task)
      local ok, err = pcall(serve, self, client, task)
      self.tunnels[task] = nil
      if not ok then
        error(err, 0)
      end
    end,
  })
  return self
end

--- Another policy, from now on. Connections that it does not allow are ended.
---@param policy table
function Egress:set_policy(policy)
  self.policy = policy
  for task, to in pairs(self.tunnels) do
    if network_policy.objection(policy, to.host, to.address, self.own()) then
      self.tunnels[task] = nil
      self.log("info", ("network: the connection to %s was ended: the policy has changed"):format(to.host))
      self.port:cut(task, "the network policy has changed")
    end
  end
end

function Egress:close()
  self.port:close()
end

return M
