--- box.agent: runs of the box's agent, read as box-sse-v1 events (box-api.md §2.1).
local async = require "lbox.async"
local client = require "lbox.client"
local errors = require "lbox.errors"
local json = require "lbox.json"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local runs = require "lbox.run"
local schemas = require "lbox.schema"
local streams = require "lbox.stream"

local FIRST_RETRY_MS, LONGEST_RETRY_MS = 1000, 30000
local RAW_SHOWN = 500

local STREAM_OPTIONS = {
  prompt = "string", options = "table", timeout = "number", idle_timeout = "number",
  on_tool_use = "function", on_tool_result = "function", extra = "table", headers = "table",
}
local RUN_OPTIONS = { response_schema = "any", max_retries = "number" }
for key, value in pairs(STREAM_OPTIONS) do
  RUN_OPTIONS[key] = value
end

local decode_text = json.decode_text

-- ------------------------------------------------------------------------------------ events

local TOOL_ID_KEYS = { "tool_call_id", "tool_use_id", "toolCallId", "id" }

local function tool_id(data)
  for _, key in ipairs(TOOL_ID_KEYS) do
    if type(data[key]) == "string" then
      return data[key]
    end
  end
end

local function text_of(value)
  return type(value) == "string" and value or ""
end

local function count_of(value)
  return type(value) == "number" and value or 0
end

local function or_nil(value)
  if value ~= json.null then
    return value
  end
end

--- What each event of the wire becomes; nil: nothing to give out.
local EVENTS = {}

function EVENTS.run_start(stream, data)
  runs.set_id(stream, data.run_id)
  return { type = "start", run_id = text_of(data.run_id) }
end

function EVENTS.thinking(_, data)
  if text_of(data.text) ~= "" then
    return { type = "reasoning", text = data.text }
  end
end

function EVENTS.tool(stream, data)
  local input = or_nil(data.input)
  if input == nil then
    input = {}
  end
  local id, name = tool_id(data), text_of(data.name)
  if stream.on_tool_use then
    stream.on_tool_use { tool_call_id = id, name = name, input = input }
  end
  return { type = "tool-call", tool_call_id = id, tool_name = name, input = input }
end

function EVENTS.tool_result(stream, data)
  local id = tool_id(data)
  if stream.on_tool_result then
    stream.on_tool_result { tool_call_id = id, output = data.output }
  end
  return { type = "tool-result", tool_call_id = id, output = data.output }
end

local function take_cost(stream, data)
  local cost = stream.cost
  cost.input_tokens = count_of(data.input_tokens)
  cost.output_tokens = count_of(data.output_tokens)
  cost.cached_input_tokens = count_of(data.cached_input_tokens)
  cost.total_usd = count_of(data.total_cost_usd)
end

function EVENTS.done(stream, data)
  take_cost(stream, data)
  stream.done = data
  local cost = stream.cost
  return {
    type = "finish",
    output = text_of(data.output),
    usage = {
      input_tokens = cost.input_tokens,
      output_tokens = cost.output_tokens,
      cached_input_tokens = cost.cached_input_tokens,
    },
    session_id = or_nil(data.session_id),
  }
end

function EVENTS.stats(_, data)
  return { type = "stats", cpu_ns = count_of(data.cpu_ns),
    memory_peak_bytes = count_of(data.memory_peak_bytes) }
end

function EVENTS.error(stream, data)
  take_cost(stream, data)
  local message = text_of(data.error)
  errors.raise("run", message ~= "" and stream.box.client:excerpt(message) or "Stream error", {
    run_id = stream.server_id, box_id = stream.box.id, partial = stream:partial(), cost = stream.cost,
    retryable = true,
  })
end

local reader = {}

--- One event of the wire. Text is most of a stream, and its decoded table becomes the chunk.
function reader.event(stream, name, data)
  if name == "text" then
    local ok, chunk = pcall(decode_text, data)
    if not ok or type(chunk) ~= "table" then
      return nil
    end
    local text = chunk.text
    if type(text) ~= "string" or text == "" then
      return nil
    end
    chunk.type = "text-delta"
    stream:keep(text)
    return chunk
  end
  local value, why = json.decode(data)
  if why then
    return nil -- not JSON: not an event
  end
  local handler = EVENTS[name]
  if not handler then
    return { type = "unknown", event = name, data = value }
  end
  return handler(stream, type(value) == "table" and value or {})
end

local function trim(text)
  return (text:gsub("^%s+", ""):gsub("%s+$", ""))
end

--- The run ended well: `output` is what it said at last, or what it said all along.
local function complete(stream, output)
  stream.status = "completed"
  stream.result = trim(output ~= "" and output or stream:partial())
end

function reader.ended(stream, why)
  if stream.done then
    complete(stream, text_of(stream.done.output))
    return
  end
  local output = runs.settle(stream, why or "the stream ended before the run did", stream.follow,
    stream.deadline)
  complete(stream, output)
end

-- ---------------------------------------------------------------------------------- requests

local CAMEL_CASE = { ["claude-code"] = true, opencode = true }

--- Options of an agent in the spelling its harness has on the wire: top-level keys only.
local function wire_options(harness, opts)
  if not opts or not CAMEL_CASE[harness] then
    return opts
  end
  local out = {}
  for key, value in pairs(opts) do
    out[type(key) == "string" and key:gsub("_(%l)", string.upper) or key] = value
  end
  return out
end

local function check(box, opts, spec, what)
  options.check(opts, spec, what)
  options.require(opts, "prompt", what)
  options.nonblank(opts.prompt, "prompt")
  if not box.agent_configured then
    errors.raise("usage", "no agent configured: pass agent = { harness = …, model = … } to Box.create")
  end
  for _, key in ipairs { "timeout", "idle_timeout" } do
    if opts[key] ~= nil then
      options.ms(opts[key], key)
    end
  end
end

--- Sends the request and returns the open stream.
local function open(box, opts, schema, deadline)
  local body = {
    prompt = opts.prompt,
    folder = box:folder(),
    agent_options = wire_options(box.model_config.harness, opts.options),
    json_schema = schema and schema:to_json_schema(),
  }
  for key, value in pairs(opts.extra or {}) do
    body[key] = value
  end
  local run = runs.new(box, "agent", streams.mt)
  run.on_tool_use, run.on_tool_result = opts.on_tool_use, opts.on_tool_result
  local idle = opts.idle_timeout or box.client.settings.timeout
  local exchange = box.client:open_stream({
    method = "POST",
    path = ("/v2/box/%s/run/stream"):format(client.segment(box.id)),
    json = body,
    headers = opts.headers,
    mode = "sse",
  }, deadline, idle)
  return streams.open(run, exchange, reader, deadline, idle)
end

local function absolute(timeout)
  return timeout and timeout > 0 and async.now() + timeout or nil
end

--- Sets a run's result from its text by the schema.
local function apply_schema(run, schema)
  local raw = run.result
  local value, why = json.decode(raw)
  if why then
    run.status = "failed"
    errors.raise("schema", ("the output is not JSON (%s): %s"):format(why, raw:sub(1, RAW_SHOWN)),
      { path = "$", expected = "JSON", raw = raw:sub(1, RAW_SHOWN), run_id = run.id, cost = run.cost })
  end
  local ok, err = pcall(schema.validate, schema, value)
  if not ok then
    run.status = "failed"
    errors.raise("schema", err.message .. ": " .. raw:sub(1, RAW_SHOWN), {
      path = err.path, expected = err.expected, raw = raw:sub(1, RAW_SHOWN), run_id = run.id,
      box_id = run.box.id, cost = run.cost,
    })
  end
  run.result = value
end

local RETRYABLE_KINDS = { network = true, stream = true, run = true, schema = true }

local function worth_another_try(err)
  if not errors.is(err) then
    return false
  elseif err.kind == "api" then
    local status = err.status_code or 0
    return status == 408 or status == 429 or status >= 500
  end
  return RETRYABLE_KINDS[err.kind] == true
end

local function add_cost(into, cost)
  for key, value in pairs(cost or {}) do
    into[key] = (into[key] or 0) + value
  end
end

local agent = {}

--- Runs the agent and waits for its end.
---@param opts { prompt: string, response_schema: any, options: table|nil, timeout: number|nil,
---  idle_timeout: number|nil, max_retries: integer|nil, on_tool_use: function|nil,
---  on_tool_result: function|nil }
---@return lbox.Run run  completed; everything else raises
function agent.run(box, opts)
  check(box, opts, RUN_OPTIONS, "agent:run")
  local schema = opts.response_schema ~= nil and schemas.from(opts.response_schema) or nil
  local deadline = absolute(opts.timeout)
  local tries, delay, spent = opts.max_retries or 0, FIRST_RETRY_MS, {}
  while true do
    local run
    local ok, err = pcall(function()
      run = open(box, opts, schema, deadline)
      run.follow = true
      while run:next() do end
      if schema then
        apply_schema(run, schema)
      end
    end)
    add_cost(spent, run and run.cost)
    if run then
      run.cost = spent
    end
    if ok then
      return run
    end
    if tries <= 0 or not worth_another_try(err) or (deadline and async.now() + delay >= deadline) then
      if errors.is(err) and run then
        err.cost, err.run_id, err.box_id = spent, err.run_id or run.server_id, box.id
      end
      error(err, 0)
    end
    async.sleep(delay)
    tries, delay = tries - 1, math.min(delay * 2, LONGEST_RETRY_MS)
  end
end

--- Starts a run and returns it as a stream.
---@param opts table  as for run, without response_schema and max_retries
---@return lbox.Stream
function agent.stream(box, opts)
  for _, key in ipairs { "response_schema", "max_retries" } do
    if type(opts) == "table" and opts[key] ~= nil then
      errors.raise("usage", ("agent:stream has no %s: use agent:run"):format(key))
    end
  end
  check(box, opts, STREAM_OPTIONS, "agent:stream")
  return open(box, opts, nil, absolute(opts.timeout))
end

return namespace.define("agent", agent)
