--- Scopes: a tree of what is going on. A task is a scope too. A scope is left only after everything
--- inside it ended; cancelled, it makes every wait in it raise the same `cancelled` object until
--- then.
---
--- The cancel state is pushed down the tree, so that a wait looks at one field. Siblings are linked
--- in the nodes themselves.
local errors = require "lbox.errors"

local M = {}

---@class lbox.async.Node
---@field parent lbox.async.Node|false
---@field first lbox.async.Node|false  children, oldest first
---@field last lbox.async.Node|false
---@field next lbox.async.Node|false   siblings
---@field prev lbox.async.Node|false
---@field strand table  who entered it: see lbox.async.wait
---@field cancel_error lbox.Error|false  what every wait in it raises
---@field failed boolean  `failure` is the first error of its body or of a task in it
---@field failure any
---@field on_error "cancel"|"wait"|"report"  what the first error does to the others
---@field shield boolean  a cancel from outside stops here
---@field left boolean
---@field is_task boolean
---@field joiners lbox.async.Op[]|false  resolved when the last child is gone
---@field closer table|false  latest of the linked closers
---@field carries table|false  what holds for everything in it, by name: see carried

local Scope = {}
Scope.__index = Scope
M.mt = Scope

--- Puts a node into the tree.
function M.link(node, parent)
  if not parent then
    return
  end
  node.parent = parent
  local last = parent.last
  node.prev = last
  if last then
    last.next = node
  else
    parent.first = node
  end
  parent.last = node
  if not node.shield then
    node.cancel_error = parent.cancel_error
  end
end

--- Takes a node out; whoever waits for the parent's last child hears of it.
function M.unlink(node)
  local parent = node.parent
  if not parent then
    return
  end
  local prev, next_one = node.prev, node.next
  if prev then
    prev.next = next_one
  else
    parent.first = next_one
  end
  if next_one then
    next_one.prev = prev
  else
    parent.last = prev
  end
  node.prev, node.next, node.parent = false, false, false
  if not parent.first and parent.joiners then
    local joiners = parent.joiners
    parent.joiners = false
    for _, op in ipairs(joiners) do
      op:resolve()
    end
  end
end

--- A scope inside `parent`, entered by `strand`.
---@param parent lbox.async.Node|nil
function M.new(parent, strand, on_error, shield)
  local scope = setmetatable({
    parent = false, first = false, last = false, next = false, prev = false,
    strand = strand, cancel_error = false, failed = false, failure = nil,
    on_error = on_error or "cancel", shield = shield or false, left = false, is_task = false,
    joiners = false, closer = false, carries = false,
  }, Scope)
  M.link(scope, parent)
  return scope
end

-- Wakes whoever is parked in this very scope; a strand that turns the loop looks for itself.
local function interrupt(scope)
  local strand = scope.strand
  local op = strand.waiting
  if op and strand.scope == scope then
    strand.waiting = false
    op.waiter = false
    strand.loop:wake(strand)
  end
end

local function spread(scope, err)
  scope.cancel_error = err
  interrupt(scope)
  local child = scope.first
  while child do
    if not child.shield and not child.cancel_error then
      spread(child, err)
    end
    child = child.next
  end
end

--- Cancels a scope: from now on every wait in it raises the same object. The first reason stays.
---@param scope lbox.async.Node
---@param reason lbox.Error|string|nil
function M.cancel(scope, reason)
  if scope.cancel_error or scope.left then
    return
  end
  if not errors.is(reason) then
    reason = errors.new("cancelled", reason and tostring(reason) or "cancelled")
  end
  spread(scope, reason)
end

--- Notes the error of the body or of a task; the first one stays and, unless the scope waits for
--- all, cancels the rest.
function M.fail(scope, err, what)
  if not scope.failed then
    scope.failed, scope.failure = true, err
  end
  if scope.on_error == "cancel" and not scope.cancel_error then
    M.cancel(scope, errors.new("cancelled", what, { cause = err }))
  end
end

--- What this scope and those around it carry under a name, the innermost first.
---@param scope lbox.async.Node
---@param name string
---@param shielded boolean|nil  not what is outside of a shield
---@return any[]
function M.carried(scope, name, shielded)
  local all = {}
  while scope do
    local value = scope.carries and scope.carries[name]
    if value then
      all[#all + 1] = value
    end
    scope = not (shielded and scope.shield) and scope.parent
  end
  return all
end

local Closer = {}
Closer.__index = Closer

--- Takes it back; nothing happens when it ran already.
function Closer:remove()
  local scope = self.scope
  if not scope then
    return
  end
  self.scope = false
  local newer, older = self.newer, self.older
  if newer then
    newer.older = older
  else
    scope.closer = older
  end
  if older then
    older.newer = newer
  end
end

--- Calls `fn(cancel_error|nil)` when the scope is left, the latest first.
---@return { remove: fun(self) }
function M.on_close(scope, fn)
  if scope.left then
    errors.raise("usage", "the scope is already left: nothing can be opened in it")
  end
  local older = scope.closer
  local closer = setmetatable({ scope = scope, fn = fn, older = older, newer = false }, Closer)
  if older then
    older.newer = closer
  end
  scope.closer = closer
  return closer
end

--- Runs the closers. Errors in them fail the scope.
function M.run_closers(scope, handler)
  local closer = scope.closer
  while closer do
    closer:remove()
    local ok, err = xpcall(closer.fn, handler, scope.cancel_error or nil)
    if not ok and err ~= scope.cancel_error then
      M.fail(scope, err, "cancelled because closing something failed")
    end
    closer = scope.closer
  end
end

return M
