--- What is going on: every task that has not ended, for who looks for the one that hangs.
local core = require "lbox.core"
local rt = require "lbox.async.runtime"
local trace = require "lbox.async.trace"

local M = {}

---@class lbox.TaskInfo
---@field name string   of the task: where its function stands
---@field depth integer  0: spawned outside of every task; 1: by one of those; …
---@field state "waiting"|"running"|"ready"  ready: it goes on in the next turn of the loop
---@field at string     where in the user's code it stands, "file:line"; "?": it runs, or has not begun
---@field ms number|nil  how long it has been waiting
---@field traceback string|nil  of a task that stands still

local List_mt = { __name = "lbox.tasks" }

local function show(info)
  local waited = info.ms and (" for %.1f s"):format(info.ms / 1000) or ""
  local at = info.at ~= "?" and " at " .. info.at or ""
  return ("%s%s  %s%s%s"):format(("  "):rep(info.depth), info.name, info.state, waited, at)
end

function List_mt.__tostring(list)
  local lines = { ("%d live task%s"):format(#list, #list == 1 and "" or "s") }
  for i, info in ipairs(list) do
    lines[i + 1] = "  " .. show(info)
  end
  return table.concat(lines, "\n")
end

local function describe(task, depth)
  if task == rt.strand or coroutine.status(task.co) ~= "suspended" then
    return { name = task.name, depth = depth, state = "running", at = "?" }
  end
  local info = { name = task.name, depth = depth, at = trace.line_of(task.co), traceback = trace.of(task.co) }
  if task.queued then
    info.state = "ready"
  else
    info.state, info.ms = "waiting", core.now() - task.parked_at
  end
  return info
end

local function walk(node, depth, list)
  local child = node.first
  while child do
    if child.is_task and child.co then
      list[#list + 1] = describe(child, depth)
      walk(child, depth + 1, list)
    else
      walk(child, depth, list)
    end
    child = child.next
  end
  return list
end

--- The live tasks, each before those it owns. As a string it is a table for people.
---@return lbox.TaskInfo[]
function M.tasks()
  return setmetatable(rt.root and walk(rt.root, 0, {}) or {}, List_mt)
end

return M
