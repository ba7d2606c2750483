--- What is told of boxes (`GET …/logs`): the newest entries of each, kept while the server runs. They are not
--- in the database: what fills them may be done by a program of the box, as fast as that can.
local M = {}

local MAX_ENTRIES = 500
-- The same said again within this time is counted in the entry that there is.
local SAME_S = 60
-- New entries in a time, per box, of what programs of the box bring about; what is more is only counted. What a
-- client asks for is bounded by that.
local WINDOW_S, MAX_IN_WINDOW = 10, 50

---@class lbox.server.Logs
---@field boxes table<string, table>  by id
local Logs = {}
Logs.__index = Logs

---@return lbox.server.Logs
function M.new()
  return setmetatable({ boxes = {} }, Logs)
end

local function forget_oldest(log)
  local oldest = table.remove(log.entries, 1)
  if log.by_message[oldest.message] == oldest then
    log.by_message[oldest.message] = nil
  end
end

--- Adds an entry.
---@param id string     of the box
---@param level "info"|"warn"|"error"
---@param message string
---@param source "system"|"agent"|"user"|nil  nil: system
function Logs:add(id, level, message, source)
  local now = os.time()
  local log = self.boxes[id] or { entries = {}, by_message = {}, window = now, added = 0 }
  self.boxes[id] = log
  if now - log.window >= WINDOW_S then
    log.window, log.added = now, 0
  end
  local same = log.by_message[message]
  local is_asked_for = source == "agent" or source == "user"
  if not same and not is_asked_for and log.added >= MAX_IN_WINDOW then
    message = "more than can be told"
    same, level = log.by_message[message], "warn"
  end
  if same and now - same.timestamp < SAME_S then
    same.count, same.timestamp = same.count + 1, now
    return
  end
  local entry = { timestamp = now, level = level, source = source or "system", message = message, count = 1 }
  log.added = is_asked_for and log.added or log.added + 1
  log.entries[#log.entries + 1], log.by_message[message] = entry, entry
  if #log.entries > MAX_ENTRIES then
    forget_oldest(log)
  end
end

--- Entries as the wire has them, oldest first.
---@param id string
---@param offset integer|nil  so many are left out
---@param limit integer|nil
---@return table[]
function Logs:list(id, offset, limit)
  local out = {}
  local entries = self.boxes[id] and self.boxes[id].entries or {}
  for i = (offset or 0) + 1, math.min(#entries, (offset or 0) + (limit or MAX_ENTRIES)) do
    local entry = entries[i]
    out[#out + 1] = { timestamp = entry.timestamp, level = entry.level, source = entry.source,
      message = entry.count == 1 and entry.message or ("%s (%d times)"):format(entry.message, entry.count) }
  end
  return out
end

--- The newest entries of all boxes, oldest first, each with its `box_id`.
---@param limit integer
---@return table[]
function Logs:all(limit)
  local out = {}
  for id in pairs(self.boxes) do
    for _, entry in ipairs(self:list(id)) do
      entry.box_id = id
      out[#out + 1] = entry
    end
  end
  table.sort(out, function(a, b) return a.timestamp < b.timestamp end)
  return table.move(out, math.max(1, #out - limit + 1), #out, 1, {})
end

--- The box is gone.
function Logs:forget(id)
  self.boxes[id] = nil
end

return M
