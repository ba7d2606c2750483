--- `lbox.EphemeralBox`: boxes that the server deletes by itself.
local account = require "lbox.account"
local client = require "lbox.client"
local create = require "lbox.create"
local ephemeral_box = require "lbox.ephemeral_box"
local errors = require "lbox.errors"
local namespace = require "lbox.namespace"
local object = require "lbox.box_object"
local options = require "lbox.options"
local url = require "lbox.url"

local READ_OPTIONS = client.static_read_options {}

---@class lbox.EphemeralBoxStatics
---@field create fun(opts: lbox.EphemeralOptions|nil): lbox.EphemeralBox
---@field from_snapshot fun(snapshot_id: string, opts: lbox.EphemeralOptions|nil): lbox.EphemeralBox
---@field delete_boxes fun(opts: lbox.DeleteBoxesOptions)
---@field delete_snapshots fun(opts: lbox.DeleteSnapshotsOptions): { deleted: integer }
local EphemeralBox = {
  create = create.ephemeral,
  from_snapshot = create.ephemeral_from_snapshot,
  delete_boxes = account.delete_boxes,
  delete_snapshots = account.delete_snapshots,
}

--- An ephemeral box that is there, by its name. Raises `api` 404 when it is not, `usage` when that box is not an
--- ephemeral one.
---@param name string
---@param opts (lbox.ConnectionOptions|lbox.ReadOptions)|nil
---@return lbox.EphemeralBox
function EphemeralBox.get_by_name(name, opts)
  opts = options.call(opts, READ_OPTIONS, "EphemeralBox.get_by_name")
  local path = "/v2/box/" .. url.segment(name, "the name of a box")
  local connection = client.new(opts)
  local data = object.fetch(connection, { path = path, opts = opts })
  if not data.ephemeral and not data.expires_at then
    errors.raise("usage", ("box %s is not ephemeral: use Box.get_by_name"):format(name), { box_id = data.id })
  end
  return ephemeral_box.new(connection, data)
end

return namespace.statics("EphemeralBox", EphemeralBox)
