--- Agent runs and the list of all runs (box-api.md §1.4, §1.5, §2.1).
local agent_run = require "lbox.server.agent_run"
local async = require "lbox.async"
local errors = require "lbox.errors"
local json = require "lbox.json"
local multipart = require "lbox.server.multipart"
local run_webhooks = require "lbox.server.run_webhooks"
local runs = require "lbox.server.runs"

-- The newest of a box's runs that the list has, and of the text in them.
local MAX_LISTED, MAX_LISTED_TEXT = 1000, 32 * 1024 * 1024

-- Fields of a form that are JSON.
local FORM = { json_schema = true, agent_options = true, webhook = true }

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

-- With files: as base64, and ten files of 10 MiB in a form, which is not decoded.
local MAX_JSON, MAX_FORM = 64 * 1024 * 1024, 112 * 1024 * 1024

--- What is asked for; a form has the files as they are, and all else as text.
local function body_of(request)
  if not multipart.boundary(request:header("Content-Type")) then
    return request:json(MAX_JSON)
  end
  local body = { files = {} }
  for _, part in ipairs(request:parts(MAX_FORM)) do
    if part.filename then
      table.insert(body.files, { bytes = part.bytes, filename = part.filename, media_type = part.type })
    elseif FORM[part.name] then
      local value = json.decode(part.bytes)
      body[part.name] = value == nil and part.bytes or json.strip_nulls(value)
    else
      body[part.name] = part.bytes
    end
  end
  return body
end

--- Runs an agent to its end, whatever happens. `send(event, json)` hears of everything.
local function execute(server, row, run, command, send)
  local ok, err = pcall(agent_run.execute, server, row, run, command, send)
  if not ok then
    local message = errors.is(err) and err.message or "the server failed to run the agent"
    server.log("run " .. run.id .. ": " .. async.describe(err))
    pcall(run.finish, run, { status = "failed", error_message = message })
    send("error", json.encode { error = message })
  end
end

local function stream(server, request, params)
  local row = server.boxes:get(params.id)
  local body = body_of(request)
  local command, model = agent_run.command(server, row, body)
  local run = runs.begin(server, row, { type = "agent", prompt = body.prompt, model = model })

  local writer = request:stream(200, "text/event-stream")
  run.writer = writer
  local function send(event, data)
    if writer and not writer:offer(("event: %s\ndata: %s\n\n"):format(event, data)) then
      writer = nil -- the client is gone; the run goes on
    end
  end
  send("run_start", json.encode { run_id = run.id })
  -- The run belongs to the server, not to this request.
  local ended = async.op()
  server.scope:spawn(function()
    execute(server, row, run, command, send)
    if writer then
      writer:finish()
    end
    ended:resolve()
  end)
  async.wait(ended)
end

--- A run that nobody reads: a webhook is told of its end.
local function run_for_webhook(server, request, params)
  local row = server.boxes:get(params.id)
  local body = body_of(request)
  run_webhooks.check(body.webhook)
  local command, model = agent_run.command(server, row, body)
  local run = runs.begin(server, row, { type = "agent", prompt = body.prompt, model = model })
  local kept, why = pcall(run_webhooks.keep, server, run, body.webhook)
  if not kept then
    pcall(run.finish, run, { status = "failed", error_message = errors.is(why) and why.message or tostring(why) })
    error(why, 0)
  end
  server.scope:spawn(function()
    execute(server, row, run, command, function() end)
    if not server.stopped then -- else the next start says what became of it
      run_webhooks.tell(server, run.id)
    end
  end)
  request:answer(200, { status = "accepted", run_id = run.id })
end

local function list(server, request, params)
  local row = server.boxes:get(params.id)
  request:answer_list(200, "runs", server.store:runs(row.id, MAX_LISTED, MAX_LISTED_TEXT), runs.wire)
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
  { "POST", "/v2/box/{id}/run", run_for_webhook },
  { "POST", "/v2/box/{id}/run/stream", stream },
  { "GET", "/v2/box/{id}/runs", list },
  { "POST", "/v2/box/{id}/runs/{run}/cancel", cancel },
}
