--- What became of a run whose stream broke off: the server's list of runs knows.
local async = require "lbox.async"
local errors = require "lbox.errors"

local M = {}

local OVER = { completed = true, failed = true, cancelled = true, skipped = true }

-- A look at the list takes at most this long, tries included.
local LOOK_MS = 2000

-- How often a run that goes on is looked at: soon at first, then ever more rarely.
local FIRST_POLL_MS, LAST_POLL_MS = 250, 2000

--- Whether the server says that this run is over.
---@param data table  an entry of the list
function M.is_over(data)
  return OVER[data.status] or false
end

--- The run's entry in the server's list, nil when it has none.
---@param link lbox.Link
---@param run_id string
---@param deadline lbox.Deadline
---@return table|nil
function M.look_up(link, run_id, deadline)
  local at = async.now() + LOOK_MS
  local runs = link:list("runs", {
    path = "/runs",
    deadline = { ms = LOOK_MS, at = deadline.at and math.min(deadline.at, at) or at },
    once = true,
  })
  for _, data in ipairs(runs) do
    if data.id == run_id then
      return data
    end
  end
end

local PROGRESS = { "status", "output", "input_tokens", "output_tokens", "cpu_ns", "duration_ms" }

--- What a run that goes on shows of its progress.
local function progress(data)
  local seen = {}
  for i, field in ipairs(PROGRESS) do
    local value = data[field]
    seen[i] = type(value) == "table" and "" or tostring(value)
  end
  return table.concat(seen, "\0")
end

--- The same look; false when the server could not be asked just now.
local function try_look_up(link, run_id, deadline)
  local ok, data = pcall(M.look_up, link, run_id, deadline)
  if ok then
    return true, data
  elseif errors.is(data) and data.retryable then
    return false
  end
  error(data, 0)
end

--- Follows a run in the list until it is over.
---@param link lbox.Link
---@param run_id string
---@param deadline lbox.Deadline
---@param data table  its entry, as it was found
---@param given_up (fun(): boolean)|nil  nobody wants to know any more
---@return table|nil data  its entry; nil when it is no longer in the list
---@return "deadline"|"unchanged"|nil why  it still goes on: the deadline passed, or nothing
---  changed for the client's timeout
function M.follow(link, run_id, deadline, data, given_up)
  local pause = FIRST_POLL_MS
  local patience = link.client:deadline()
  while data and not M.is_over(data) and not (given_up and given_up()) do
    local now = async.now()
    local limit = math.min(deadline.at or math.huge, patience.at or math.huge)
    if now >= limit then
      return data, deadline.at == limit and "deadline" or "unchanged"
    end
    async.sleep(math.min(pause, limit - now))
    pause = math.min(pause * 1.5, LAST_POLL_MS)
    local asked, found = try_look_up(link, run_id, deadline)
    if asked then
      if not found or progress(found) ~= progress(data) then
        patience = link.client:deadline()
      end
      data = found
    end
  end
  return data
end

return M
