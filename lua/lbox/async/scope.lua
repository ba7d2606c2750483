--- Scopes own tasks. A scope is left only after every task of it ended; a cancelled one makes every
--- wait in it raise the same `cancelled` object until it is left.
local errors = require "lbox.errors"

local Scope = {}
Scope.__index = Scope

---@class lbox.async.Scope
---@field parent lbox.async.Scope|nil
---@field cancel_error lbox.Error|nil  what every wait in it raises
---@field failure any      the first error of a task in it
---@field shield boolean|nil  an outer cancel stops here
---@field on_error "cancel"|"wait"|"report"

--- A scope inside `parent`, entered by `context` (the task, or what stands for the code outside tasks).
function Scope.new(parent, context, on_error)
  local scope = setmetatable({
    parent = parent,
    context = context,
    on_error = on_error or "cancel",
    tasks = {},
    count = 0,
    inner = {},
  }, Scope)
  if parent then
    parent.inner[scope] = true
  end
  return scope
end

--- The error that a wait in this scope has to raise, or nil: its own or that of the nearest cancelled
--- scope around it, up to a shield.
function Scope:cancelled()
  local scope = self
  while scope do
    if scope.cancel_error then
      return scope.cancel_error
    elseif scope.shield then
      return nil
    end
    scope = scope.parent
  end
end

--- Interrupts every wait in this scope and in those inside it.
local function interrupt(scope)
  if scope.context then
    scope.context:interrupt()
  end
  for task in pairs(scope.tasks) do
    task:interrupt()
  end
  for inner in pairs(scope.inner) do
    if not inner.shield then
      interrupt(inner)
    end
  end
end

--- Cancels the scope: from now on every wait in it raises. The first reason stays.
---@param err lbox.Error|string|nil
function Scope:cancel(err)
  if self.cancel_error or self.left then
    return
  end
  if not errors.is(err) then
    err = errors.new("cancelled", err and tostring(err) or "cancelled")
  end
  self.cancel_error = err
  interrupt(self)
end

--- Notes the error of a task or of the body; the first one stays and, unless the scope waits for all,
--- cancels the rest.
function Scope:fail(err)
  if not self.failed then
    self.failure, self.failed = err, true
  end
  if self.on_error == "cancel" then
    self:cancel(errors.new("cancelled", "cancelled because another task failed", { cause = err }))
  end
end

function Scope:add(task)
  self.tasks[task] = true
  self.count = self.count + 1
end

function Scope:remove(task)
  if self.tasks[task] then
    self.tasks[task] = nil
    self.count = self.count - 1
    if self.count == 0 and self.empty then
      self.empty:resolve()
    end
  end
end

--- Calls `fn(cancelled)` when the scope is left, latest first; `cancelled` is the error the scope was
--- cancelled with, or nil. `handle:remove()` takes it back.
function Scope:on_close(fn)
  local handle = { fn = fn }
  function handle.remove(this)
    this.fn = nil
    if self.closers then
      self.closers[this] = nil
    end
  end
  self.closers = self.closers or {}
  self.closer_count = (self.closer_count or 0) + 1
  self.closers[handle] = self.closer_count
  return handle
end

--- The scope is left: its closers run, and the scope around forgets it.
function Scope:leave()
  self.left = true
  if self.parent then
    self.parent.inner[self] = nil
  end
  local closers = self.closers
  self.closers = nil
  if closers then
    local order = {}
    for handle, number in pairs(closers) do
      order[#order + 1] = { handle = handle, number = number }
    end
    table.sort(order, function(a, b) return a.number > b.number end)
    for _, each in ipairs(order) do
      if each.handle.fn then
        each.handle.fn(self:cancelled())
      end
    end
  end
end

return Scope
