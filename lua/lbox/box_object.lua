--- A box as its user holds it: its fields, what can be asked of it, and its namespaces.
local agent = require "lbox.agent"
local client = require "lbox.client"
local errors = require "lbox.errors"
local exec = require "lbox.exec"
local files = require "lbox.files"
local json = require "lbox.json"
local link = require "lbox.link"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local url = require "lbox.url"
local workdir = require "lbox.workdir"

local M = {}

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
function M.apply(self, data)
  self.name = data.name
  self.size = data.size or "small"
  self.keep_alive = data.keep_alive or false
  self.status = data.status
  self.network_policy = data.network_policy or { mode = "allow-all" }
  self.model_config = { harness = data.agent, model = data.model }
  self.expires_at = data.expires_at
end

--- Asks for the box's data.
function M.fetch(connection, path, opts, box_id, deadline)
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
  opts = options.call(opts, READ_OPTIONS, "box:refresh")
  self._link:check_open()
  M.apply(self, M.fetch(self._link.client, self._link.path, opts, self.id))
  return self
end

--- The box's status, which also becomes `box.status`.
---@param opts lbox.ReadOptions|nil
---@return { status: string }
function methods:get_status(opts)
  opts = options.call(opts, READ_OPTIONS, "box:get_status")
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
  opts = options.call(opts, CALL_OPTIONS, "box:cd")
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
  opts = options.call(opts, READ_OPTIONS, "box:list_runs")
  local answer = self._link:request {
    method = "GET", path = "/runs", headers = opts.headers, timeout = opts.timeout,
  }
  return type(answer.runs) == "table" and json.strip_nulls(answer.runs) or {}
end

--- Cancels a run; one that has ended stays as it is. Raises `api` 404 when there is no such run.
---@param id string
---@param opts lbox.CallOptions|nil
function methods:cancel_run(id, opts)
  opts = options.call(opts, CALL_OPTIONS, "box:cancel_run")
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
  opts = options.call(opts, READ_OPTIONS, "box:delete")
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
function M.new(connection, data, git_token)
  local self = setmetatable({ id = data.id, cwd = workdir.ROOT }, metatable)
  M.apply(self, data)
  self._link = link.new(connection, data.id, self)
  self._link.git_token = git_token
  self.agent = agent.new(self._link)
  self.exec = exec.new(self._link)
  self.files = files.new(self._link)
  return self
end

return M
