--- `lbox.Box`: making, finding, deleting boxes.
local client = require "lbox.client"
local create = require "lbox.create"
local errors = require "lbox.errors"
local json = require "lbox.json"
local namespace = require "lbox.namespace"
local object = require "lbox.box_object"
local options = require "lbox.options"
local url = require "lbox.url"

---@class lbox.GetOptions: lbox.ConnectionOptions, lbox.ReadOptions
---@field git_token string|nil
local GET_OPTIONS = client.static_options { git_token = "string" }
local LIST_OPTIONS = client.static_options { label = "string" }
local DELETE_BOXES_OPTIONS = client.static_options { box_ids = "any" }
GET_OPTIONS.extra, LIST_OPTIONS.extra = nil, nil -- no JSON body to merge into

local Box = { create = create.box }

--- A box that is there, by its id. Raises `api` 404 when it is not.
---@param id string
---@param opts lbox.GetOptions|nil
---@return lbox.Box
function Box.get(id, opts)
  opts = options.call(opts, GET_OPTIONS, "Box.get")
  local path = "/v2/box/" .. url.segment(id, "the id of a box")
  local connection = client.new(opts)
  return object.new(connection, object.fetch(connection, path, opts, id), opts.git_token)
end

--- A box that is there, by its name. Raises `api` 404 when it is not.
---@param name string
---@param opts lbox.GetOptions|nil
---@return lbox.Box
function Box.get_by_name(name, opts)
  opts = options.call(opts, GET_OPTIONS, "Box.get_by_name")
  local path = "/v2/box/" .. url.segment(name, "the name of a box")
  local connection = client.new(opts)
  return object.new(connection, object.fetch(connection, path, opts), opts.git_token)
end

---@class lbox.ListOptions: lbox.ConnectionOptions, lbox.ReadOptions
---@field label string|nil  only boxes that have it

--- What the server says of every box, or of those with a label: a list of plain tables.
---@param opts lbox.ListOptions|nil
---@return table[]
function Box.list(opts)
  opts = options.call(opts, LIST_OPTIONS, "Box.list")
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
  opts = options.call(opts, DELETE_BOXES_OPTIONS, "Box.delete_boxes")
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
