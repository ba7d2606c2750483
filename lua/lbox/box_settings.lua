--- What a box is made with: the options of `Box.create` and its like, and how they go on the wire
--- (box-api.md 1.2).
local client = require "lbox.client"
local errors = require "lbox.errors"
local json = require "lbox.json"
local options = require "lbox.options"

local M = {}

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

M.OPTIONS = client.static_options {
  name = "string",
  labels = "strings",
  runtime = "string",
  size = "string",
  keep_alive = "boolean",
  init_command = "string",
  browser = "boolean",
  agent = "table",
  git = "table",
  env = "map",
  attach_headers = "table",
  network_policy = "table",
  skills = "strings",
  mcp_servers = "table",
}

---@class lbox.EphemeralOptions: lbox.ConnectionOptions, lbox.CallOptions
---@field name string|nil
---@field labels string[]|nil
---@field runtime string|nil
---@field size string|nil
---@field ttl integer|nil  seconds it lives
---@field env table<string, string>|nil
---@field attach_headers table<string, table<string, string>>|nil
---@field network_policy lbox.NetworkPolicy|nil

M.EPHEMERAL_OPTIONS = client.static_options {
  name = "string",
  labels = "strings",
  runtime = "string",
  size = "string",
  ttl = "count",
  env = "map",
  attach_headers = "table",
  network_policy = "table",
}

---@class lbox.CustomHarness
---@field command string
---@field args string[]|nil
---@field protocol string|nil  "box-sse-v1" when nil

local AGENT = { harness = "string", model = "string", api_key = "string", custom_harness = "table" }
local CUSTOM_HARNESS = { command = "text!", args = "strings", protocol = "string" }
local GIT = { token = "string", user_name = "string", user_email = "string" }
local NETWORK_POLICY = {
  mode = "string!", allowed_domains = "strings", allowed_cidrs = "strings", denied_cidrs = "strings",
}
local MCP_SERVER = {
  name = "text!", package = "string", args = "strings", url = "string", headers = "map",
}

local CUSTOM = "custom"

local list = json.list

--- A list that is not sent when it is empty.
local function filled(value)
  if value and value[1] ~= nil then
    return list(value)
  end
end

--- A string, not sent when empty.
local function text(value)
  if value ~= "" then
    return value
  end
end

--- A custom harness as on the wire.
---@param harness lbox.CustomHarness
function M.custom_runner(harness)
  options.check(harness, CUSTOM_HARNESS, "custom_harness")
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
    body.custom_runner = M.custom_runner(agent.custom_harness)
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
---@param policy lbox.NetworkPolicy
function M.network_policy(policy)
  options.check(policy, NETWORK_POLICY, "network_policy")
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
    if (server.package == nil) == (server.url == nil) then
      errors.raise("usage", ("the MCP server %s needs either package or url"):format(server.name))
    end
    wire[i] = {
      name = server.name,
      source = server.package and "npm" or "url",
      package_or_url = server.package or server.url,
      args = list(server.args),
      headers = server.headers,
    }
  end
  return wire
end

local function attach_headers(by_host)
  for host, headers in pairs(by_host or {}) do
    options.map(headers, ("attach_headers[%q]"):format(tostring(host)))
  end
  return by_host
end

--- The body of a create request.
---@param opts table  checked against OPTIONS or EPHEMERAL_OPTIONS
---@return table
function M.body(opts)
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
    env_vars = opts.env,
    attach_headers = attach_headers(opts.attach_headers),
    network_policy = opts.network_policy and M.network_policy(opts.network_policy),
    skills = filled(opts.skills),
    mcp_servers = mcp_servers(opts.mcp_servers),
    ttl = opts.ttl,
  }
  add_agent(body, opts.agent)
  return body
end

return M
