--- Boxes: making, finding and deleting them, and what a box does of itself.
local agent = require "lbox.agent"
local async = require "lbox.async"
local client = require "lbox.client"
local create = require "lbox.create"
local errors = require "lbox.errors"
local exec = require "lbox.exec"
local files = require "lbox.files"
local json = require "lbox.json"
local link = require "lbox.link"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local url = require "lbox.url"
local workdir = require "lbox.workdir"

-- A new box that is still `creating` is looked at until it is ready.
local READY_MS = 300000
local FIRST_POLL_MS, LAST_POLL_MS = 250, 2000

---@class lbox.GetOptions: lbox.ConnectionOptions, lbox.ReadOptions
---@field git_token string|nil
local GET_OPTIONS = client.static_options { git_token = "string" }
local LIST_OPTIONS = client.static_options { label = "string" }
local DELETE_BOXES_OPTIONS = client.static_options { box_ids = "any" }
GET_OPTIONS.extra, LIST_OPTIONS.extra = nil, nil -- no JSON body to merge into
local READ_OPTIONS = client.read_options {}
local CALL_OPTIONS = client.call_options {}

---@class lbox.Box
---@field id string
---@field name string|nil
---@field size string
---@field keep_alive boolean
---@field status string
---@field cwd string  where calls of this object work
---@field network_policy lbox.NetworkPolicy
---@field model_config { harness: string?, model: string? }
---@field expires_at integer|nil
---@field agent lbox.BoxAgent
---@field exec lbox.BoxExec
---@field files lbox.BoxFiles
local methods = {}

--- Takes over what the server says of the box.
local function apply(self, data)
  self.name = data.name
  self.size = data.size or "small"
  self.keep_alive = data.keep_alive or false
  self.status = data.status
  self.network_policy = data.network_policy or { mode = "allow-all" }
  self.model_config = { harness = data.agent, model = data.model }
  self.expires_at = data.expires_at
end

local function check_opts(opts, spec, what)
  options.check(opts, spec, what)
  opts = opts or {}
  if opts.timeout ~= nil then
    options.ms(opts.timeout, "timeout")
  end
  return opts
end

--- Asks for the box's data.
local function fetch(connection, path, opts, box_id, deadline)
  local spec = {
    method = "GET", path = path, headers = opts.headers, timeout = opts.timeout,
    deadline = deadline, box_id = box_id,
  }
  local data, status = connection:request(spec)
  if type(data.id) ~= "string" or data.id == "" then
    connection:nonsense(spec, status)
  end
  return json.strip_nulls(data)
end

--- Reads the box's fields again. Raises `api` 404 when the box is gone.
---@param opts lbox.ReadOptions|nil
---@return lbox.Box self
function methods:refresh(opts)
  opts = check_opts(opts, READ_OPTIONS, "box:refresh")
  self._link:check_open()
  apply(self, fetch(self._link.client, self._link.path, opts, self.id))
  return self
end

--- The box's status, which also becomes `box.status`.
---@param opts lbox.ReadOptions|nil
---@return { status: string }
function methods:get_status(opts)
  opts = check_opts(opts, READ_OPTIONS, "box:get_status")
  local spec = { method = "GET", path = "/status", headers = opts.headers, timeout = opts.timeout }
  local answer, status = self._link:request(spec)
  if type(answer.status) ~= "string" then
    self._link:nonsense(spec, status)
  end
  self.status = answer.status
  return json.strip_nulls(answer)
end

--- Changes `box.cwd`, where later calls work. Raises `api` when no directory is there; `cwd` stays then.
---@param path string  relative to the old `cwd`, or absolute
---@param opts lbox.CallOptions|nil
function methods:cd(path, opts)
  opts = check_opts(opts, CALL_OPTIONS, "box:cd")
  options.nonblank(path, "path")
  local there = workdir.normalise(self.cwd, path)
  local why_not = exec.no_directory(self._link, there, opts)
  if why_not then
    errors.raise("api", ("cd: %s: %s"):format(path, why_not), { box_id = self.id })
  end
  self.cwd = there
end

--- What ran in the box, newest first, as the server has it: `id`, `type` ("agent" or "shell"),
--- `status`, `prompt`, `output`, `error_message`, `created_at` (Unix seconds), …
---@param opts lbox.ReadOptions|nil
---@return table[]
function methods:list_runs(opts)
  opts = check_opts(opts, READ_OPTIONS, "box:list_runs")
  local answer = self._link:request {
    method = "GET", path = "/runs", headers = opts.headers, timeout = opts.timeout,
  }
  return type(answer.runs) == "table" and json.strip_nulls(answer.runs) or {}
end

--- Cancels a run; one that has ended stays as it is. Raises `api` 404 when there is no such run.
---@param id string
---@param opts lbox.CallOptions|nil
function methods:cancel_run(id, opts)
  opts = check_opts(opts, CALL_OPTIONS, "box:cancel_run")
  self._link:perform {
    method = "POST",
    path = "/runs/" .. url.segment(id, "the id of a run") .. "/cancel",
    headers = opts.headers,
    extra = opts.extra,
    timeout = opts.timeout,
  }
end

--- Deletes the box for good, and closes it. Does nothing when it is closed already.
---@param opts lbox.ReadOptions|nil
function methods:delete(opts)
  opts = check_opts(opts, READ_OPTIONS, "box:delete")
  if self._link.closed then
    return
  end
  self._link:perform {
    method = "DELETE", path = "", headers = opts.headers, timeout = opts.timeout,
  }
  self._link:close()
end

--- Lets go of the box, which stays where it is: open streams are closed, later calls raise.
function methods:close()
  self._link:close()
end

local metatable = namespace.metatable("box", methods)

function metatable.__close(self)
  self._link:close()
end

function metatable.__tostring(self)
  return ("lbox.Box (%s)"):format(self.id)
end

--- The object for a box that is there. The token is for cloning into it.
local function new(connection, data, git_token)
  local self = setmetatable({ id = data.id, cwd = workdir.ROOT }, metatable)
  apply(self, data)
  self._link = link.new(connection, data.id, self)
  self._link.git_token = git_token
  self.agent = agent.new(self._link)
  self.exec = exec.new(self._link)
  self.files = files.new(self._link)
  return self
end

--- Looks at a new box until it is no longer `creating`. A look that fails is repeated.
local function wait_until_ready(box, deadline)
  local started, pause = async.now(), FIRST_POLL_MS
  while box.status == "creating" do
    local now = async.now()
    if now - started >= READY_MS or (deadline.at and now + pause >= deadline.at) then
      errors.raise("timeout", ("box %s was still being created after %.0f s"):format(
        box.id, (now - started) / 1000), { box_id = box.id, retryable = true })
    end
    async.sleep(pause)
    pause = math.min(pause * 1.5, LAST_POLL_MS)
    local ok, data = pcall(fetch, box._link.client, box._link.path, {}, box.id, deadline)
    if ok then
      apply(box, data)
    elseif not (errors.is(data, "api") or errors.is(data, "network")) then
      error(data, 0)
    end
  end
  if box.status == "error" then
    errors.raise("api", ("box %s could not be created: its status is error"):format(box.id),
      { box_id = box.id })
  end
end

local Box = {}

--- Makes a box and waits until it can be used. Raises `api` when the server refuses or the box fails,
--- `timeout` (with `box_id`) when it is not ready after 300 s.
---@param opts lbox.CreateOptions|nil
---@return lbox.Box
function Box.create(opts)
  opts = check_opts(opts, create.OPTIONS, "Box.create")
  local body = create.body(opts)
  local connection = client.new(opts)
  local deadline = connection:deadline(opts.timeout)
  local spec = {
    method = "POST",
    path = "/v2/box",
    json = body,
    extra = opts.extra,
    headers = opts.headers,
    deadline = deadline,
    secrets = create.secrets(opts),
    lost = "a box may have been created",
  }
  local data, status = connection:request(spec)
  if type(data.id) ~= "string" or data.id == "" then
    connection:nonsense(spec, status)
  end
  local box = new(connection, json.strip_nulls(data), opts.git and opts.git.token)
  wait_until_ready(box, deadline)
  return box
end

--- A box that is there, by its id. Raises `api` 404 when it is not.
---@param id string
---@param opts lbox.GetOptions|nil
---@return lbox.Box
function Box.get(id, opts)
  opts = check_opts(opts, GET_OPTIONS, "Box.get")
  local path = "/v2/box/" .. url.segment(id, "the id of a box")
  local connection = client.new(opts)
  return new(connection, fetch(connection, path, opts, id), opts.git_token)
end

--- A box that is there, by its name. Raises `api` 404 when it is not.
---@param name string
---@param opts lbox.GetOptions|nil
---@return lbox.Box
function Box.get_by_name(name, opts)
  opts = check_opts(opts, GET_OPTIONS, "Box.get_by_name")
  local path = "/v2/box/" .. url.segment(name, "the name of a box")
  local connection = client.new(opts)
  return new(connection, fetch(connection, path, opts), opts.git_token)
end

---@class lbox.ListOptions: lbox.ConnectionOptions, lbox.ReadOptions
---@field label string|nil  only boxes that have it

--- What the server says of every box, or of those with a label: a list of plain tables.
---@param opts lbox.ListOptions|nil
---@return table[]
function Box.list(opts)
  opts = check_opts(opts, LIST_OPTIONS, "Box.list")
  local spec = {
    method = "GET", path = "/v2/box", query = { { "label", opts.label } }, headers = opts.headers,
    timeout = opts.timeout,
  }
  local connection = client.new(opts)
  local answer, status = connection:request(spec)
  if #answer == 0 and next(answer) ~= nil then
    connection:nonsense(spec, status)
  end
  return json.strip_nulls(answer)
end

local NO_IDS = "box_ids must contain at least one non-empty id"

---@class lbox.DeleteBoxesOptions: lbox.ConnectionOptions, lbox.CallOptions
---@field box_ids string|string[]  an id, or a list of at least one

--- Deletes several boxes for good. No ids is an error: the server would take it for all.
---@param opts lbox.DeleteBoxesOptions
function Box.delete_boxes(opts)
  opts = check_opts(opts, DELETE_BOXES_OPTIONS, "Box.delete_boxes")
  local given = opts.box_ids
  if type(given) == "string" then
    given = { given }
  end
  local ids = json.array {}
  for i, id in ipairs(type(given) == "table" and given or {}) do
    if type(id) ~= "string" or not id:find("%S") then
      errors.raise("usage", NO_IDS)
    end
    ids[i] = id
  end
  if #ids == 0 then
    errors.raise("usage", NO_IDS)
  end
  client.new(opts):send {
    method = "DELETE", path = "/v2/box", json = { ids = ids }, extra = opts.extra,
    headers = opts.headers, timeout = opts.timeout,
  }
end

return namespace.statics("Box", Box)
