--- Schedules (box-api.md §1.9, §4.13).
local agent_run = require "lbox.server.agent_run"
local cron = require "lbox.server.cron"
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local json = require "lbox.json"
local schedules = require "lbox.server.schedules"
local shell_run = require "lbox.server.shell_run"
local webhook = require "lbox.server.webhook"

local MAX_SCHEDULES = 100
local WORKSPACE = "/workspace/home"

local FIELDS = { type = "string", cron = "string", command = "strings", prompt = "string", folder = "string",
  model = "string", agent_options = "object", timeout = "number", webhook_url = "string", webhook_headers = "object" }
-- What only one of the types has.
local OWN = { command = "exec", prompt = "prompt", model = "prompt", agent_options = "prompt", timeout = "prompt" }

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

local function is_empty(value)
  return value == "" or value == 0 or (type(value) == "table" and next(value) == nil)
end

--- Settings with what a request changes in them, checked: what is empty there is cleared.
local function changed(server, row, old, body)
  fields.check(body, FIELDS)
  local settings = {}
  for name in pairs(FIELDS) do
    local value = body[name]
    if value == nil then
      value = old[name]
    elseif is_empty(value) then
      value = nil
    elseif OWN[name] and OWN[name] ~= old.type then
      refuse(400, ("the field %q is none of a schedule of type %q"):format(name, old.type))
    end
    settings[name] = value
  end
  settings.folder = settings.folder or WORKSPACE
  for _, name in ipairs { "cron", settings.type == "exec" and "command" or "prompt" } do
    if not settings[name] then
      refuse(400, ("the field %q is required"):format(name))
    end
  end
  local _, why = cron.parse(settings.cron)
  if why then
    refuse(400, why)
  elseif settings.timeout and settings.timeout < 0 then
    refuse(400, ("timeout must be at least 0 ms, got %.14g"):format(settings.timeout))
  end
  fields.path(settings.folder, "folder")
  webhook.check(settings.webhook_url, settings.webhook_headers)
  if settings.type == "exec" then
    shell_run.command(server, row, settings)
  else
    agent_run.command(server, row, settings, settings.model)
  end
  return settings
end

local function create(server, request, params)
  local row = server.boxes:get(params.id)
  local body = fields.check(request:json(), FIELDS)
  if body.type ~= "exec" and body.type ~= "prompt" then
    refuse(400, ("type %q: \"exec\" or \"prompt\""):format(tostring(body.type)))
  elseif #server.schedules:list(row.id) >= MAX_SCHEDULES then
    refuse(400, ("a box has at most %d schedules"):format(MAX_SCHEDULES))
  end
  local settings = changed(server, row, { type = body.type }, body)
  request:answer(200, schedules.wire(server.schedules:create(row.id, settings)))
end

local function list(server, request, params)
  local out = json.array {}
  for i, row in ipairs(server.schedules:list(server.boxes:get(params.id).id)) do
    out[i] = schedules.wire(row)
  end
  request:answer(200, out)
end

--- A handler of one schedule; without an answer of `fn` it answers {}.
local function of_one(fn)
  return function(server, request, params)
    local row = server.boxes:get(params.id)
    request:answer(200, fn(server, server.schedules:get(row.id, params.schedule), request, row) or {})
  end
end

local function get(_, schedule)
  return schedules.wire(schedule)
end

local function patch(server, schedule, request, row)
  local body = request:json()
  if body.type and body.type ~= schedule.settings.type then
    refuse(400, ("the type of a schedule cannot change: it is %q"):format(schedule.settings.type))
  end
  -- null is the same as absent but here, where it clears.
  if (json.decode(request:body()) or {}).agent_options == json.null then
    body.agent_options = {}
  end
  return schedules.wire(server.schedules:change(schedule, changed(server, row, schedule.settings, body)))
end

local function pause(server, schedule)
  server.schedules:set_active(schedule, false)
end

local function resume(server, schedule)
  server.schedules:set_active(schedule, true)
end

local function delete(server, schedule)
  server.schedules:delete(schedule)
end

return {
  { "POST", "/v2/box/{id}/schedules", create },
  { "GET", "/v2/box/{id}/schedules", list },
  { "GET", "/v2/box/{id}/schedules/{schedule}", of_one(get) },
  { "PATCH", "/v2/box/{id}/schedules/{schedule}", of_one(patch) },
  { "DELETE", "/v2/box/{id}/schedules/{schedule}", of_one(delete) },
  { "POST", "/v2/box/{id}/schedules/{schedule}/pause", of_one(pause) },
  { "POST", "/v2/box/{id}/schedules/{schedule}/resume", of_one(resume) },
}
