--- Waiting for a file descriptor: one task to read and one to write at a time.
local Op = require "lbox.async.op"
local errors = require "lbox.errors"
local rt = require "lbox.async.runtime"
local waits = require "lbox.async.wait"

local M = {}

local Fd = {}
Fd.__index = Fd

---@class lbox.async.Fd
---@field fd integer  not owned: closing this closes the watch, not the descriptor
---@field r lbox.async.Op|nil  who waits to read
---@field w lbox.async.Op|nil  who waits to write; with "rw" the same one
---@field closed boolean

-- The watch is one shot: whoever still waits is armed again.
local function arm(self)
  if self.r or self.w then
    self.watch:arm((self.r and "r" or "") .. (self.w and "w" or ""))
    if not self.listening then
      self.listening = true
      self.loop:source(self.id, self.on_ready)
    end
  elseif self.listening then
    self.listening = false
    self.loop:source(self.id, nil)
  end
end

local function ready(self)
  local events = self.watch:events() or ""
  local gone = events:find("h", 1, true)
  local r, w = self.r, self.w
  if r and (gone or events:find("r", 1, true)) then
    self.r = nil
    r:resolve()
  end
  if w and (gone or events:find("w", 1, true)) then
    self.w = nil
    w:resolve()
  end
  if self.r and self.r.settled then
    self.r = nil
  end
  if self.w and self.w.settled then
    self.w = nil
  end
  arm(self)
end

local function forget(op)
  local self = op.fd
  if self.r == op then
    self.r = nil
  end
  if self.w == op then
    self.w = nil
  end
  if not self.closed then
    arm(self)
  end
end

--- Watches a descriptor, which stays the caller's.
---@param fd integer
---@return lbox.async.Fd
function M.new(fd)
  local loop = rt.get_loop()
  local watch = loop.engine:watch(fd)
  local self = setmetatable({
    fd = fd, loop = loop, watch = watch, id = watch:id(), closed = false,
  }, Fd)
  self.on_ready = function()
    ready(self)
  end
  return self
end

--- Waits until the descriptor can be read ("r"), written ("w") or either ("rw"), or its peer is
--- gone.
---@param mode "r"|"w"|"rw"
function Fd:wait(mode)
  local read, write = mode ~= "w", mode ~= "r"
  if self.closed then
    errors.raise("usage", "the watch of this descriptor is closed")
  elseif read and write and mode ~= "rw" then
    errors.raise("usage", ('the mode is "r", "w" or "rw", got %q'):format(tostring(mode)))
  elseif (read and self.r) or (write and self.w) then
    errors.raise("usage", "another task waits for this descriptor already")
  end
  local op = Op.new(forget)
  op.fd = self
  self.r, self.w = read and op or self.r, write and op or self.w
  arm(self)
  return waits.wait(op)
end

--- Ends the watch; the descriptor stays open. Whoever waits gets an error.
function Fd:close()
  if self.closed then
    return
  end
  self.closed = true
  local r, w = self.r, self.w
  self.r, self.w = nil, nil
  self.loop:source(self.id, nil)
  self.watch:close()
  local err = (r or w) and errors.new("usage", "the watch of this descriptor was closed")
  if r then
    r:reject(err)
  end
  if w then
    w:reject(err)
  end
end

return M
