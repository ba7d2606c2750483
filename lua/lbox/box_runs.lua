--- Methods of a box: what ran in it, and what it logged.
local client = require "lbox.client"
local errors = require "lbox.errors"
local options = require "lbox.options"
local runs = require "lbox.run"
local url = require "lbox.url"

local READ_OPTIONS = client.read_options {}
local CALL_OPTIONS = client.call_options {}

---@class lbox.LogsOptions: lbox.ReadOptions
---@field offset integer|nil
---@field limit integer|nil

local LOGS_OPTIONS = client.read_options { offset = "count", limit = "count" }

---@class lbox.Box
local methods = {}

--- What ran in the box, newest first, as the server has it: `id`, `type` ("agent" or "shell"),
--- `status`, `prompt`, `output`, `error_message`, `created_at` (Unix seconds), …
---@param opts lbox.ReadOptions|nil
---@return table[]
function methods:list_runs(opts)
  opts = options.call(opts, READ_OPTIONS, "box:list_runs")
  return self._link:list("runs", { path = "/runs", opts = opts })
end

--- A run by its id, also one of another process: `run:wait()` follows it to its end. Raises `api` when the
--- server's list does not have it.
---@param id string
---@param opts lbox.ReadOptions|nil
---@return lbox.Run
function methods:get_run(id, opts)
  opts = options.call(opts, READ_OPTIONS, "box:get_run")
  options.nonblank(id, "the id of a run")
  local spec = { path = "/runs", opts = opts }
  for _, data in ipairs(self._link:list("runs", spec)) do
    if data.id == id and type(data.status) ~= "string" then
      self._link:nonsense(spec, 200)
    elseif data.id == id then
      return runs.of_data(self._link, data)
    end
  end
  errors.raise("api", ("run %s is not in the list of box %s"):format(id, self.id), { box_id = self.id, run_id = id })
end

--- Cancels a run; one that has ended stays as it is. Raises `api` 404 when there is no such run.
---@param id string
---@param opts lbox.CallOptions|nil
function methods:cancel_run(id, opts)
  opts = options.call(opts, CALL_OPTIONS, "box:cancel_run")
  local path = "/runs/" .. url.segment(id, "the id of a run") .. "/cancel"
  self._link:perform { method = "POST", path = path, opts = opts }
end

--- The box's log: a list of { timestamp (Unix seconds), level, source, message }.
---@param opts lbox.LogsOptions|nil
---@return table[]
function methods:logs(opts)
  opts = options.call(opts, LOGS_OPTIONS, "box:logs")
  local query = { { "offset", opts.offset }, { "limit", opts.limit } }
  return self._link:list("logs", { path = "/logs", query = query, opts = opts })
end

return methods
