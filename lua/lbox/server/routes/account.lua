--- Boxes as a whole: create, list, delete (box-api.md §1.2), and what lbox's own clients ask.
local core = require "lbox.core"
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local git = require "lbox.server.git"
local json = require "lbox.json"
local posix = require "lbox.server.posix"
local runtimes = require "lbox.server.runtimes"

local MAX_LABELS, MAX_LABEL = 5, 20
local MAX_NAME = 100
-- Linux takes no longer word in an environment, nor much more together with a command.
local MAX_ENV_VALUE, MAX_ENV = 120 * 1024, 1024 * 1024

-- What a create may ask for and this version does not do. Taken in silence it would be a lie.
local NOT_YET = {
  attach_headers = "attach_headers", browser = "browser", ephemeral = "an ephemeral box",
  git_user_name = "git", git_user_email = "git", init_command = "init_command",
  mcp_servers = "mcp_servers", skills = "skills",
}

local CREATE = {
  name = "string", labels = "strings", size = "string", keep_alive = "boolean", init_command = "string",
  model = "string", agent = "string", agent_api_key = "string", custom_runner = "object",
  runtime = "string", browser = "boolean", env_vars = "object", network_policy = "object",
  skills = "strings", ephemeral = "boolean", ttl = "number", github_token = "string",
}

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

local function check_env(vars)
  local size = 0
  for name, value in pairs(vars) do
    if type(name) ~= "string" or not name:match("^[%a_][%w_]*$") then
      refuse(400, ("env_vars: %q is not a variable name"):format(tostring(name)))
    elseif type(value) ~= "string" or value:find("\0", 1, true) then
      refuse(400, ("env_vars: the value of %s must be a string without NUL"):format(name))
    end
    size = size + #name + #value
    if #value > MAX_ENV_VALUE or size > MAX_ENV then
      refuse(400, ("env_vars: %s is too much: a value may have %d bytes, all together %d"):format(name,
        MAX_ENV_VALUE, MAX_ENV))
    end
  end
end

--- What is kept of a create request: fields that are known and have been checked.
local function check_create(body)
  fields.check(body, CREATE)
  if #(body.labels or {}) > MAX_LABELS then
    refuse(400, ("at most %d labels, got %d"):format(MAX_LABELS, #body.labels))
  end
  for _, label in ipairs(body.labels or {}) do
    if #label > MAX_LABEL or not label:match("^[%w._:%-]+$") then
      refuse(400, ("label %q: 1 to %d of A-Z a-z 0-9 . _ : -"):format(label, MAX_LABEL))
    end
  end
  if body.name and (#body.name > MAX_NAME or not body.name:match("^%w[%w._%-]*$")) then
    refuse(400, ("name %q: 1 to %d of A-Z a-z 0-9 . _ -, a letter or digit first"):format(body.name, MAX_NAME))
  elseif fields.RESERVED[body.name] then
    refuse(400, ("name %q: it stands for something else in URLs"):format(body.name))
  end
  if #(body.model or "") > MAX_NAME then
    refuse(400, ("model: at most %d characters"):format(MAX_NAME))
  end
  check_env(body.env_vars or {})
  git.check_token(body.github_token)
  if body.agent and body.agent ~= "custom" then
    refuse(501, ("the harness %q is not available on local boxes yet: use \"custom\""):format(body.agent))
  elseif body.agent then
    local runner = body.custom_runner
    if not runner then
      refuse(400, "custom_runner is required for the harness custom")
    end
    fields.check(runner, { command = "string!", args = "strings", protocol = "string" })
    if runner.protocol and runner.protocol ~= "box-sse-v1" then
      refuse(400, ("protocol %q: only \"box-sse-v1\" is known"):format(runner.protocol))
    end
  end
  local mode = fields.check(body.network_policy or {}, { mode = "string" }).mode
  if mode and mode ~= "deny-all" then
    refuse(501, ("network_policy %q: local boxes have no network yet, so only \"deny-all\" can be kept"):format(mode))
  end
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
  -- A custom harness needs no key of ours, and what is not needed is not kept.
  config.agent_api_key = nil
  return config
end

local function create(server, request)
  local row = server.boxes:create(check_create(request:json()))
  request:answer(200, server.boxes:describe(row))
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

--- A client of another version asks for it: an idle server is replaced, one at work is not.
local function stop(server, request)
  if request.peer ~= "unix" then
    refuse(403, "only a client on this machine ends the server")
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
  { "GET", "/v2/box", list },
  { "DELETE", "/v2/box", delete_many },
}
