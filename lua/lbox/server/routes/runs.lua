--- Agent runs and the list of all runs (box-api.md §1.4, §1.5, §2.1).
local async = require "lbox.async"
local custom = require "lbox.server.harness.custom"
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local json = require "lbox.json"
local runs = require "lbox.server.runs"

local MAX_LISTED = 1000
-- Linux takes no longer word in a command line.
local MAX_PROMPT = 120 * 1024
-- How much text of a run is kept for the list when the agent gives no output of its own.
local MAX_TEXT = 4 * 1024 * 1024

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

local function number(value)
  return type(value) == "number" and value or 0
end

local function text(value)
  return type(value) == "string" and value or nil
end

--- What a run adds up to while its events go by.
local Tally = {}
Tally.__index = Tally

function Tally:event(name, data)
  if name == "text" and text(data.text) and self.size < MAX_TEXT then
    self.size = self.size + #data.text
    self.parts[#self.parts + 1] = data.text
  elseif name == "done" or name == "error" then
    self.usage = data
    if name == "done" then
      self.done = data
    else
      self.failure = text(data.error) or "the agent reported an error"
    end
  end
end

function Tally:columns(status, message, result)
  local usage = self.usage or {}
  local output = self.done and text(self.done.output)
  return {
    status = status,
    output = output and output ~= "" and output or table.concat(self.parts),
    error_message = message,
    session_id = text(usage.session_id),
    input_tokens = math.floor(number(usage.input_tokens)),
    output_tokens = math.floor(number(usage.output_tokens)),
    cached_input_tokens = usage.cached_input_tokens and math.floor(number(usage.cached_input_tokens)),
    cost_usd = number(usage.total_cost_usd),
    cpu_ns = result and result.cpu_ns,
    memory_peak_bytes = result and result.memory_peak_bytes,
  }
end

--- How a harness that gave neither `done` nor `error` failed.
local function explain(command, result, last_line)
  if result.not_started == "directory" then
    return ("folder %q: no such directory"):format(command.cwd)
  elseif result.not_started then
    return ("the harness %q cannot be started: is it in the box, and executable?"):format(command.argv[1])
  elseif result.stopped then
    return "the box was stopped"
  end
  return ("the harness ended with exit code %d without saying that it was done%s"):format(result.exit_code,
    last_line and ": " .. runs.text(last_line) or "")
end

--- Runs the agent to its end. `send(event, data)` hears of everything; it must not raise.
local function run_agent(server, row, run, command, send)
  local tally = setmetatable({ parts = {}, size = 0 }, Tally)
  local ok, err = pcall(server.boxes.working, server.boxes, row, function(box)
    local process = box:spawn(command)
    run.process = process
    if run.cancelled then
      process:kill()
    end
    local read, last_line = pcall(custom.read, process, function(event, data)
      tally:event(event, data)
      send(event, data)
    end)
    if not read then
      pcall(process.kill, process)
      process:close()
      error(last_line, 0)
    end
    return last_line
  end)
  local result = run.process and run.process.result
  local message
  if not ok then
    message = errors.is(err) and err.message or tostring(err)
  elseif tally.failure then
    message = tally.failure
  elseif not tally.done then
    message = run.cancelled and "the run was cancelled" or explain(command, result, err)
  end
  local completed = ok and tally.done and not tally.failure
  if completed and text(tally.done.session_id) then
    server.store:set_box(row.id, "session_id", tally.done.session_id)
  end
  -- Recorded before it is told.
  run:finish(tally:columns(completed and "completed" or "failed", message, result))
  if message and not tally.failure then
    send("error", { error = message })
  end
  if result then
    send("stats", { cpu_ns = result.cpu_ns, memory_peak_bytes = result.memory_peak_bytes })
  end
end

local RUN = { prompt = "string!", folder = "string", json_schema = "object", agent_options = "object" }

local function stream(server, request, params)
  local row = server.boxes:get(params.id)
  local config = row.config
  if config.agent ~= "custom" then
    refuse(400, "no agent is configured for this box")
  end
  local body = fields.check(request:json(), RUN)
  if not body.prompt:find("%S") then
    refuse(400, "the field \"prompt\" must not be empty")
  elseif body.files then
    refuse(501, "files with a prompt are not available on local boxes yet")
  end
  if #body.prompt + #json.encode(body.json_schema or {}) > MAX_PROMPT then
    refuse(413, ("the prompt is larger than %d bytes: write it to a file in the box and say so")
      :format(MAX_PROMPT))
  end
  local argv, env = custom.command(config, { prompt = body.prompt, schema = body.json_schema,
    session_id = row.session_id })
  local command = { argv = argv, cwd = server.boxes.folder(body.folder),
    env = server.boxes.environment(row, env) }
  local run = runs.begin(server, row, { type = "agent", prompt = body.prompt, model = config.model })

  local writer = request:stream(200, "text/event-stream")
  local function send(event, data)
    if writer and not writer:offer(("event: %s\ndata: %s\n\n"):format(event, json.encode(data))) then
      writer = nil -- the client is gone; the run goes on
    end
  end
  send("run_start", { run_id = run.id })
  -- The run belongs to the server, not to this request.
  local ended = async.op()
  server.scope:spawn(function()
    local ok, err = pcall(run_agent, server, row, run, command, send)
    if not ok then
      run:finish { status = "failed", error_message = tostring(err) }
      send("error", { error = "the server failed to run the agent" })
      server.log("run " .. run.id .. ": " .. async.describe(err))
    end
    if writer then
      writer:finish()
    end
    ended:resolve()
  end)
  async.wait(ended)
end

local function list(server, request, params)
  local row = server.boxes:get(params.id)
  local out = json.array {}
  for i, run in ipairs(server.store:runs(row.id, MAX_LISTED)) do
    out[i] = runs.wire(run)
  end
  request:answer(200, { runs = out })
end

local function cancel(server, request, params)
  local row = server.boxes:get(params.id)
  if not server.store:run(row.id, params.run) then
    refuse(404, ("run %q not found"):format(params.run))
  end
  local live = server.boxes.live[row.id]
  local run = live and live.runs and live.runs[params.run]
  if run then
    run:cancel()
  end
  request:answer(200, {})
end

return {
  { "POST", "/v2/box/{id}/run/stream", stream },
  { "GET", "/v2/box/{id}/runs", list },
  { "POST", "/v2/box/{id}/runs/{run}/cancel", cancel },
}
