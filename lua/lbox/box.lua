--- Box: making, finding and deleting boxes, and what a box can do itself (box-api.md §1.2–1.5).
local async = require "lbox.async"
local clients = require "lbox.client"
local config = require "lbox.config"
local errors = require "lbox.errors"
local json = require "lbox.json"
local namespace = require "lbox.namespace"
local options = require "lbox.options"

local WORKSPACE = "/workspace/home"
local CREATE_LIMIT_MS = 300000
local FIRST_POLL_MS, LONGEST_POLL_MS = 100, 2000

---@class lbox.Box
---@field id string
---@field name string|nil
---@field size string
---@field keep_alive boolean
---@field status string
---@field cwd string  working directory of commands and relative paths; changed by cd
---@field network_policy table
---@field model_config { harness: string|nil, model: string|nil }
---@field agent table
---@field exec table
---@field files table
local Box = {}
local Box_mt = { __name = "lbox.Box" }

local NAMESPACES = { "agent", "exec", "files" }

-- ----------------------------------------------------------------------------- requests' forms

local CREATE_OPTIONS = config.with_client_options {
  name = "string", labels = "table", runtime = "string", size = "string", keep_alive = "boolean",
  init_command = "string", browser = "boolean", agent = "table", git = "table", env = "table",
  attach_headers = "table", network_policy = "table", skills = "table", mcp_servers = "table",
}
local AGENT_OPTIONS = { harness = "string", model = "string", api_key = "string",
  custom_harness = "table" }
local HARNESS_OPTIONS = { command = "string", args = "table", protocol = "string" }
local GIT_OPTIONS = { token = "string", user_name = "string", user_email = "string" }
local NETWORK_OPTIONS = { mode = { "allow-all", "deny-all", "custom" }, allowed_domains = "table",
  allowed_cidrs = "table", denied_cidrs = "table" }
local MCP_OPTIONS = { name = "string", package = "string", args = "table", url = "string",
  headers = "table" }
local GET_OPTIONS = config.with_client_options { git_token = "string" }
local LIST_OPTIONS = config.with_client_options { label = "string" }
local DELETE_OPTIONS = config.with_client_options { box_ids = "any" }

local function list_or_nil(list)
  return list and #list > 0 and json.array(list) or nil
end

local function agent_body(body, agent)
  options.check(agent, AGENT_OPTIONS, "agent")
  if not agent.harness or agent.harness == "" then
    errors.raise("usage", "agent.harness is required")
  end
  body.agent, body.model = agent.harness, agent.model
  if agent.harness ~= "custom" then
    if not agent.model or agent.model == "" then
      errors.raise("usage", "agent.model is required when an agent is configured")
    end
    body.agent_api_key = agent.api_key
    return
  end
  local custom = agent.custom_harness
  if not custom then
    errors.raise("usage", "agent.custom_harness is required when agent.harness is custom")
  end
  options.check(custom, HARNESS_OPTIONS, "agent.custom_harness")
  options.nonblank(custom.command, "agent.custom_harness.command")
  body.model = agent.model or "custom"
  body.custom_runner = { command = custom.command, args = list_or_nil(custom.args),
    protocol = custom.protocol }
end

local function mcp_body(servers)
  local list = json.array {}
  for i, server in ipairs(servers) do
    options.check(server, MCP_OPTIONS, ("mcp_servers[%d]"):format(i))
    if not server.package and not server.url then
      errors.raise("usage", ("mcp_servers[%d] needs package or url"):format(i))
    end
    list[i] = server.package
      and { name = server.name, source = "npm", package_or_url = server.package,
        args = list_or_nil(server.args) }
      or { name = server.name, source = "url", package_or_url = server.url, headers = server.headers }
  end
  return list
end

local function network_body(policy)
  options.check(policy, NETWORK_OPTIONS, "network_policy")
  local body = { mode = policy.mode }
  for _, key in ipairs { "allowed_domains", "allowed_cidrs", "denied_cidrs" } do
    body[key] = policy[key] and json.array(policy[key]) or nil
  end
  return body
end

local function create_body(opts)
  local git = opts.git or {}
  options.check(git, GIT_OPTIONS, "git")
  local body = {
    name = opts.name ~= "" and opts.name or nil,
    labels = list_or_nil(opts.labels),
    size = opts.size,
    keep_alive = opts.keep_alive or nil,
    init_command = opts.init_command,
    runtime = opts.runtime,
    browser = opts.browser or nil,
    github_token = git.token,
    git_user_name = git.user_name,
    git_user_email = git.user_email,
    env_vars = opts.env,
    attach_headers = opts.attach_headers,
    network_policy = opts.network_policy and network_body(opts.network_policy),
    skills = list_or_nil(opts.skills),
    mcp_servers = opts.mcp_servers and #opts.mcp_servers > 0 and mcp_body(opts.mcp_servers) or nil,
  }
  if opts.agent then
    agent_body(body, opts.agent)
  end
  for key, value in pairs(opts.extra or {}) do
    body[key] = value
  end
  return body
end

-- ------------------------------------------------------------------------------------- the box

local function take(box, data)
  json.strip_nulls(data)
  box.data = data
  box.id = data.id
  box.name = data.name
  box.size = data.size or "small"
  box.keep_alive = data.keep_alive or false
  box.status = data.status
  box.network_policy = data.network_policy or { mode = "allow-all" }
  box.model_config = { harness = data.agent, model = data.model }
  box.expires_at = data.expires_at
  box.agent_configured = data.agent ~= nil or data.model ~= nil
  return box
end

local function new_box(client, data)
  if type(data) ~= "table" or type(data.id) ~= "string" then
    errors.raise("api", "the answer does not describe a box")
  end
  local box = setmetatable({
    client = client,
    cwd = WORKSPACE,
    streams = setmetatable({}, { __mode = "k" }),
  }, Box_mt)
  for _, name in ipairs(NAMESPACES) do
    box[name] = require("lbox." .. name)(box)
  end
  return take(box, data)
end

local function box_path(id, rest)
  return "/v2/box/" .. clients.segment(id) .. (rest or "")
end

--- Waits until a new box is no longer `creating`.
local function wait_created(box)
  local deadline, delay = async.now() + CREATE_LIMIT_MS, FIRST_POLL_MS
  while box.status == "creating" do
    if async.now() >= deadline then
      errors.raise("timeout", "Box creation timed out", { box_id = box.id })
    end
    async.sleep(delay)
    delay = math.min(delay * 2, LONGEST_POLL_MS)
    local ok, data = pcall(box.client.request, box.client, { method = "GET", path = box_path(box.id) })
    if ok and type(data) == "table" and data.id then
      take(box, data)
    elseif not ok and errors.is(data, "cancelled") then
      error(data, 0)
    end
  end
  if box.status == "error" then
    errors.raise("api", "Box creation failed", { box_id = box.id })
  end
  return box
end

--- Creates a box and waits until it is ready.
---@param opts table|nil  doc/manual.md, Boxes
---@return lbox.Box
function Box.create(opts)
  options.check(opts, CREATE_OPTIONS, "Box.create")
  opts = opts or {}
  local client = clients.new(opts)
  local ok, data = pcall(client.request, client, {
    method = "POST", path = "/v2/box", json = create_body(opts), headers = opts.headers,
  })
  if not ok then
    -- What left this machine may have made a box that nobody knows.
    if errors.is(data, "timeout") or (errors.is(data, "network") and data.sent) then
      data.message = data.message .. "; a box may exist: look with Box.list"
    end
    error(data, 0)
  end
  return wait_created(new_box(client, data))
end

--- The box with this id or name.
---@param id string
---@param opts table|nil  client options
---@return lbox.Box
function Box.get(id, opts)
  options.nonblank(id, "the id")
  options.check(opts, GET_OPTIONS, "Box.get")
  local client = clients.new(opts)
  return new_box(client, client:request { method = "GET", path = box_path(id),
    headers = opts and opts.headers })
end

--- The box with this name.
---@return lbox.Box
function Box.get_by_name(name, opts)
  options.nonblank(name, "the name")
  return Box.get(name, opts)
end

--- What the server says of every box (those with `label`): plain tables.
---@param opts { label: string|nil }|nil
---@return table[]
function Box.list(opts)
  options.check(opts, LIST_OPTIONS, "Box.list")
  opts = opts or {}
  local list = clients.new(opts):request {
    method = "GET", path = "/v2/box", query = { label = opts.label }, headers = opts.headers,
  }
  for _, data in ipairs(list) do
    json.strip_nulls(data)
  end
  return list
end

--- Deletes boxes: `box_ids` is an id or a list of them.
function Box.delete_boxes(opts)
  options.check(opts, DELETE_OPTIONS, "Box.delete_boxes")
  local ids = opts and opts.box_ids
  ids = type(ids) == "string" and { ids } or ids
  local valid = type(ids) == "table" and #ids > 0
  for _, id in ipairs(valid and ids or {}) do
    valid = valid and type(id) == "string" and id:find("%S") ~= nil
  end
  if not valid then
    -- The hosted service takes an empty list for "all of them".
    errors.raise("usage", "box_ids must contain at least one non-empty id")
  end
  clients.new(opts):request { method = "DELETE", path = "/v2/box", json = { ids = json.array(ids) },
    headers = opts.headers }
end

local methods = {}

--- `{ status }`, which box.status holds from then on.
function methods.get_status(box)
  local answer = box.client:request { method = "GET", path = box_path(box.id, "/status") }
  box.status = answer.status
  return answer
end

--- Reads the box's fields again.
---@return lbox.Box
function methods.refresh(box)
  return take(box, box.client:request { method = "GET", path = box_path(box.id) })
end

--- Runs of this box, newest first.
---@return table[]
function methods.list_runs(box)
  local answer = box.client:request { method = "GET", path = box_path(box.id, "/runs") }
  return type(answer.runs) == "table" and json.strip_nulls(answer.runs) or {}
end

--- Cancels a run by its id.
function methods.cancel_run(box, id)
  options.nonblank(id, "the id of the run")
  box.client:request { method = "POST",
    path = box_path(box.id, "/runs/" .. clients.segment(id) .. "/cancel") }
end

local function normalize(path)
  local parts = {}
  for part in path:gmatch("[^/]+") do
    if part == ".." then
      parts[#parts] = nil
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  return "/" .. table.concat(parts, "/")
end

--- Changes box.cwd to a directory that is there.
---@param path string
function methods.cd(box, path)
  options.nonblank(path, "the path")
  local target = normalize(path:sub(1, 1) == "/" and path or box.cwd .. "/" .. path)
  local answer = box.client:request {
    method = "POST", path = box_path(box.id, "/exec"), json = { command = json.array { "ls", target } },
  }
  if answer.exit_code ~= 0 then
    errors.raise("usage", ("cd: %s: No such file or directory"):format(path))
  end
  box.cwd = target
end

--- An absolute path for a path of the user's.
function methods.resolve(box, path)
  options.nonblank(path, "the path")
  if path:sub(1, 1) == "/" then
    return path
  end
  return (box.cwd == "/" and "" or box.cwd) .. "/" .. path
end

--- The wire's `folder` of a directory (the cwd): nil at the workspace's root, relative inside it.
function methods.folder(box, path)
  local dir = path and normalize(path:sub(1, 1) == "/" and path or box.cwd .. "/" .. path) or box.cwd
  if dir == WORKSPACE then
    return nil
  elseif dir:sub(1, #WORKSPACE + 1) == WORKSPACE .. "/" then
    return dir:sub(#WORKSPACE + 2)
  end
  return dir
end

--- Lets go of the box: it stays, this object is of no use any more. Its streams are closed.
function methods.close(box)
  if box.closed then
    return
  end
  box.closed = true
  local open = {}
  for stream in pairs(box.streams) do
    open[#open + 1] = stream
  end
  for _, stream in ipairs(open) do
    stream:close()
  end
end

--- Deletes the box for good, and closes this object. A second delete does nothing.
function methods.delete(box)
  if box.deleted then
    return
  elseif box.closed then
    errors.raise("usage", ("box %s is closed"):format(box.id))
  end
  box.client:request { method = "DELETE", path = box_path(box.id) }
  box.deleted = true
  methods.close(box)
end

Box_mt.__index = namespace.methods("box", methods, function(self)
  return getmetatable(self) == Box_mt and self or nil
end, { close = true, delete = true, resolve = true, folder = true })
Box_mt.__close = function(box)
  methods.close(box)
end
Box_mt.__tostring = function(box)
  return "lbox.Box: " .. box.id
end

return Box
