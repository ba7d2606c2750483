--- A stream socket read and written by tasks: one reads, one writes.
local async = require "lbox.async"
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"

local M = {}

local PIECE = 64 * 1024
-- Who is not listened to any more may still be sending; so much and so long is read, that he sees the answer.
local MAX_LINGER, LINGER_MS = 256 * 1024, 1000

---@class lbox.server.Socket
---@field buffer string  what was read and not taken
---@field broken boolean  reading or writing has failed
local Socket = {}
Socket.__index = Socket

--- Takes over a descriptor.
---@param fd integer
---@return lbox.server.Socket
function M.new(fd)
  posix.set_nonblock(fd)
  return setmetatable({ fd = fd, watched = async.fd(fd), buffer = "", broken = false }, Socket)
end

--- Waits until a socket that is connecting is connected, and makes it non-blocking. Whatever comes of it, the
--- descriptor stays the caller's, and it may be any descriptor.
---@param fd integer
---@param ms number  how long it may take
---@return boolean|nil
---@return string|nil errno  why it is not
function M.connected(fd, ms)
  local is_socket, _, wrong = posix.socket_error(fd)
  if not is_socket then
    return nil, wrong
  end
  posix.set_nonblock(fd)
  local watched = async.fd(fd)
  local ok, err = pcall(async.timeout, ms, watched.wait, watched, "w")
  watched:close()
  if ok then
    local well, _, name = posix.socket_error(fd)
    return well, name
  elseif errors.is(err, "timeout") then
    return nil, "ETIMEDOUT"
  end
  error(err, 0)
end

local function fail(self, why)
  self.broken = true
  errors.raise("network", "the connection broke: " .. tostring(why))
end

--- Waits for more and puts it into the buffer. False at the end of what the peer sends.
---@return boolean
function Socket:fill()
  async.checkpoint()
  while true do
    local bytes, why, name = posix.read(self.fd, PIECE)
    if bytes then
      self.buffer = self.buffer .. bytes
      return bytes ~= ""
    elseif name ~= "EAGAIN" then
      fail(self, why)
    end
    self.watched:wait("r")
  end
end

--- The next bytes, at most `max` of them; nil at the end.
---@param max integer|nil
---@return string|nil
function Socket:take(max)
  if self.buffer == "" and not self:fill() then
    return nil
  end
  local bytes = self.buffer
  if max and #bytes > max then
    self.buffer = bytes:sub(max + 1)
    return bytes:sub(1, max)
  end
  self.buffer = ""
  return bytes
end

--- All pieces to the end: `for bytes in socket:pieces() do`.
---@return fun(): string|nil
function Socket:pieces()
  return function()
    return self:take()
  end
end

--- The next bytes up to and with `mark`. Nil when there are more than `max` of them, or not all before the
--- end.
---@param mark string
---@param max integer
---@return string|nil
function Socket:take_until(mark, max)
  local from = 1
  while true do
    local _, last = self.buffer:find(mark, from, true)
    if (last or #self.buffer) > max then
      return nil
    elseif last then
      return self:take(last)
    end
    from = math.max(1, #self.buffer - #mark + 2)
    if not self:fill() then
      return nil
    end
  end
end

--- Sends what the peer takes now of the bytes from `at` on, and waits when that is nothing.
---@param bytes string
---@param at integer
---@return integer  how many were sent
function Socket:write_some(bytes, at)
  local n, why, name = posix.write(self.fd, bytes, at)
  if not n and name ~= "EAGAIN" then
    fail(self, why)
  elseif not n then
    self.watched:wait("w")
  end
  return n or 0
end

--- Sends bytes; waits while the peer does not take them.
---@param bytes string
function Socket:write(bytes)
  local at = 1
  while at <= #bytes do
    at = at + self:write_some(bytes, at)
  end
end

--- Nothing more is sent.
function Socket:shut()
  posix.shut(self.fd)
end

function Socket:close()
  if self.fd then
    self.watched:close()
    posix.close(self.fd)
    self.fd = nil
  end
end

--- Closes it when the peer has had time to read what was sent: what he still sends would become a reset, and take that
--- from him. Whole: he sees an end; else, when that time is over, a reset.
---@param is_whole boolean
function Socket:finish(is_whole)
  if is_whole then
    self:shut()
  end
  pcall(async.timeout, LINGER_MS, function()
    local left = MAX_LINGER
    repeat
      local bytes = left > 0 and self:take()
      left = left - #(bytes or "")
    until not bytes
  end)
  if self.fd and not is_whole then
    self.watched:close()
    posix.reset(self.fd)
    self.fd = nil
  end
  self:close()
end

--- Calls `fn`, which sends something to a peer. True when it did, false when the peer takes no more: he may have said
--- why before that.
---@param peer lbox.server.Socket
---@param fn fun()
---@return boolean
function M.unless_deaf(peer, fn)
  local ok, err = pcall(fn)
  if not ok and not (peer.broken and errors.is(err, "network")) then
    error(err, 0)
  end
  return ok
end

local function copy(from, to)
  if M.unless_deaf(to, function()
    for bytes in from:pieces() do
      to:write(bytes)
    end
  end) then
    to:shut()
  end
end

--- Copies both ways until both have ended; neither is read faster than the other takes it. Raises kind `network` when
--- one broke.
---@param a lbox.server.Socket
---@param b lbox.server.Socket
function M.relay(a, b)
  async.scope(function(scope)
    scope:spawn(copy, a, b)
    copy(b, a)
  end)
  if a.broken or b.broken then
    errors.raise("network", "the connection broke")
  end
end

return M
