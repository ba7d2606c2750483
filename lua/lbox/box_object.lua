--- A box as its user holds it: its fields, what can be asked of it, and its namespaces.
local agent = require "lbox.agent"
local browser = require "lbox.browser"
local client = require "lbox.client"
local errors = require "lbox.errors"
local exec = require "lbox.exec"
local files = require "lbox.files"
local git = require "lbox.git"
local json = require "lbox.json"
local labels = require "lbox.labels"
local link = require "lbox.link"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local schedule = require "lbox.schedule"
local skills = require "lbox.skills"
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
---@field browser lbox.BoxBrowser
---@field exec lbox.BoxExec
---@field files lbox.BoxFiles
---@field git lbox.BoxGit
---@field labels lbox.BoxLabels
---@field schedule lbox.BoxSchedule
---@field skills lbox.BoxSkills
local methods = {}

--- Takes over what the server says of the box.
function M.apply(self, data)
  self.name = data.name
  self.size = data.size or "small"
  self.status = data.status
  self.network_policy = data.network_policy or { mode = "allow-all" }
  self.expires_at = data.expires_at
  self._link.harness = data.agent
  self:_take(data)
end

--- Asks for a box's data.
---@param connection lbox.Client
---@param spec lbox.client.Spec  its path, and what else it needs
function M.fetch(connection, spec)
  spec.method = "GET"
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
  M.apply(self, M.fetch(self._link.client, self._link:spec { path = "", opts = opts }))
  return self
end

--- The box's status, which also becomes `box.status`.
---@param opts lbox.ReadOptions|nil
---@return { status: string }
function methods:get_status(opts)
  opts = options.call(opts, READ_OPTIONS, "box:get_status")
  local spec = { method = "GET", path = "/status", opts = opts }
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

--- Asks for a change of the box's status.
local function change(self, name, status, opts)
  opts = options.call(opts, CALL_OPTIONS, "box:" .. name)
  local answer = self._link:ask { method = "POST", path = "/" .. name, opts = opts, may_be_empty = true }
  self.status = type(answer.status) == "string" and answer.status or status
end

--- Ends what runs in the box and lets go of its memory; its files stay, and any later work wakes it.
--- Raises `usage` without a request for a keep_alive box.
---@param opts lbox.CallOptions|nil
function methods:pause(opts)
  if self.keep_alive then
    errors.raise("usage", ("box %s is keep_alive: it cannot be paused"):format(self.id), { box_id = self.id })
  end
  change(self, "pause", "paused", opts)
end

--- Wakes a paused box; its init command runs.
---@param opts lbox.CallOptions|nil
function methods:resume(opts)
  change(self, "resume", "idle", opts)
end

--- Deletes the box for good, and closes it. Does nothing when it is closed already.
---@param opts lbox.ReadOptions|nil
function methods:delete(opts)
  opts = options.call(opts, READ_OPTIONS, "box:delete")
  if self._link.closed then
    return
  end
  self._link:perform { method = "DELETE", path = "", opts = opts }
  self._link:close()
end

--- Lets go of the box, which stays where it is: open streams are closed, later calls raise.
function methods:close()
  self._link:close()
end

-- What a box can do beside: each of these modules is some more of its methods.
for _, part in ipairs { "box_runs", "box_config", "snapshots", "public_urls" } do
  for name, method in pairs(require("lbox." .. part)) do
    methods[name] = method
  end
end
M.methods = methods

local NAMESPACES = {
  agent = agent.new,
  browser = browser.new,
  exec = exec.new,
  files = files.new,
  git = git.new,
  labels = labels.new,
  schedule = schedule.new,
  skills = skills.new,
}
M.NAMESPACES = NAMESPACES

--- Lets a box go when it leaves the scope of `local box <close>`.
---@param metatable table
---@param class string
function M.complete(metatable, class)
  function metatable.__close(self)
    self._link:close()
  end
  function metatable.__tostring(self)
    return ("lbox.%s (%s)"):format(class, self.id)
  end
  return metatable
end

--- Makes the object for a box that is there. `take(self, data)` takes over what only its class has.
---@param metatable table
---@param connection lbox.Client
---@param data table
---@param namespaces table<string, fun(link: lbox.Link): table>
---@param take fun(self: table, data: table)
function M.build(metatable, connection, data, namespaces, take)
  local self = setmetatable({ id = data.id, cwd = workdir.ROOT, _take = take }, metatable)
  self._link = link.new(connection, data.id, self)
  for name, new in pairs(namespaces) do
    self[name] = new(self._link)
  end
  M.apply(self, data)
  return self
end

local function take(self, data)
  self.keep_alive = data.keep_alive or false
  self.model_config = { harness = data.agent, model = data.model }
end

local metatable = M.complete(namespace.metatable("box", methods), "Box")

--- The object for a box that is there. The token is for cloning into it.
---@param connection lbox.Client
---@param data table
---@param git_token string|nil
---@return lbox.Box
function M.new(connection, data, git_token)
  local self = M.build(metatable, connection, data, NAMESPACES, take)
  self._link.git_token = git_token
  return self
end

return M
