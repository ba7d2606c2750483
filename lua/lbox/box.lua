--- `lbox.Box`: making, finding, deleting boxes, and what all of them share.
local account = require "lbox.account"
local client = require "lbox.client"
local create = require "lbox.create"
local errors = require "lbox.errors"
local namespace = require "lbox.namespace"
local object = require "lbox.box_object"
local options = require "lbox.options"
local url = require "lbox.url"

---@class lbox.GetOptions: lbox.ConnectionOptions, lbox.ReadOptions
---@field git_token string|nil  what clones into the box may use

local GET_OPTIONS = client.static_read_options { git_token = "string" }

---@class lbox.ListOptions: lbox.ConnectionOptions, lbox.ReadOptions
---@field label string|nil  only boxes that have it

local LIST_OPTIONS = client.static_read_options { label = "string" }

---@class lbox.RequestOptions: lbox.ConnectionOptions, lbox.CallOptions
---@field query table<string, string|number|boolean>|nil
---@field json table|nil  the body

local REQUEST_OPTIONS = client.static_options { query = "table", json = "table" }

---@class lbox.BoxStatics
---@field create fun(opts: lbox.CreateOptions|nil): lbox.Box
---@field from_snapshot fun(snapshot_id: string, opts: lbox.CreateOptions|nil): lbox.Box
---@field delete_boxes fun(opts: lbox.DeleteBoxesOptions)
---@field delete_snapshots fun(opts: lbox.DeleteSnapshotsOptions): { deleted: integer }
---@field set_env fun(key: string, value: string, opts: lbox.ConnectionOptions|nil)
---@field list_env fun(opts: lbox.ConnectionOptions|nil): table<string, string>
---@field delete_env fun(key: string, opts: lbox.ConnectionOptions|nil)
---@field set_all_env fun(vars: table<string, string>, opts: lbox.ConnectionOptions|nil)
local Box = {
  create = create.box,
  from_snapshot = create.from_snapshot,
  delete_boxes = account.delete_boxes,
  delete_snapshots = account.delete_snapshots,
  set_env = account.set_env,
  list_env = account.list_env,
  delete_env = account.delete_env,
  set_all_env = account.set_all_env,
}

--- A box that is there, by its id. Raises `api` 404 when it is not.
---@param id string
---@param opts lbox.GetOptions|nil
---@return lbox.Box
function Box.get(id, opts)
  opts = options.call(opts, GET_OPTIONS, "Box.get")
  local path = "/v2/box/" .. url.segment(id, "the id of a box")
  local connection = client.new(opts)
  return object.new(connection, object.fetch(connection, { path = path, opts = opts, box_id = id }), opts.git_token)
end

--- A box that is there, by its name. Raises `api` 404 when it is not.
---@param name string
---@param opts lbox.GetOptions|nil
---@return lbox.Box
function Box.get_by_name(name, opts)
  opts = options.call(opts, GET_OPTIONS, "Box.get_by_name")
  local path = "/v2/box/" .. url.segment(name, "the name of a box")
  local connection = client.new(opts)
  return object.new(connection, object.fetch(connection, { path = path, opts = opts }), opts.git_token)
end

--- What the server says of every box, or of those with a label: a list of plain tables.
---@param opts lbox.ListOptions|nil
---@return table[]
function Box.list(opts)
  opts = options.call(opts, LIST_OPTIONS, "Box.list")
  return client.new(opts):list { path = "/v2/box", query = { { "label", opts.label } }, opts = opts }
end

--- Sends any request of the Box API, for what lbox does not know yet. Returns the decoded answer.
---@param method string  "GET", "POST", …
---@param path string  from `/v2` on
---@param opts lbox.RequestOptions|nil
---@return table
function Box.request(method, path, opts)
  opts = options.call(opts, REQUEST_OPTIONS, "Box.request")
  options.nonblank(method, "the method of a request")
  options.nonblank(path, "the path of a request")
  if path:sub(1, 1) ~= "/" or path:find("[%s%c?#]") then
    errors.raise("usage", ('the path of a request must begin with "/" and have no white space, ? or #, got %q')
      :format(path))
  end
  local names, query = {}, {}
  for name in pairs(opts.query or {}) do
    names[#names + 1] = tostring(name)
  end
  table.sort(names)
  for i, name in ipairs(names) do
    query[i] = { name, opts.query[name] }
  end
  local spec = { method = method:upper(), path = path, query = query, json = opts.json, opts = opts }
  return (client.new(opts):request(spec))
end

return namespace.statics("Box", Box)
