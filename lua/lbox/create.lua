--- Making a box: what goes on the wire, waiting until it can be used, and taking it back.
local async = require "lbox.async"
local client = require "lbox.client"
local errors = require "lbox.errors"
local json = require "lbox.json"
local object = require "lbox.box_object"
local options = require "lbox.options"
local url = require "lbox.url"

local M = {}

-- A new box that is still `creating` is looked at until it is ready.
local READY_MS = 300000
local FIRST_POLL_MS, LAST_POLL_MS = 250, 2000

---@class lbox.NetworkPolicy
---@field mode "allow-all"|"deny-all"|"custom"
---@field allowed_domains string[]|nil
---@field allowed_cidrs string[]|nil
---@field denied_cidrs string[]|nil

---@class lbox.CreateOptions: lbox.ConnectionOptions, lbox.CallOptions
---@field name string|nil
---@field labels string[]|nil
---@field runtime string|nil
---@field size string|nil
---@field keep_alive boolean|nil
---@field init_command string|nil
---@field browser boolean|nil
---@field agent { harness: string, model: string?, api_key: string?, custom_harness: table? }|nil
---@field git { token: string?, user_name: string?, user_email: string? }|nil
---@field env table<string, string>|nil
---@field attach_headers table<string, table<string, string>>|nil
---@field network_policy lbox.NetworkPolicy|nil
---@field skills string[]|nil
---@field mcp_servers table[]|nil  { name, package, args } or { name, url, headers }
local OPTIONS = client.static_options {
  name = "string",
  labels = "strings",
  runtime = "string",
  size = "string",
  keep_alive = "boolean",
  init_command = "string",
  browser = "boolean",
  agent = "table",
  git = "table",
  env = "table",
  attach_headers = "table",
  network_policy = "table",
  skills = "strings",
  mcp_servers = "table",
}

local AGENT = { harness = "string", model = "string", api_key = "string", custom_harness = "table" }
local CUSTOM_HARNESS = { command = "string", args = "strings", protocol = "string" }
local GIT = { token = "string", user_name = "string", user_email = "string" }
local NETWORK_POLICY = {
  mode = "string", allowed_domains = "strings", allowed_cidrs = "strings", denied_cidrs = "strings",
}
local MCP_SERVER = {
  name = "string", package = "string", args = "strings", url = "string", headers = "table",
}

local CUSTOM = "custom"

--- A list as one on the wire, nil when there is none.
local function list(value)
  if value == nil then
    return nil
  end
  local copy = json.array {}
  for i, item in ipairs(value) do
    copy[i] = item
  end
  return copy
end

--- The same, not sent when empty.
local function filled(value)
  if value and next(value) ~= nil then
    return list(value)
  end
end

--- A string, not sent when empty.
local function text(value)
  if value ~= "" then
    return value
  end
end

--- A map of strings, checked because a number would arrive as one.
local function strings(map, what)
  for key, value in pairs(map or {}) do
    if type(key) ~= "string" or type(value) ~= "string" then
      errors.raise("usage", ("%s is a table of strings by name, got %s = %s"):format(
        what, tostring(key), type(value)))
    end
  end
  return map
end

local function custom_runner(harness)
  options.check(harness, CUSTOM_HARNESS, "agent.custom_harness")
  options.nonblank(harness.command, "agent.custom_harness.command")
  return { command = harness.command, args = list(harness.args), protocol = text(harness.protocol) }
end

local function add_agent(body, agent)
  if not agent then
    return
  end
  options.check(agent, AGENT, "agent")
  if not text(agent.harness) then
    errors.raise("usage", "agent.harness is required: one of lbox.Agent")
  end
  body.agent = agent.harness
  if agent.harness == CUSTOM then
    if not agent.custom_harness then
      errors.raise("usage", "agent.custom_harness is required when agent.harness is custom")
    end
    body.custom_runner = custom_runner(agent.custom_harness)
    body.model = text(agent.model) or CUSTOM
    return
  elseif not text(agent.model) then
    errors.raise("usage", ("agent.model is required for the harness %s"):format(agent.harness))
  elseif agent.custom_harness then
    errors.raise("usage", "agent.custom_harness goes with agent.harness = lbox.Agent.CUSTOM")
  end
  body.model, body.agent_api_key = agent.model, text(agent.api_key)
end

--- A network policy as on the wire.
local function network_policy(policy)
  if not policy then
    return nil
  end
  options.check(policy, NETWORK_POLICY, "network_policy")
  options.require(policy, "mode", "network_policy")
  return {
    mode = policy.mode,
    allowed_domains = list(policy.allowed_domains),
    allowed_cidrs = list(policy.allowed_cidrs),
    denied_cidrs = list(policy.denied_cidrs),
  }
end

local function mcp_servers(servers)
  if not servers or next(servers) == nil then
    return nil
  end
  local wire = json.array {}
  for i, server in ipairs(servers) do
    options.check(server, MCP_SERVER, "mcp_servers")
    options.nonblank(server.name, "the name of an MCP server")
    if (server.package == nil) == (server.url == nil) then
      errors.raise("usage", ("the MCP server %s needs either package or url"):format(server.name))
    end
    wire[i] = {
      name = server.name,
      source = server.package and "npm" or "url",
      package_or_url = server.package or server.url,
      args = list(server.args),
      headers = strings(server.headers, "headers of an MCP server"),
    }
  end
  return wire
end

--- The body of a create request.
---@param opts table  checked against OPTIONS
---@return table
local function body_of(opts)
  local git = opts.git or {}
  options.check(git, GIT, "git")
  local body = {
    name = text(opts.name),
    labels = filled(opts.labels),
    runtime = text(opts.runtime),
    size = text(opts.size),
    keep_alive = opts.keep_alive or nil,
    init_command = opts.init_command,
    browser = opts.browser or nil,
    github_token = text(git.token),
    git_user_name = text(git.user_name),
    git_user_email = text(git.user_email),
    env_vars = strings(opts.env, "env"),
    attach_headers = opts.attach_headers,
    network_policy = network_policy(opts.network_policy),
    skills = filled(opts.skills),
    mcp_servers = mcp_servers(opts.mcp_servers),
  }
  for host, headers in pairs(opts.attach_headers or {}) do
    if type(headers) ~= "table" then
      errors.raise("usage", ("attach_headers is a table of headers by host, got %s = %s"):format(
        tostring(host), type(headers)))
    end
    strings(headers, "attach_headers")
  end
  add_agent(body, opts.agent)
  return body
end

--- What no message may show of a create request: keys, tokens, and whatever else may be one.
---@param opts table
---@return string[]
local function secrets_of(opts)
  local secrets = {}
  local function add(value)
    if type(value) == "string" then
      secrets[#secrets + 1] = value
    elseif type(value) == "table" then
      for _, item in pairs(value) do
        add(item)
      end
    end
  end
  add(opts.agent and opts.agent.api_key)
  add(opts.git and opts.git.token)
  add(opts.env)
  add(opts.attach_headers)
  for _, server in ipairs(opts.mcp_servers or {}) do
    add(server.headers)
  end
  return secrets
end

--- Looks at a new box until it is no longer `creating`. A look that fails is repeated.
local function wait_until_ready(box, deadline)
  local started, pause = async.now(), FIRST_POLL_MS
  while box.status == "creating" do
    local now = async.now()
    if now - started >= READY_MS or (deadline.at and now + pause >= deadline.at) then
      errors.raise("timeout", ("box %s was still being created after %.1f s"):format(
        box.id, (now - started) / 1000), { box_id = box.id, retryable = true })
    end
    async.sleep(pause)
    pause = math.min(pause * 1.5, LAST_POLL_MS)
    local ok, data = pcall(object.fetch, box._link.client, box._link.path, {}, box.id, deadline)
    if ok then
      object.apply(box, data)
    elseif not (errors.is(data, "api") or errors.is(data, "network")) then
      error(data, 0)
    end
  end
  if box.status == "error" then
    errors.raise("api", ("box %s could not be created: its status is error"):format(box.id),
      { box_id = box.id })
  end
end

--- Deletes a box whose creator was cancelled, also in a cancelled scope; what is left is said to the host.
local function discard(connection, id, ms)
  local ok, err = pcall(async.shield, function()
    connection:send { method = "DELETE", path = "/v2/box/" .. url.segment(id, "the id of a box"), timeout = ms }
  end, ms)
  if not ok and not (errors.is(err, "api") and err.status_code == 404) then
    async.warn(("box %s is left, it could not be deleted: %s"):format(id, tostring(err)))
  end
end

--- Deletes the box of a create request that nobody waits for any more, once it is answered.
local function undo_create(connection, transfer)
  local give_up_at = async.now() + async.CLEAN_UP_MS
  local req = transfer.req
  pcall(async.shield, function()
    transfer:wait(req.done)
  end)
  local status = req:done() and not req:failure() and req:status()
  local data = status and status < 300 and json.decode(req:body())
  if type(data) == "table" and type(data.id) == "string" and data.id:find("%S") then
    discard(connection, data.id, math.max(0, give_up_at - async.now()))
  elseif not status or status < 300 then
    async.warn("a box may be left: nobody waits for its creation, and the server did not answer with its id")
  end
end

--- Makes a box. `undo`: it is deleted when its creator is cancelled.
local function make(opts, undo)
  opts = options.call(opts, OPTIONS, "Box.create")
  local connection = client.new(opts)
  local deadline = connection:deadline(opts.timeout)
  local spec = {
    method = "POST",
    path = "/v2/box",
    json = body_of(opts),
    extra = opts.extra,
    headers = opts.headers,
    deadline = deadline,
    secrets = secrets_of(opts),
    lost = "a box may have been created",
    undo = undo and function(transfer) undo_create(connection, transfer) end or nil,
  }
  local data, status = connection:request(spec)
  if type(data.id) ~= "string" or data.id == "" then
    connection:nonsense(spec, status)
  end
  local box = object.new(connection, json.strip_nulls(data), opts.git and opts.git.token)
  local ok, err = pcall(wait_until_ready, box, deadline)
  if not ok then
    if undo and errors.is(err, "cancelled") then
      discard(connection, box.id, async.CLEAN_UP_MS)
    end
    error(err, 0)
  end
  return box
end

--- Makes a box and waits until it can be used. Raises `api` when the server refuses or the box fails,
--- `timeout` (with `box_id`) when it is not ready after 300 s. Cancelled, it deletes the box.
---@param opts lbox.CreateOptions|nil
---@return lbox.Box
function M.box(opts)
  return make(opts, true)
end

--- The same for a caller who deletes the box himself, whatever happens.
---@param opts lbox.CreateOptions|nil
---@return lbox.Box
function M.owned(opts)
  return make(opts, false)
end

return M
