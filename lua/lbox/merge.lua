--- Many streams read as one, by whoever asks: no task reads ahead, and leaving the loop leaves nothing
--- behind.
local errors = require "lbox.errors"
local streams = require "lbox.stream"

local M = {}

local NOTHING = {}

local function check(named)
  if type(named) ~= "table" then
    errors.raise("usage", "merge takes a table of streams by their names, got " .. type(named))
  end
  local list = {}
  for name, stream in pairs(named) do
    if type(stream) ~= "table" or not rawget(stream, "_transfer") then
      errors.raise("usage", ("merge takes streams, but %s is a %s"):format(tostring(name), type(stream)))
    end
    list[#list + 1] = { name = name, stream = stream }
  end
  table.sort(list, function(a, b) return tostring(a.name) < tostring(b.name) end)
  return list
end

local Merge_mt = {}

--- Leaving the loop early closes the streams, as it does with one; an error cancels the runs, unless it
--- is that of one of them.
function Merge_mt.__close(merge, err)
  for _, entry in ipairs(merge.list) do
    if entry.stream._error == err then
      err = nil
    end
  end
  for _, entry in ipairs(merge.list) do
    streams.leave(entry.stream, err)
  end
end

--- The next chunk that is here, of the streams in turn; nil when there is none. Takes out those that ended.
local function take(merge)
  local list = merge.list
  for _ = 1, #list do
    local i = merge.turn % #list + 1
    local entry = list[i]
    local chunk = streams.take(entry.stream, NOTHING)
    if chunk == nil then
      table.remove(list, i)
      merge.turn = i - 1
      if #list == 0 then
        return nil
      end
    elseif chunk == NOTHING then
      merge.turn = i
    else
      merge.turn = i
      return entry.name, chunk
    end
  end
end

local function next_of(merge)
  while #merge.list > 0 do
    local name, chunk = take(merge)
    if name ~= nil then
      return name, chunk
    elseif #merge.list > 0 then
      local waiting = {}
      for i, entry in ipairs(merge.list) do
        waiting[i] = entry.stream
      end
      streams.wait_any(waiting)
    end
  end
end

--- `for name, chunk in lbox.merge { a = stream, b = stream } do`: the chunks of many streams as they come,
--- those that are here of each in turn. What ends one of them early is raised. Leaving the loop early, or by
--- an error, closes all on Lua 5.4; on LuaJIT close them.
---@param named table<any, lbox.Stream>
---@return fun(): any, table
function M.merge(named)
  local merge = setmetatable({ list = check(named), turn = 0 }, Merge_mt)
  return next_of, merge, nil, merge
end

return M
