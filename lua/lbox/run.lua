--- Runs: what agent:run, exec:command and exec:code return. A stream is a run that can be read
--- (stream.lua).
local async = require "lbox.async"
local client = require "lbox.client"
local core = require "lbox.core"
local errors = require "lbox.errors"

local M = {}

-- How long telling the server that a run is cancelled may take.
local CANCEL_MS = 5000
-- Looking up a run whose stream broke.
local LOOK_UP_MS = 2000
local FIRST_POLL_MS, LONGEST_POLL_MS = 200, 2000

---@class lbox.Run
---@field id string          the server's once it is known, before that a local UUID
---@field type "agent"|"command"|"code"
---@field status "running"|"completed"|"failed"|"cancelled"|"detached"
---@field result any         "" until set
---@field exit_code integer|nil
---@field stdout string
---@field stderr string
---@field cost table       input_tokens, output_tokens, cached_input_tokens, compute_ms, total_usd
local methods = {}
M.methods = methods

--- A run that has just begun. `mt` is the metatable of what is made (a stream has its own).
function M.new(box, kind, mt)
  return setmetatable({
    box = box,
    id = core.uuid(),
    type = kind,
    status = "running",
    result = "",
    stdout = "",
    stderr = "",
    started = async.now(),
    cost = { input_tokens = 0, output_tokens = 0, cached_input_tokens = 0, compute_ms = 0, total_usd = 0 },
  }, mt or M.mt)
end

M.mt = { __name = "lbox.Run", __index = methods }

local function run_path(box, run_id)
  return ("/v2/box/%s/runs/%s/cancel"):format(client.segment(box.id), client.segment(run_id))
end

--- Tells the server that a run is cancelled, whatever is cancelled here meanwhile.
---@return boolean confirmed
function M.post_cancel(box, run_id)
  local ok = pcall(async.shield, function()
    box.client:request { method = "POST", path = run_path(box, run_id), timeout = CANCEL_MS }
  end, CANCEL_MS)
  return ok
end

--- Cancels the run: tells the server for an agent run, closes the transfer of the others. Never raises.
---@return boolean confirmed  whether the server said so
function methods:cancel()
  local confirmed = false
  if self.type == "agent" and self.server_id then
    confirmed = M.post_cancel(self.box, self.server_id)
  end
  if self.status == "running" then
    self.status = "cancelled"
  end
  if self.exchange then
    self.exchange:close()
  end
  return confirmed
end

--- The server knows this run by `id`.
function M.set_id(run, id)
  if type(id) == "string" and id ~= "" then
    run.id, run.server_id = id, id
  end
end

local function look_up(box, run_id, timeout)
  local answer = box.client:request {
    method = "GET", path = ("/v2/box/%s/runs"):format(client.segment(box.id)), timeout = timeout,
  }
  for _, data in ipairs(type(answer.runs) == "table" and answer.runs or {}) do
    if data.id == run_id then
      return data
    end
  end
end

--- What the server's list says of a run, or nil when it cannot be had.
local function try_look_up(run)
  local ok, data = pcall(look_up, run.box, run.server_id, LOOK_UP_MS)
  return ok and data or nil
end

--- Takes over a run's end from the server's list. Raises unless it completed.
local function take_end(run, data)
  local cost = run.cost
  cost.input_tokens = tonumber(data.input_tokens) or cost.input_tokens
  cost.output_tokens = tonumber(data.output_tokens) or cost.output_tokens
  cost.cached_input_tokens = tonumber(data.cached_input_tokens) or cost.cached_input_tokens
  cost.total_usd = tonumber(data.cost_usd) or cost.total_usd
  cost.compute_ms = tonumber(data.duration_ms) or cost.compute_ms
  run.status = data.status
  if data.status == "completed" then
    return type(data.output) == "string" and data.output or ""
  end
  local why = type(data.error_message) == "string" and data.error_message ~= "" and data.error_message
    or ("the run is %s"):format(tostring(data.status))
  errors.raise("run", why, { run_id = run.id, box_id = run.box.id, partial = run:partial(),
    cost = run.cost })
end

local function broken(run, why)
  run.status = "failed"
  errors.raise("stream", why, { run_id = run.server_id, box_id = run.box.id, partial = run:partial(),
    retryable = true })
end

--- The stream of a run ended without its end: looks the run up. Returns its output when it completed;
--- with `follow`, waits for it while it runs; raises otherwise.
---@param why string  what happened to the stream
function M.settle(run, why, follow, deadline)
  local data = run.server_id and try_look_up(run)
  if not data then
    broken(run, why)
  end
  local delay, changed_at, last = FIRST_POLL_MS, async.now(), data.updated_at
  while data.status == "running" do
    local patience = run.box.client.settings.timeout
    if not follow or (patience > 0 and async.now() - changed_at > patience) then
      broken(run, why .. "; the run goes on at the server")
    elseif deadline and async.now() + delay > deadline then
      errors.raise("timeout", "the run did not end in time", { run_id = run.id, box_id = run.box.id,
        partial = run:partial() })
    end
    async.sleep(delay)
    delay = math.min(delay * 1.5, LONGEST_POLL_MS)
    local now = try_look_up(run)
    if now then
      if now.updated_at ~= last or now.status ~= data.status then
        changed_at, last = async.now(), now.updated_at
      end
      data = now
    end
  end
  return take_end(run, data)
end

function methods.partial()
  return ""
end

return M
