--- What concerns all boxes of an account: deleting several, snapshots, and the environment of boxes to come.
local client = require "lbox.client"
local errors = require "lbox.errors"
local json = require "lbox.json"
local options = require "lbox.options"
local url = require "lbox.url"

local M = {}

local OPTIONS = client.static_options {}
local READ_OPTIONS = client.static_read_options {}

local NO_IDS = "%s must contain at least one non-empty id"

--- The ids given as one string or a list of them. None, or a blank one, is an error: the server would take no
--- ids for all.
local function ids_of(given, name)
  if type(given) == "string" then
    given = { given }
  end
  local ids = json.list(type(given) == "table" and given or {})
  for _, id in ipairs(ids) do
    if type(id) ~= "string" or not id:find("%S") then
      errors.raise("usage", NO_IDS:format(name))
    end
  end
  if #ids == 0 then
    errors.raise("usage", NO_IDS:format(name))
  end
  return ids
end

---@class lbox.DeleteBoxesOptions: lbox.ConnectionOptions, lbox.CallOptions
---@field box_ids string|string[]  an id, or a list of at least one

local DELETE_BOXES_OPTIONS = client.static_options { box_ids = "any" }

--- Deletes several boxes for good.
---@param opts lbox.DeleteBoxesOptions
function M.delete_boxes(opts)
  opts = options.call(opts, DELETE_BOXES_OPTIONS, "Box.delete_boxes")
  local body = { ids = ids_of(opts.box_ids, "box_ids") }
  client.new(opts):send { method = "DELETE", path = "/v2/box", json = body, opts = opts }
end

---@class lbox.DeleteSnapshotsOptions: lbox.ConnectionOptions, lbox.CallOptions
---@field snapshot_ids string|string[]|nil  an id, or a list of at least one
---@field all boolean|nil                   every snapshot of the account instead

local DELETE_SNAPSHOTS_OPTIONS = client.static_options { snapshot_ids = "any", all = "boolean" }

--- Deletes several snapshots for good.
---@param opts lbox.DeleteSnapshotsOptions
---@return { deleted: integer }
function M.delete_snapshots(opts)
  opts = options.call(opts, DELETE_SNAPSHOTS_OPTIONS, "Box.delete_snapshots")
  if opts.all and opts.snapshot_ids ~= nil then
    errors.raise("usage", "Box.delete_snapshots takes snapshot_ids or all, not both")
  end
  return client.new(opts):ask {
    method = "DELETE",
    path = "/v2/box/snapshots",
    query = { { "all", opts.all and "true" or nil } },
    json = opts.all and {} or { ids = ids_of(opts.snapshot_ids, "snapshot_ids") },
    opts = opts,
  }
end

local ENV = "/v2/box/settings/env"

local function variable(name)
  return ENV .. "/" .. url.segment(name, "the name of a variable")
end

--- Sets a variable of the environment that every box gets which is made from now on.
---@param key string
---@param value string
---@param opts (lbox.ConnectionOptions|lbox.CallOptions)|nil
function M.set_env(key, value, opts)
  opts = options.call(opts, OPTIONS, "Box.set_env")
  local path = variable(key)
  if type(value) ~= "string" then
    errors.raise("usage", ("the value of %s must be a string, got %s"):format(key, type(value)))
  end
  client.new(opts):send { method = "PUT", path = path, json = { value = value }, opts = opts, secrets = { value } }
end

--- The variables: their values by name, masked.
---@param opts (lbox.ConnectionOptions|lbox.ReadOptions)|nil
---@return table<string, string>
function M.list_env(opts)
  opts = options.call(opts, READ_OPTIONS, "Box.list_env")
  local answer = client.new(opts):ask { method = "GET", path = ENV, opts = opts }
  return type(answer.env_vars) == "table" and answer.env_vars or answer
end

--- Takes a variable away.
---@param key string
---@param opts (lbox.ConnectionOptions|lbox.ReadOptions)|nil
function M.delete_env(key, opts)
  opts = options.call(opts, READ_OPTIONS, "Box.delete_env")
  client.new(opts):send { method = "DELETE", path = variable(key), opts = opts }
end

--- Makes these all the variables there are.
---@param vars table<string, string>
---@param opts (lbox.ConnectionOptions|lbox.CallOptions)|nil
function M.set_all_env(vars, opts)
  opts = options.call(opts, OPTIONS, "Box.set_all_env")
  options.map(vars, "vars")
  client.new(opts):send { method = "PUT", path = ENV, json = { env_vars = vars }, opts = opts }
end

return M
