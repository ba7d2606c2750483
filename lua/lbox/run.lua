--- A run: what an agent, a command or a piece of code did, or is doing.
local async = require "lbox.async"
local core = require "lbox.core"
local errors = require "lbox.errors"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local settle = require "lbox.settle"
local url = require "lbox.url"

local M = {}

local MAX_EXIT_CODE = 2 ^ 31

-- Of a year with four digits.
local LAST_TIME = 253402300800

local LOGS_OPTIONS = { timeout = "ms", headers = "table" }

-- Answers to a cancel by which the run does not go on.
local NOT_RUNNING = { [404] = true, [409] = true }

---@class lbox.Cost
---@field input_tokens integer
---@field output_tokens integer
---@field cached_input_tokens integer
---@field compute_ms number
---@field total_usd number

---@class lbox.Run
---@field id string        the server's once it is known, else a local UUID
---@field type "agent"|"command"|"code"
---@field status "running"|"completed"|"failed"|"cancelled"|"detached"
---@field result any       "" until set; the validated table when a schema was given
---@field exit_code integer|nil
---@field stdout string
---@field stderr string
---@field cost lbox.Cost
---@field _began integer   when it began, in Unix seconds
local methods = {}
M.methods = methods

--- A cost of nothing.
---@return lbox.Cost
function M.no_cost()
  return {
    input_tokens = 0, output_tokens = 0, cached_input_tokens = 0, compute_ms = 0, total_usd = 0,
  }
end

--- Adds one cost to another.
function M.add_cost(into, cost)
  for key, amount in pairs(cost or {}) do
    into[key] = (into[key] or 0) + amount
  end
  return into
end

local function number(value)
  return type(value) == "number" and value or 0
end

--- The tokens and dollars in a `done` or `error` event or in an entry of the list of runs. Returns whether
--- any of them is told.
---@return boolean
function M.set_cost(cost, data)
  local usd = type(data.total_cost_usd) == "number" and data.total_cost_usd or data.cost_usd
  cost.input_tokens = number(data.input_tokens)
  cost.output_tokens = number(data.output_tokens)
  cost.cached_input_tokens = number(data.cached_input_tokens)
  cost.total_usd = number(usd)
  if type(data.duration_ms) == "number" then
    cost.compute_ms = data.duration_ms
  end
  return type(usd) == "number" or type(data.input_tokens) == "number" or type(data.output_tokens) == "number"
end

--- Whether that is an exit code.
function M.is_exit_code(value)
  return type(value) == "number" and value % 1 == 0 and value > -MAX_EXIT_CODE and value < MAX_EXIT_CODE
end

--- White space cut at both ends. In linear time: a pattern like "(.-)%s*$" looks at each run of spaces once per space.
function M.trim(text)
  return text:match(".*%S", (text:match("^%s*()"))) or ""
end

--- The fields every run starts with.
---@param link lbox.Link
---@param kind "agent"|"command"|"code"
function M.fields(link, kind)
  return {
    id = core.uuid(),
    type = kind,
    status = "running",
    stdout = "",
    stderr = "",
    cost = M.no_cost(),
    _link = link,
    _started = async.now(),
    _began = os.time(),
  }
end

--- Posts the cancel of a run, also in a cancelled scope. Never raises; true if the server
--- confirmed, else false and the error.
---@param link lbox.Link
---@param run_id string
---@param ms number|nil  how long it may take: CLEAN_UP_MS
---@return boolean confirmed
---@return any err
function M.post_cancel(link, run_id, ms)
  ms = ms or async.CLEAN_UP_MS
  return pcall(async.shield, function()
    link:perform {
      method = "POST",
      path = "/runs/" .. url.segment(run_id, "the id of a run") .. "/cancel",
      timeout = ms,
      once = true,
    }
  end, ms)
end

--- The same for a run that nobody is going to ask about: that it may go on is said to the host.
---@param link lbox.Link
---@param run_id string
---@param ms number|nil
function M.abandon(link, run_id, ms)
  local confirmed, err = M.post_cancel(link, run_id, ms)
  if not confirmed and not (errors.is(err, "api") and NOT_RUNNING[err.status_code]) then
    async.warn(("run %s may go on in box %s, it could not be cancelled: %s"):format(
      run_id, link.id, tostring(err)))
  end
  return confirmed
end

--- Takes over what the server's list says of a run.
function M.apply(run, data)
  run.status = data.status
  if type(data.output) == "string" then
    run.result = run.type == "agent" and M.trim(data.output) or data.output
  end
  M.set_cost(run.cost, data)
end

--- What the box logged since the run began: a list of { timestamp (ISO 8601), level, message }.
---@param opts lbox.ReadOptions|nil
---@return table[]
function methods:logs(opts)
  opts = options.call(opts, LOGS_OPTIONS, "run:logs")
  local list = {}
  for _, entry in ipairs(self._link:list("logs", { path = "/logs", opts = opts })) do
    local at = type(entry.timestamp) == "number" and entry.timestamp or 0
    if at >= self._began and at < LAST_TIME then
      list[#list + 1] = {
        timestamp = os.date("!%Y-%m-%dT%H:%M:%S", math.floor(at)) .. (".%03dZ"):format(math.floor(at % 1 * 1000)),
        level = entry.level,
        message = entry.message,
      }
    end
  end
  return list
end

--- Cancels the run; makes its status cancelled if it was still going on. Never raises.
---@return boolean confirmed  whether the server said so; always false for commands
function methods:cancel()
  local confirmed = false
  if self._run_id then
    confirmed = M.post_cancel(self._link, self._run_id)
  end
  if self.status == "running" or self.status == "detached" then
    self.status = "cancelled"
  end
  return confirmed
end

local OVER = { completed = true, failed = true, cancelled = true }
local WAIT_OPTIONS = { timeout = "ms" }

--- Follows a run that is not over (detached, broken off) in the server's list until it is, and
--- fills status, result and cost. Raises `timeout` when it did not end in time, `stream` when the list
--- does not have it or shows nothing new for the client's timeout, `usage` for a command.
---@param opts { timeout: number|nil }|nil  ms; nil and 0: no limit
function methods:wait(opts)
  options.check(opts, WAIT_OPTIONS, "run:wait")
  local timeout = opts and opts.timeout or 0
  if OVER[self.status] then
    return
  elseif not self._run_id then
    errors.raise("usage", "this run cannot be waited for: the server's list does not name it")
  end
  local deadline = self._link.client:deadline(timeout)
  local data, why = settle.follow(self._link, self._run_id, deadline,
    settle.look_up(self._link, self._run_id, deadline))
  local facts = { run_id = self._run_id, box_id = self._link.id, retryable = true }
  if why == "deadline" then
    errors.raise("timeout", ("the run did not end within %.14g ms"):format(timeout), facts)
  elseif why then
    errors.raise("stream", "the run goes on, but the server says nothing new of it", facts)
  elseif not data then
    errors.raise("stream", "the run is not in the server's list", facts)
  end
  M.apply(self, data)
  if self._entry then
    self._entry:cost(self.cost)
    self._entry:ended(self.status)
  end
end

local metatable = namespace.metatable("run", methods)

--- A run that nobody reads.
---@return lbox.Run
function M.new(fields)
  fields.result = fields.result == nil and "" or fields.result
  return setmetatable(fields, metatable)
end

--- A run by what the server's list says of it. Commands and code are the same there.
---@param link lbox.Link
---@param data table
---@return lbox.Run
function M.of_data(link, data)
  local run = M.fields(link, data.type == "agent" and "agent" or "command")
  run.id, run._run_id = data.id, data.id
  run._began = type(data.created_at) == "number" and data.created_at or run._began
  M.apply(run, data)
  return M.new(run)
end

return M
