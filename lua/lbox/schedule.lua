--- `box.schedule`: commands and agent runs at set times (box-api.md §1.9).
local agent_options = require "lbox.agent_options"
local client = require "lbox.client"
local errors = require "lbox.errors"
local json = require "lbox.json"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local url = require "lbox.url"

local READ_OPTIONS = client.read_options {}
local CALL_OPTIONS = client.call_options {}

---@class lbox.schedule.ExecOptions: lbox.CallOptions
---@field cron string                  five fields, in UTC
---@field command string|string[]      for `sh -c`, or a program and its arguments
---@field folder string|nil            where to run, relative to `box.cwd`, which is the default
---@field webhook_url string|nil       is told of every run
---@field webhook_headers table<string, string>|nil

local EXEC_OPTIONS = client.call_options {
  cron = "text!", command = "any!", folder = "text", webhook_url = "text", webhook_headers = "map",
}

-- `timeout` is that of each run, in ms, and the server's.
---@class lbox.schedule.AgentOptions: lbox.CallOptions
---@field cron string
---@field prompt string
---@field folder string|nil
---@field model string|nil
---@field options table|nil            of the agent itself, snake_case
---@field webhook_url string|nil
---@field webhook_headers table<string, string>|nil

local AGENT_OPTIONS = client.call_options {
  cron = "text!", prompt = "text!", folder = "text", model = "text", options = "table",
  webhook_url = "text", webhook_headers = "map",
}

-- What is absent stays as it is; "" and {} clear, `options = lbox.null` clears the options.
---@class lbox.schedule.UpdateOptions: lbox.CallOptions
---@field cron string|nil
---@field command string|string[]|nil
---@field prompt string|nil
---@field folder string|nil
---@field model string|nil
---@field options table|nil
---@field webhook_url string|nil
---@field webhook_headers table<string, string>|nil

local UPDATE_OPTIONS = client.call_options {
  cron = "string", command = "any", prompt = "string", folder = "string", model = "string", options = "any",
  webhook_url = "string", webhook_headers = "map",
}

---@class lbox.Schedule
---@field id string
---@field box_id string
---@field type "exec"|"prompt"
---@field cron string
---@field command string[]|nil
---@field prompt string|nil
---@field folder string|nil
---@field model string|nil
---@field agent_options table|nil
---@field timeout integer|nil
---@field status "active"|"paused"|"deleted"
---@field webhook_url string|nil
---@field webhook_headers table<string, string>|nil
---@field last_run_at integer|nil
---@field last_run_status "completed"|"failed"|"skipped"|nil
---@field last_run_id string|nil
---@field total_runs integer
---@field total_failures integer
---@field created_at integer
---@field updated_at integer

--- A command as the list of its program and arguments.
local function argv(command)
  if type(command) == "string" then
    return { "sh", "-c", options.nonblank(command, "command") }
  end
  options.check({ command = command }, { command = "strings" }, "box.schedule")
  return json.list(command)
end

local function path_of(id)
  return "/schedules/" .. url.segment(id, "the id of a schedule")
end

--- Sends a schedule and returns what the server made of it. The `timeout` in `opts` is not this call's.
local function send(self, method, path, opts, body)
  local link = self._link
  return link:object("id", {
    method = method, path = path, json = body, headers = opts.headers, extra = opts.extra,
  })
end

--- What both kinds have in common. Where they run is always sent, and absolute.
local function create(self, kind, opts, own)
  local body = {
    type = kind,
    cron = opts.cron,
    folder = opts.folder and self._link:path_of(opts.folder, "folder") or self._link.box.cwd,
    webhook_url = opts.webhook_url,
    webhook_headers = opts.webhook_headers and next(opts.webhook_headers) and opts.webhook_headers,
  }
  for name, value in pairs(own) do
    body[name] = value
  end
  return send(self, "POST", "/schedules", opts, body)
end

---@class lbox.BoxSchedule
local methods = {}

--- Runs a command at set times.
---@param opts lbox.schedule.ExecOptions
---@return lbox.Schedule
function methods:exec(opts)
  opts = options.call(opts, EXEC_OPTIONS, "box.schedule:exec")
  local command = argv(opts.command)
  if not command[1] then
    errors.raise("usage", "command must not be empty")
  end
  return create(self, "exec", opts, { command = command })
end

--- Runs the agent at set times.
---@param opts lbox.schedule.AgentOptions
---@return lbox.Schedule
function methods:agent(opts)
  opts = options.call(opts, AGENT_OPTIONS, "box.schedule:agent")
  return create(self, "prompt", opts, {
    prompt = opts.prompt,
    model = opts.model,
    agent_options = agent_options.wire(opts.options, self._link.harness),
    timeout = opts.timeout,
  })
end

--- The schedules of the box; not those that were deleted.
---@param opts lbox.ReadOptions|nil
---@return lbox.Schedule[]
function methods:list(opts)
  opts = options.call(opts, READ_OPTIONS, "box.schedule:list")
  return self._link:list(nil, { path = "/schedules", opts = opts })
end

--- One of them. Raises `api` 404 when there is none.
---@param id string
---@param opts lbox.ReadOptions|nil
---@return lbox.Schedule
function methods:get(id, opts)
  opts = options.call(opts, READ_OPTIONS, "box.schedule:get")
  return self._link:object("id", { method = "GET", path = path_of(id), opts = opts })
end

--- Changes a schedule. Its type stays.
---@param id string
---@param opts lbox.schedule.UpdateOptions
---@return lbox.Schedule
function methods:update(id, opts)
  opts = options.call(opts, UPDATE_OPTIONS, "box.schedule:update")
  local path = path_of(id)
  local body = {
    cron = opts.cron,
    command = opts.command ~= nil and argv(opts.command) or nil,
    prompt = opts.prompt,
    folder = opts.folder,
    model = opts.model,
    timeout = opts.timeout,
    webhook_url = opts.webhook_url,
    webhook_headers = opts.webhook_headers,
  }
  if opts.folder and opts.folder ~= "" then
    body.folder = self._link:path_of(opts.folder, "folder")
  end
  if opts.options == json.null then
    body.agent_options = json.null
  elseif opts.options ~= nil then
    options.check({ options = opts.options }, { options = "table" }, "box.schedule:update")
    body.agent_options = agent_options.wire(opts.options, self._link.harness) or {}
  end
  return send(self, "PATCH", path, opts, body)
end

--- Holds a schedule.
---@param id string
---@param opts lbox.CallOptions|nil
function methods:pause(id, opts)
  opts = options.call(opts, CALL_OPTIONS, "box.schedule:pause")
  self._link:perform { method = "POST", path = path_of(id) .. "/pause", opts = opts }
end

--- Lets it go on.
---@param id string
---@param opts lbox.CallOptions|nil
function methods:resume(id, opts)
  opts = options.call(opts, CALL_OPTIONS, "box.schedule:resume")
  self._link:perform { method = "POST", path = path_of(id) .. "/resume", opts = opts }
end

--- Ends it for good.
---@param id string
---@param opts lbox.ReadOptions|nil
function methods:delete(id, opts)
  opts = options.call(opts, READ_OPTIONS, "box.schedule:delete")
  self._link:perform { method = "DELETE", path = path_of(id), opts = opts }
end

return { new = namespace.of_box("box.schedule", methods) }
