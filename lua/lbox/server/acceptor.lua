--- A listening socket whose connections are served by tasks, until it is closed.
local async = require "lbox.async"
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"
local sockets = require "lbox.server.socket"

local M = {}

-- Without descriptors left, nobody is accepted for so long.
local SHORTAGE_MS = 100
local SHORTAGES = { EMFILE = true, ENFILE = true, ENOBUFS = true, ENOMEM = true }
-- One that was waiting has gone.
local PASSING = { EAGAIN = true, ECONNABORTED = true }

---@class lbox.server.Acceptor
---@field connections table<lbox.async.Task, lbox.server.Socket>
local Acceptor = {}
Acceptor.__index = Acceptor

--- The next connection: a descriptor. Raises when there will be no more.
local function next_connection(self)
  while true do
    local fd, why, name = posix.accept(self.fd)
    if fd then
      return fd
    elseif SHORTAGES[name] then
      async.sleep(SHORTAGE_MS)
    elseif PASSING[name] then
      self.watched:wait("r")
    else
      errors.raise("local", why)
    end
  end
end

--- Serves a connection to its end. One that breaks, or is cut, is nobody's fault and nobody's news.
local function handle(self, socket, task)
  local ok, err = pcall(self.opts.serve, socket, task)
  if self.connections[task] then
    socket:finish(ok)
    self.connections[task] = nil
    if not ok and not errors.is(err, "network") and not errors.is(err, "cancelled") then
      self.opts.complain(async.describe(err))
    end
  end
end

local function accept(self)
  local places = async.semaphore(self.opts.max)
  async.scope(function(scope)
    while true do
      places:acquire()
      local socket = sockets.new(next_connection(self))
      local task
      task = scope:spawn(function()
        handle(self, socket, task)
        places:release()
      end)
      self.connections[task] = socket
    end
  end)
end

--- Takes over a listening socket.
---@param fd integer
---@param opts { max: integer, serve: fun(socket: lbox.server.Socket, task: lbox.async.Task), scope: lbox.async.Scope,
---  complain: fun(why: string), failed: fun(why: string) }  max: connections at once, who comes then waits; serve: in
---  a task of its own, the socket is closed after it; complain: one ended by a fault of ours; failed: no more come
---@return lbox.server.Acceptor
function M.open(fd, opts)
  local self = setmetatable({ fd = fd, watched = async.fd(fd), opts = opts, connections = {} }, Acceptor)
  self.task = opts.scope:spawn(function()
    local ok, err = pcall(accept, self)
    if not ok and not self.closed and not errors.is(err, "cancelled") then
      opts.failed(async.describe(err))
    end
  end)
  return self
end

--- Ends one connection.
---@param task lbox.async.Task
---@param why string
function Acceptor:cut(task, why)
  local socket = self.connections[task]
  self.connections[task] = nil
  if socket then
    task:cancel(why)
    socket:close()
  end
end

--- Ends every connection.
---@param why string
function Acceptor:cut_all(why)
  while next(self.connections) do
    self:cut(next(self.connections), why)
  end
end

--- Closes it, with every connection. Idempotent.
function Acceptor:close()
  if self.closed then
    return
  end
  self.closed = true
  self.task:cancel("the port was closed")
  self.watched:close()
  posix.close(self.fd)
  self:cut_all("the port was closed")
end

return M
