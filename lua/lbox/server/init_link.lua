--- The server's end of the socket to a box's lbox-init: requests and their answers, as
--- csrc/server/init/protocol.h tells. The other end is treated as hostile: an answer that is not what
--- was asked for ends the link.
local async = require "lbox.async"
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"

local M = {}

local MAX_MESSAGE = 16 * 1024
local MAX_ANSWER = 256
-- Messages taken per turn of the loop.
local BATCH = 64
local EMFILE, EMSGSIZE = 24, 90
local SIGKILL = 9
-- Why a message cannot be sent just now, and the link is none the worse for it: memory is short, or
-- programs of boxes, which may be of our user, have too many descriptors under way.
local SHORTAGES = { ETOOMANYREFS = 109, ENOBUFS = 105, ENOMEM = 12, EMFILE = EMFILE }
local RETRY_MS = 50

M.SPAWN, M.KILL, M.DISCARD, M.OPEN, M.CREATE, M.COMMIT = 1, 2, 3, 4, 5, 6
M.ABANDON, M.STAT, M.LIST, M.MKDIR, M.RENAME, M.REMOVE, M.CONNECT = 7, 8, 9, 10, 11, 12, 13
M.FREEZE, M.THAW, M.LISTEN, M.TERMINAL = 14, 15, 16, 17

-- What an answer holds: a format of string.unpack, its size, and how many descriptors.
local ANSWERS = {
  [M.SPAWN] = { "=I4", 4, 0 },
  [M.OPEN] = { "", 0, 1 },
  [M.CREATE] = { "=I4", 4, 1 },
  [M.STAT] = { "=I1I8i8I8I4", 29, 0 },
  [M.LIST] = { "", 0, 1 },
  [M.CONNECT] = { "", 0, 1 },
  [M.LISTEN] = { "", 0, 1 },
  [M.TERMINAL] = { "", 0, 1 },
}
local NOTHING = { "", 0, 0 }
local FAILED = { "", 0, 0 }

---@class lbox.server.InitLink
---@field gone boolean
local Link = {}
Link.__index = Link

local function close_fds(fds)
  for _, fd in ipairs(fds) do
    posix.close(fd)
  end
end

local function ended()
  return errors.new("local", "the box was stopped", { code = "sandbox_ended" })
end

--- Takes the descriptor over. `on_gone` is called once, when the other end is gone or the link closed.
---@return lbox.server.InitLink
function M.new(fd, on_gone)
  local link = setmetatable({
    fd = fd, on_gone = on_gone, pending = {}, last_id = 0, outbox = {}, gone = false,
    ready = async.op(), watch = async.engine():watch(fd),
  }, Link)
  async.source(link.watch:id(), function() link:turn() end)
  link.watch:arm("r")
  return link
end

--- Closes it: lbox-init ends, and with it every process of the box.
function Link:close()
  if self.gone then
    return
  end
  self.gone = true
  async.source(self.watch:id(), nil)
  self.watch:close()
  if self.retry then
    self.retry:cancel()
  end
  posix.close(self.fd)
  self.ready:reject(ended())
  for _, entry in pairs(self.pending) do
    if entry.op then
      entry.op:reject(ended())
    end
  end
  for _, entry in ipairs(self.outbox) do
    close_fds(entry.owned or {})
  end
  self.pending, self.outbox = {}, {}
  self.on_gone()
end

-- ------------------------------------------------------------------------------------- answers

-- Whoever asked was cancelled, or cannot have the descriptor: what was done for him is undone.
local UNDO = {
  [M.SPAWN] = function(link, keeper)
    link:tell(M.KILL, string.pack("=I4I4I4", keeper, SIGKILL, 0))
  end,
  [M.CREATE] = function(link, file)
    link:tell(M.ABANDON, string.pack("=I4", file))
  end,
}

local function undo(link, kind, code, fd, field)
  if fd then
    posix.close(fd)
  end
  if code == 0 and UNDO[kind] then
    UNDO[kind](link, field)
  end
end

--- Whether it is an answer to what was asked. `lost`: descriptors came with it, and are gone.
local function is_answer(entry, code, fields, fds, lost)
  local want = code == 0 and (ANSWERS[entry.kind] or NOTHING) or FAILED
  local passed = lost and want[3] > 0 or not lost and #fds == want[3]
  return passed and #fields == want[2]
end

local function answer(link, entry, code, fields, fds, lost)
  local format = (code == 0 and ANSWERS[entry.kind] or NOTHING)[1]
  if entry.dropped or lost then
    undo(link, entry.kind, code, fds[1], string.unpack(format, fields))
  end
  if entry.op and not entry.dropped then
    entry.op:resolve(lost and EMFILE or code, fds[1], string.unpack(format, fields))
  end
end

local function take(link, bytes, fds, lost)
  local id, code = nil, nil
  if #bytes >= 8 then
    id, code = string.unpack("=I4i4", bytes)
  end
  local entry = link.pending[id]
  if entry and is_answer(entry, code, bytes:sub(9), fds, lost) then
    link.pending[id] = nil
    answer(link, entry, code, bytes:sub(9), fds, lost)
  elseif id == 0 and not link.ready.settled and #fds == 0 and not lost then
    link.ready:resolve()
  else
    close_fds(fds)
    link:close()
  end
end

local function arm(link)
  link.watch:arm(link.outbox[1] and not link.retry and "rw" or "r")
end

local function retry_later(link)
  link.retry = link.retry or async.at(async.now() + RETRY_MS, function()
    link.retry = nil
    link:turn()
  end)
end

--- Sends what waits. In a shortage what somebody waits for fails, descriptors nobody waits for are
--- dropped, and what is left (a kill, say) is sent later.
local function flush(link)
  while link.outbox[1] do
    local entry = link.outbox[1]
    local ok, _, name = posix.send(link.fd, entry.bytes, entry.fds)
    local shortage = not ok and SHORTAGES[name]
    if name == "EAGAIN" then
      return
    elseif shortage and not (entry.op or entry.fds) then
      return retry_later(link)
    elseif not ok and not shortage then
      return link:close()
    end
    table.remove(link.outbox, 1)
    close_fds(entry.owned or {})
    if shortage then
      link.pending[entry.id] = nil
      if entry.op then
        entry.op:resolve(shortage)
      end
    end
  end
end

--- Takes what has come and sends what waits. Called from the loop.
function Link:turn()
  for _ = 1, BATCH do
    local bytes, fds, lost = posix.recv(self.fd, MAX_ANSWER) -- or nil, why, errno name
    if bytes and bytes ~= "" then
      take(self, bytes, fds, lost)
      if self.gone then
        return
      end
    elseif lost == "EAGAIN" then
      break
    else
      close_fds(bytes and fds or {}) -- an empty message can have some too
      return self:close()
    end
  end
  flush(self)
  if not self.gone then
    arm(self)
  end
end

-- ------------------------------------------------------------------------------------ requests

local function send(link, entry, fields)
  link.last_id = link.last_id % 0xfffffffe + 1
  entry.id = link.last_id
  entry.bytes = string.pack("=I4I4", entry.kind, entry.id) .. fields
  link.pending[entry.id] = entry
  link.outbox[#link.outbox + 1] = entry
  if #link.outbox == 1 then
    flush(link)
    if link.outbox[1] then
      arm(link)
    end
  end
end

local function drop(link, entry, op)
  for i, queued in ipairs(link.outbox) do
    if queued == entry then
      table.remove(link.outbox, i)
      link.pending[entry.id] = nil
      return
    end
  end
  entry.dropped = true
  if op.settled and not op.failed then
    undo(link, entry.kind, op:result())
  end
end

--- Waits until the box is up.
function Link:wait_ready()
  async.wait(self.ready)
end

--- Asks and waits for the answer: an errno number (0: done), a descriptor, which is the caller's, and
--- the fields. `fds` are passed on and stay the caller's.
---@param kind integer
---@param fields string
---@param fds integer[]|nil
---@return integer code, integer|nil fd, any ...
function Link:ask(kind, fields, fds)
  if self.gone then
    error(ended(), 0)
  elseif #fields + 8 > MAX_MESSAGE then
    return EMSGSIZE
  end
  local entry = { kind = kind, fds = fds }
  entry.op = async.op(function(op) drop(self, entry, op) end)
  send(self, entry, fields)
  return async.wait(entry.op)
end

--- Asks and does not wait; the answer is dropped. `fds` are taken over.
function Link:tell(kind, fields, fds)
  if self.gone then
    close_fds(fds or {})
  else
    send(self, { kind = kind, fds = fds, owned = fds }, fields)
  end
end

return M
