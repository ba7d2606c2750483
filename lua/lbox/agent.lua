--- `box.agent`: runs of the box's agent.
local agent_options = require "lbox.agent_options"
local agent_stream = require "lbox.agent_stream"
local async = require "lbox.async"
local budgets = require "lbox.budget"
local client = require "lbox.client"
local core = require "lbox.core"
local errors = require "lbox.errors"
local json = require "lbox.json"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local prompt_files = require "lbox.prompt_files"
local runs = require "lbox.run"
local schema = require "lbox.schema"
local streams = require "lbox.stream"

local M = {}

local NO_AGENT = "no agent configured for box %s: "
  .. "pass agent = { harness = …, model = … } to Box.create"

-- Before a run is started again.
local FIRST_PAUSE_MS, LAST_PAUSE_MS = 1000, 30000

-- How much of an output that does not match its schema an error shows.
local RAW_BYTES = 500

-- `timeout` is a deadline for the whole run, over all tries; nil: none.
---@class lbox.agent.StreamOptions: lbox.CallOptions
---@field prompt string
---@field files string[]|lbox.PromptFile[]|nil  local paths, or contents
---@field options table|nil          of the agent itself, snake_case
---@field idle_timeout number|nil    ms of silence allowed; 0: any, nil: the client's timeout
---@field budget lbox.Budget|nil     what the run may spend together with others
---@field on_tool_use fun(tool: { tool_call_id: string?, name: string, input: any })|nil
---@field on_tool_result fun(result: { tool_call_id: string?, output: any })|nil

local STREAM_OPTIONS = client.call_options {
  prompt = "text!",
  files = "table",
  options = "table",
  idle_timeout = "ms",
  budget = "lbox.budget",
  on_tool_use = "function",
  on_tool_result = "function",
}

---@class lbox.agent.RunOptions: lbox.agent.StreamOptions
---@field response_schema any|nil    what the output has to be: see schema.lua
---@field max_retries integer|nil    how often a failed run is started anew
---@field webhook { url: string, headers: table<string, string>? }|nil  is told when the run ends; `run` does not
---  wait for it then

local RUN_OPTIONS = client.call_options {
  prompt = "text!",
  files = "table",
  response_schema = "any",
  options = "table",
  idle_timeout = "ms",
  budget = "lbox.budget",
  max_retries = "count",
  webhook = "table",
  on_tool_use = "function",
  on_tool_result = "function",
}

-- The option of a harness that limits what one run of it may cost.
local USD_CAP = { ["claude-code"] = "maxBudgetUsd" }

--- The options on the wire. A harness that can stop itself gets what the budget has left.
local function wire_options(given, harness, entry)
  local wire = agent_options.wire(given, harness)
  local cap, rest = USD_CAP[harness], entry and entry:rest_usd()
  if cap and rest then
    wire = wire or {}
    wire[cap] = math.min(tonumber(wire[cap]) or math.huge, rest)
  end
  return wire
end

local function check(self, opts, spec, what)
  options.check(opts, spec, what)
  local link = self._link
  link:check_open()
  local model = link.box.model_config
  if not model.harness and not model.model then
    errors.raise("usage", NO_AGENT:format(link.id), { box_id = link.id })
  end
end

--- The body of a request for a run.
local function body_of(link, opts, json_schema, entry, files)
  return {
    prompt = opts.prompt,
    folder = link:folder(),
    files = files,
    json_schema = json_schema,
    agent_options = wire_options(opts.options, link.harness, entry),
  }
end

--- Starts a run. The deadline is the caller's: a run that is tried again has one for all tries.
local function open(self, opts, deadline, json_schema, follow)
  local link = self._link
  local files, parts = prompt_files.of(opts.files)
  local entry = budgets.begin(opts.budget, link.id)
  return agent_stream.open {
    link = link,
    entry = entry,
    spec = {
      method = "POST",
      path = "/run/stream",
      mode = "sse",
      headers = opts.headers,
      extra = opts.extra,
      json = body_of(link, opts, json_schema, entry, files),
      parts = parts,
      lost = "the run may have been started",
    },
    deadline = deadline,
    idle_timeout = opts.idle_timeout,
    follow = follow,
    on_tool_use = opts.on_tool_use,
    on_tool_result = opts.on_tool_result,
  }
end

--- A total deadline only when one is asked for: agents may take their time.
local function deadline_of(self, opts)
  return self._link.client:deadline(opts.timeout or 0)
end

--- Checks the output against the schema.
local function typed(stream, wanted)
  local text = stream.result
  local value, why = json.decode(text)
  local ok, result
  if value ~= nil then
    ok, result = pcall(wanted.validate, wanted, value)
  else
    ok, result = false, errors.new("schema", "the output of the run is not JSON: " .. why, {
      path = "$", expected = "JSON",
    })
  end
  if ok then
    return result
  elseif errors.is(result, "schema") then
    result.retryable = true -- another run may do better
    result.raw, result.partial = text:sub(1, RAW_BYTES), text
    result.run_id, result.box_id, result.cost = stream._run_id, stream._link.id, stream.cost
  end
  error(result, 0)
end

--- One try: reads the stream to its end.
local function attempt(self, opts, deadline, wanted, json_schema)
  local stream = open(self, opts, deadline, json_schema, true)
  while stream:next() do end
  local result = stream.result
  if wanted then
    result = typed(stream, wanted)
  end
  local run = runs.fields(self._link, "agent")
  run.id, run._run_id, run.status = stream.id, stream._run_id, stream.status
  run.result, run.cost, run._started = result, stream.cost, stream._started
  return runs.new(run)
end

local RETRIED = { network = true, stream = true, run = true, schema = true }
local RETRIED_STATUS = { [408] = true, [429] = true }

local function may_try_again(err)
  if not errors.is(err) then
    return false
  elseif err.kind == "api" then
    local status = err.status_code or 0
    return RETRIED_STATUS[status] or status >= 500
  end
  return RETRIED[err.kind] or false
end

local WEBHOOK = { url = "text!", headers = "map" }

-- With a webhook nobody reads the run.
local NOT_WITH_WEBHOOK = { "on_tool_use", "on_tool_result", "timeout", "idle_timeout", "max_retries" }

--- Starts a run whose end the server tells somebody else.
local function start_with_webhook(self, opts, json_schema)
  for _, name in ipairs(NOT_WITH_WEBHOOK) do
    if opts[name] ~= nil then
      errors.raise("usage", ("box.agent:run with webhook does not take %s: it does not wait for the run"):format(name))
    end
  end
  options.check(opts.webhook, WEBHOOK, "webhook")
  local link = self._link
  local files, parts = prompt_files.of(opts.files)
  local entry = budgets.begin(opts.budget, link.id)
  local body = body_of(link, opts, json_schema, entry, files)
  body.webhook = opts.webhook
  local run = runs.fields(link, "agent")
  run._entry = entry
  local spec = {
    method = "POST", path = "/run", json = body, parts = parts, opts = opts,
    lost = "the run may have been started",
    permit = entry and function() entry:check() end,
    undo = function(transfer)
      local answer, status = client.late_answer(transfer)
      if answer and type(answer.run_id) == "string" then
        runs.abandon(link, answer.run_id)
      elseif not status or status < 300 then
        async.warn(streams.UNNAMED:format(link.id))
      end
    end,
  }
  local function send()
    local answer, status = link:request(spec)
    if type(answer.run_id) ~= "string" or answer.run_id == "" then
      link:nonsense(spec, status)
    end
    run.id, run._run_id = answer.run_id, answer.run_id
    return run
  end
  if not entry then
    return runs.new(send())
  end
  local ok, err = pcall(entry.open, entry, send)
  if not ok then
    entry:not_opened(err)
    error(err, 0)
  end
  entry:accepted(link, run.id)
  return runs.new(run)
end

---@class lbox.BoxAgent
local methods = {}

--- Runs the agent to its end. Raises `usage` without a request when the box has no agent, `run` when
--- the agent reports an error, `schema` when its output does not match, `timeout` when a limit passes
--- (the run is cancelled), `stream` when the stream broke off and the run is not known to have
--- completed; and an error of a callback as it is. With `webhook` it returns at once: `run:wait()` and
--- `box:get_run(id)` follow the run.
---@param opts lbox.agent.RunOptions
---@return lbox.Run
function methods:run(opts)
  check(self, opts, RUN_OPTIONS, "box.agent:run")
  local wanted = opts.response_schema ~= nil and schema.from(opts.response_schema) or nil
  local json_schema = wanted and wanted:to_json_schema()
  if opts.webhook then
    return start_with_webhook(self, opts, json_schema)
  end
  local deadline = deadline_of(self, opts)
  local cost = runs.no_cost()
  local pause = FIRST_PAUSE_MS
  local tries_left = opts.max_retries or 0
  while true do
    local ok, run = pcall(attempt, self, opts, deadline, wanted, json_schema)
    if ok then
      run.cost = runs.add_cost(cost, run.cost)
      return run
    end
    local err = run
    if errors.is(err) and err.cost then
      err.cost = runs.add_cost(cost, err.cost)
      cost = runs.add_cost(runs.no_cost(), err.cost)
    end
    if tries_left <= 0 or not may_try_again(err)
      or (deadline.at and core.now() + pause >= deadline.at) then
      error(err, 0)
    end
    if err.kind == "stream" and err.run_id then
      -- It may still go on, and two at once would be one too many.
      runs.abandon(self._link, err.run_id)
    end
    tries_left = tries_left - 1
    async.sleep(pause)
    pause = math.min(pause * 2, LAST_PAUSE_MS)
  end
end

local ONLY_RUN = { response_schema = true, max_retries = true, webhook = true }

--- Starts a run whose chunks are read as they come. Errors of HTTP are raised here, what `run` raises
--- besides while it is read.
---@param opts lbox.agent.StreamOptions
---@return lbox.Stream
function methods:stream(opts)
  for key in pairs(type(opts) == "table" and opts or {}) do
    if ONLY_RUN[key] then
      errors.raise("usage", ("box.agent:stream does not take %s: use box.agent:run"):format(key))
    end
  end
  check(self, opts, STREAM_OPTIONS, "box.agent:stream")
  return open(self, opts, deadline_of(self, opts))
end

M.new = namespace.of_box("box.agent", methods)

return M
