--- A port of a box's loopback that the server answers: lbox-init listens there, and whoever connects in the
--- box is served out here.
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

---@class lbox.server.BoxPort
---@field connections table<lbox.async.Task, lbox.server.Socket>
local BoxPort = {}
BoxPort.__index = BoxPort

--- The next connection: a descriptor. Raises when there will be no more.
local function next_connection(listening, watched)
  while true do
    local fd, why, name = posix.accept(listening)
    if fd then
      return fd
    elseif SHORTAGES[name] then
      async.sleep(SHORTAGE_MS)
    elseif PASSING[name] then
      watched:wait("r")
    else
      errors.raise("local", why)
    end
  end
end

--- Accepts until the box is no more.
local function accept(self, opts)
  local places = async.semaphore(opts.max)
  async.scope(function(scope)
    while true do
      places:acquire()
      local inner = sockets.new(next_connection(self.listening, self.watched))
      local task
      task = scope:spawn(function()
        local ok, err = pcall(opts.serve, inner, task)
        local is_cut = self.connections[task] == nil
        inner:close()
        self.connections[task] = nil
        places:release()
        -- A connection that breaks, or is broken here, is nobody's fault and nobody's news.
        if not ok and not is_cut and not errors.is(err, "network") then
          error(err, 0)
        end
      end)
      self.connections[task] = inner
    end
  end)
end

--- Opens a port in a sandbox, until it is closed or the sandbox ends. Raises kind `local` when that cannot be.
---@param box lbox.server.Sandbox
---@param port integer
---@param opts { max: integer, serve: fun(inner: lbox.server.Socket, task: lbox.async.Task), scope: lbox.async.Scope,
---  failed: fun(why: string) }  max: connections at once, who comes then waits; serve: in a task of its own, the
---  socket is closed after it; failed: no more are accepted
---@return lbox.server.BoxPort
function M.open(box, port, opts)
  local self = setmetatable({ listening = box:listen(port), connections = {} }, BoxPort)
  self.watched = async.fd(self.listening)
  self.task = opts.scope:spawn(function()
    local ok, err = pcall(accept, self, opts)
    if not ok and not self.closed and not errors.is(err, "cancelled") then
      opts.failed(async.describe(err))
    end
  end)
  if box.ended then
    self:close()
  else
    table.insert(box.on_exit, function() self:close() end)
  end
  return self
end

--- Ends one connection.
---@param task lbox.async.Task
---@param why string
function BoxPort:cut(task, why)
  local inner = self.connections[task]
  self.connections[task] = nil
  if inner then
    task:cancel(why)
    inner:close()
  end
end

--- Closes it, with every connection.
function BoxPort:close()
  if self.closed then
    return
  end
  self.closed = true
  self.task:cancel("the port of the box was closed")
  self.watched:close()
  posix.close(self.listening)
  for _, inner in pairs(self.connections) do
    inner:close()
  end
  self.connections = {}
end

return M
