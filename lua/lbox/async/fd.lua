--- Waiting for a file descriptor.
local Op = require "lbox.async.op"
local tasks = require "lbox.async.task"

local Fd = {}
Fd.__index = Fd

---@class lbox.async.Fd
---@field fd integer  not owned: closing this closes the watch, not the descriptor

--- Watches a descriptor, which stays the caller's.
---@param fd integer
---@return lbox.async.Fd
function Fd.new(fd)
  local loop = tasks.state().loop
  local watch = loop.engine:watch(fd)
  return setmetatable({ fd = fd, loop = loop, watch = watch, id = watch:id() }, Fd)
end

--- Waits until the descriptor can be read ("r"), written ("w") or either ("rw"), or its peer is gone.
function Fd:wait(mode)
  local op = Op.new(function()
    self.loop:source(self.id, nil)
  end)
  self.loop:source(self.id, function()
    self.loop:source(self.id, nil)
    op:resolve()
  end)
  self.watch:arm(mode)
  return tasks.wait(op)
end

--- Ends the watch; the descriptor stays open.
function Fd:close()
  self.loop:source(self.id, nil)
  self.watch:close()
end

return Fd
