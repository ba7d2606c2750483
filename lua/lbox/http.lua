--- One HTTP exchange over the core, waited for by tasks. It knows requests, not the Box API: what to
--- retry and what an answer means is decided in client.lua.
local async = require "lbox.async"

local M = {}

---@class lbox.http.Failure
---@field kind string  resolve, connect, tls, proxy, send, recv, rewind, partial, too_large, other
---@field text string
---@field sent boolean  false: provably nothing left this machine

---@class lbox.http.Exchange
local Exchange = {}
Exchange.__index = Exchange

--- Sends a request. Nothing is waited for yet.
---@param request table  as engine:request takes it
---@return lbox.http.Exchange
function M.send(request)
  local req = async.engine():request(request)
  local self = setmetatable({ req = req, id = req:id() }, Exchange)
  async.source(self.id, function()
    local op = self.op
    if op then
      self.op = nil
      op:resolve()
    end
  end)
  return self
end

--- Waits until something changed: headers, bytes or the end. With `deadline` (absolute ms) returns
--- false when it passed first.
---@return boolean
function Exchange:wait_change(deadline)
  if self.req:done() then
    self:release()
    return true
  end
  local op = async.op(function()
    self.op = nil
  end)
  self.op = op
  if not deadline then
    async.wait(op)
    return true
  end
  local timer = async.at(deadline, function()
    op:resolve("late")
  end)
  local ok, late = pcall(async.wait, op)
  timer:cancel()
  self.op = nil
  if not ok then
    error(late, 0)
  end
  return late == nil
end

--- The loop need not keep this request any more.
function Exchange:release()
  if self.id then
    async.source(self.id, nil)
    self.id = nil
  end
end

--- Ends the transfer; idempotent.
function Exchange:close()
  self.req:cancel()
  self:release()
end

---@return lbox.http.Failure|nil
function Exchange:failure()
  local kind, text, sent = self.req:failure()
  return kind and { kind = kind, text = text, sent = sent } or nil
end

return M
