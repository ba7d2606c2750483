--- A binary heap of timers, nearest first; of two due at the same time the one added first. What is
--- in the heap are the caller's own tables, so that an operation can be its own timer.
local M = {}

local floor = math.floor

local Heap = {}
Heap.__index = Heap

---@class lbox.async.TimerEntry
---@field at number         absolute ms
---@field fire fun(entry)   called once when due
---@field slot integer|false  place in the heap, false when it is not in it
---@field number integer    order of adding

function M.new()
  return setmetatable({ n = 0, added = 0 }, Heap)
end

local function before(a, b)
  return a.at < b.at or (a.at == b.at and a.number < b.number)
end

local function up(heap, entry, i)
  while i > 1 do
    local parent = floor(i / 2)
    local other = heap[parent]
    if not before(entry, other) then
      break
    end
    heap[i] = other
    other.slot = i
    i = parent
  end
  heap[i] = entry
  entry.slot = i
end

local function down(heap, entry, i)
  local n = heap.n
  while true do
    local child = i * 2
    if child > n then
      break
    end
    if child < n and before(heap[child + 1], heap[child]) then
      child = child + 1
    end
    local other = heap[child]
    if not before(other, entry) then
      break
    end
    heap[i] = other
    other.slot = i
    i = child
  end
  heap[i] = entry
  entry.slot = i
end

--- Puts an entry in; `entry.fire(entry)` is called when it is due.
---@param entry lbox.async.TimerEntry
function Heap:add(entry)
  local n = self.n + 1
  self.n = n
  self.added = self.added + 1
  entry.number = self.added
  up(self, entry, n)
end

--- Takes an entry out; nothing happens when it is not in.
function Heap:remove(entry)
  local i = entry.slot
  if not i then
    return
  end
  entry.slot = false
  local n = self.n
  local moved = self[n]
  self[n] = nil
  self.n = n - 1
  if i < n then
    if i > 1 and before(moved, self[floor(i / 2)]) then
      up(self, moved, i)
    else
      down(self, moved, i)
    end
  end
end

--- When the next one is due, nil when there is none.
---@return number|nil
function Heap:next_at()
  local top = self[1]
  return top and top.at
end

--- Fires what is due at `now`. What is added meanwhile waits for the next call.
function Heap:run(now)
  local newest = self.added
  local top = self[1]
  while top and top.at <= now and top.number <= newest do
    self:remove(top)
    top.fire(top)
    top = self[1]
  end
end

return M
