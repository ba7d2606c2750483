-- What a server has answered, and what it was asked and has not answered: the value of every thing, and for what is
-- under way all the outcomes there may be. A thing that is not there has the value ABSENT.
local errors = require "lbox.errors"

local M = {}
M.__index = M

M.ABSENT = "absent"

function M.new()
  return setmetatable({ values = {}, open = {} }, M)
end

function M:value(name)
  return self.values[name] or M.ABSENT
end

--- Names of things that are there and begin with `prefix`, sorted.
function M:names(prefix)
  local names = {}
  for name in pairs(self.values) do
    if name:sub(1, #prefix) == prefix then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

local function settle(self, outcome)
  for name, value in pairs(outcome) do
    self.values[name] = value ~= M.ABSENT and value or nil
  end
end

--- Calls `fn`, which asks for `outcome`. Once it returns, that is how things are; while it goes on they are so,
--- as they were before, or as one of `others` says: all that an outcome names together.
---@param outcome table<string, string>
---@param fn fun(): any
---@param others table<string, string>[]|nil
function M:change(outcome, fn, others)
  local before = {}
  for name in pairs(outcome) do
    before[name] = self:value(name)
  end
  local change = { before, outcome, table.unpack(others or {}) }
  self.open[change] = true
  local ok, result = pcall(fn)
  if ok then
    settle(self, outcome)
    self.open[change] = nil
  elseif errors.is(result, "api") then
    self.refused = ("%s (%s)"):format(result.message, tostring(result.status_code))
    self.open[change] = nil
  end
  if not ok then
    error(result, 0)
  end
  return result
end

local function same(outcome, seen)
  for name, value in pairs(outcome) do
    if (seen[name] or M.ABSENT) ~= value then
      return false
    end
  end
  return true
end

local function short(value)
  return #value > 80 and value:sub(1, 77) .. "..." or value
end

local function settle_open(self, change, seen, wrong)
  for _, outcome in ipairs(change) do
    if same(outcome, seen) then
      return settle(self, outcome)
    end
  end
  for name, value in pairs(change[1]) do
    wrong[#wrong + 1] = ("%s was under way from %s to %s, and is %s"):format(name, short(value), short(change[2][name]),
      short(seen[name] or M.ABSENT))
  end
end

--- Compares with what is seen. What was under way is settled by it.
---@param seen table<string, string>
---@return string[] wrong, integer compared, integer under_way
function M:compare(seen)
  local wrong, compared, under_way = {}, 0, 0
  for change in pairs(self.open) do
    settle_open(self, change, seen, wrong)
    under_way = under_way + 1
  end
  for name, value in pairs(self.values) do
    compared = compared + 1
    if seen[name] ~= value then
      wrong[#wrong + 1] = ("%s was %s, and is %s"):format(name, short(value), short(seen[name] or M.ABSENT))
    end
  end
  for name, value in pairs(seen) do
    if not self.values[name] then
      wrong[#wrong + 1] = ("%s is %s, and nobody asked for it"):format(name, short(value))
    end
  end
  self.open = {}
  return wrong, compared, under_way
end

return M
