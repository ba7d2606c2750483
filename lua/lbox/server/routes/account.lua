--- Boxes as a whole: create, list, delete (box-api.md §1.2), and what lbox's own clients ask.
local agent_keys = require "lbox.server.agent_keys"
local agent_programs = require "lbox.server.agent_programs"
local async = require "lbox.async"
local core = require "lbox.core"
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local git = require "lbox.server.git"
local git_identity = require "lbox.server.git_identity"
local harnesses = require "lbox.server.harness"
local json = require "lbox.json"
local mcp = require "lbox.server.harness.mcp"
local network_policy = require "lbox.server.network_policy"
local posix = require "lbox.server.posix"
local runtimes = require "lbox.server.runtimes"
local settings = require "lbox.server.settings"
local skills = require "lbox.server.skills"

-- What goes with an agent: another one has its own.
local OF_AGENT = { agent = true, custom_runner = true, model = true }
-- How long a box that is being filled is waited for.
local SOON_MS = 1000

-- What a create may ask for and this version does not do. Taken in silence it would be a lie.
local NOT_YET = { attach_headers = "attach_headers", browser = "browser" }

local CREATE = {
  name = "string", labels = "strings", size = "string", keep_alive = "boolean", init_command = "string",
  model = "string", agent = "string", agent_api_key = "string", custom_runner = "object",
  runtime = "string", browser = "boolean", env_vars = "object", network_policy = "object",
  skills = "strings", ephemeral = "boolean", ttl = "number", github_token = "string",
  git_user_name = "string", git_user_email = "string", mcp_servers = "list",
}

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

--- The environment a box begins with: of those that set a variable the last counts.
local function environment(...)
  local vars = {}
  for _, each in ipairs { ... } do
    for name, value in pairs(each) do
      vars[name] = value
    end
  end
  settings.env(vars, "env_vars")
  return vars
end

local function check_agent(server, body)
  local harness = harnesses.get(body.agent)
  if body.agent == nil then
    return
  elseif not harness then
    refuse(400, ("no harness %q: %s"):format(body.agent, table.concat(harnesses.names(), ", ")))
  elseif not harness.program then
    if not body.custom_runner then
      refuse(400, "custom_runner is required for the harness custom")
    end
    return settings.custom_runner(body.custom_runner)
  elseif (body.model or "") == "" then
    refuse(400, ("model is required for the harness %s"):format(body.agent))
  end
  agent_keys.check(body.agent_api_key)
  agent_programs.need(server, body.agent)
end

--- What is kept of a create request: fields that are known and have been checked.
local function check_create(server, body)
  fields.check(body, CREATE)
  settings.size(body.size or "small")
  settings.labels(body.labels or {})
  settings.skills(body.skills or {})
  skills.check(server, body.skills or {})
  settings.init_command(body.init_command or "")
  settings.env(body.env_vars or {}, "env_vars")
  if body.git_user_name or body.git_user_email then
    settings.git_identity(body)
  end
  if body.name then
    settings.name(body.name)
  end
  if body.model then
    settings.model(body.model)
  end
  git.check_token(body.github_token)
  check_agent(server, body)
  mcp.check(body.mcp_servers or {})
  mcp.check_harness(harnesses.get(body.agent), body.mcp_servers or {})
  local policy = body.network_policy and network_policy.check(body.network_policy)
  server.networks:check(policy or {})
  for name, what in pairs(NOT_YET) do
    local value = body[name]
    if value and not (type(value) == "table" and next(value) == nil) then
      refuse(501, what .. " is not available on local boxes yet")
    end
  end
  runtimes.check(body.runtime)
  local config = {}
  for name in pairs(CREATE) do
    config[name] = body[name]
  end
  if not (harnesses.get(config.agent) or {}).program then
    config.agent_api_key = nil -- what is not needed is not kept
  end
  if body.init_command == "" then
    config.init_command = nil
  end
  config.network_policy = policy or server.networks:default_policy()
  config.env_vars = environment(server.variables:all(), body.env_vars or {})
  config.ephemeral, config.ttl = body.ephemeral or nil, nil
  if body.ephemeral then
    config.ttl = settings.ttl(body.ttl)
  elseif body.ttl then
    refuse(400, "ttl goes with ephemeral: true")
  end
  return config
end

--- What is done in a box before it is told of. One in which it cannot be done is none.
local function complete(server, row, body, change_skills)
  local ok, err = pcall(function()
    if body.git_user_name or body.git_user_email then
      git_identity.set(server, row, body)
    end
    change_skills()
  end)
  if not ok then
    pcall(server.boxes.delete, server.boxes, row)
    error(err, 0)
  end
end

local function create(server, request)
  local body = request:json()
  local row = server.boxes:create(check_create(server, body))
  complete(server, row, body, function()
    skills.install(server, row, body.skills or {})
  end)
  request:answer(200, server.boxes:describe(row))
end

--- What the snapshot has, unless something else is asked for. An ephemeral box is ready when it is told of;
--- another one is told of at the latest when SOON_MS have passed.
local function create_from_snapshot(server, request)
  local body = fields.check(request:json(), { snapshot_id = "string!" })
  local snapshot = server.snapshots:get(body.snapshot_id)
  local from, config = snapshot.config, check_create(server, body)
  config.env_vars = environment(server.variables:all(), from.env_vars or {}, body.env_vars or {})
  for name, value in pairs(from) do
    if config[name] == nil and not (body.agent and OF_AGENT[name]) then
      config[name] = value
    end
  end
  local row, filling = server.boxes:create(config, server.snapshots:filler(snapshot))
  if config.ephemeral then
    filling:wait()
  else
    pcall(async.timeout, SOON_MS, filling.wait, filling)
  end
  complete(server, row, body, function()
    for _, skill in ipairs(body.skills and from.skills or {}) do
      skills.remove(server, row, skill, {})
    end
    skills.install(server, row, body.skills or {})
  end)
  request:answer(200, server.boxes:describe(server.boxes:get(row.id)))
end

local function list(server, request)
  local label = request.query.label
  local out = json.array {}
  for _, row in ipairs(server.store:boxes()) do
    local labelled = label == nil
    for _, each in ipairs(row.config.labels or {}) do
      labelled = labelled or each == label
    end
    if labelled then
      out[#out + 1] = server.boxes:describe(row)
    end
  end
  request:answer(200, out)
end

local function delete_many(server, request)
  local ids = fields.check(request:json(), { ids = "strings!" }).ids
  if #ids == 0 then
    refuse(400, "ids must contain at least one id")
  end
  local rows = {}
  for _, id in ipairs(ids) do
    local row = server.boxes:get(id)
    rows[row.id] = row
  end
  for _, row in pairs(rows) do
    server.boxes:delete(row)
  end
  request:answer(200, {})
end

local function hello(server, request)
  request:answer(200, { version = core.version, data = server.data.dir, pid = posix.getpid(),
    busy = server.boxes:busy() })
end

--- A client of another version asks for it, or a server that is to stay: one that was started on demand and is idle is
--- replaced, no other.
local function stop(server, request)
  if request.peer ~= "unix" then
    refuse(403, "only a client on this machine ends the server")
  elseif not server.on_demand then
    refuse(409, "the server was not started on demand")
  elseif server.boxes:busy() then
    refuse(409, "the server is at work")
  end
  request:answer(200, {})
  server.stop:resolve()
end

return {
  { "GET", "/lbox/hello", hello },
  { "POST", "/lbox/stop", stop },
  { "POST", "/v2/box", create },
  { "POST", "/v2/box/from-snapshot", create_from_snapshot },
  { "GET", "/v2/box", list },
  { "DELETE", "/v2/box", delete_many },
}
