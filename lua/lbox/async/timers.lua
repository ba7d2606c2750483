--- A binary heap of timers, nearest first. A cancelled timer stays in it until it comes to the top.
local M = {}

local Timers = {}
Timers.__index = Timers

---@class lbox.async.Timer
---@field at number  absolute ms
---@field fn fun()|nil  nil once it ran or was cancelled
local Timer = {}
Timer.__index = Timer

function Timer:cancel()
  self.fn = nil
end

function M.new()
  return setmetatable({ n = 0 }, Timers)
end

--- Adds a timer that runs `fn` at the absolute time `at` (ms).
---@return lbox.async.Timer
function Timers:add(at, fn)
  local timer = setmetatable({ at = at, fn = fn }, Timer)
  local i = self.n + 1
  self.n = i
  while i > 1 do
    local parent = math.floor(i / 2)
    if self[parent].at <= at then
      break
    end
    self[i] = self[parent]
    i = parent
  end
  self[i] = timer
  return timer
end

local function pop(heap)
  local top, last = heap[1], heap[heap.n]
  heap[heap.n] = nil
  heap.n = heap.n - 1
  local n, i = heap.n, 1
  if n > 0 then
    while true do
      local child = i * 2
      if child > n then
        break
      end
      if child < n and heap[child + 1].at < heap[child].at then
        child = child + 1
      end
      if heap[child].at >= last.at then
        break
      end
      heap[i] = heap[child]
      i = child
    end
    heap[i] = last
  end
  return top
end

--- When the next live timer is due, nil when there is none.
function Timers:next_at()
  while self.n > 0 and not self[1].fn do
    pop(self)
  end
  return self.n > 0 and self[1].at or nil
end

--- Runs every timer due at `now`; those added meanwhile wait for the next call.
function Timers:run(now)
  local due = {}
  while true do
    local at = self:next_at()
    if not at or at > now then
      break
    end
    due[#due + 1] = pop(self)
  end
  for _, timer in ipairs(due) do
    local fn = timer.fn
    timer.fn = nil
    if fn then
      fn()
    end
  end
end

return M
