--- A box that ends by itself, and can do less than others: what `lbox.EphemeralBox` makes.
local errors = require "lbox.errors"
local exec = require "lbox.exec"
local files = require "lbox.files"
local namespace = require "lbox.namespace"
local object = require "lbox.box_object"
local schedule = require "lbox.schedule"

local M = {}

---@class lbox.EphemeralBox
---@field id string
---@field name string|nil
---@field size string
---@field labels string[]
---@field status string
---@field expires_at integer  Unix seconds
---@field cwd string
---@field network_policy lbox.NetworkPolicy
---@field exec lbox.BoxExec
---@field files lbox.BoxFiles
---@field schedule lbox.BoxSchedule

local NAMESPACES = { exec = exec.new, files = files.new, schedule = schedule.new }

local methods = {}
for _, name in ipairs { "cd", "get_status", "refresh", "snapshot", "list_snapshots", "delete_snapshot", "delete",
  "close" } do
  methods[name] = object.methods[name]
end

-- Fields of a box that this one does not have.
local LACKS = { keep_alive = true, model_config = true }

--- Says of what only other boxes have that this one does not have it.
local function lacking(_, key)
  if LACKS[key] or object.methods[key] or (object.NAMESPACES[key] and not NAMESPACES[key] and key ~= "labels") then
    errors.raise("usage", "an ephemeral box has no " .. key)
  end
end

local metatable = object.complete(namespace.metatable("box", methods, lacking), "EphemeralBox")

local function take(self, data)
  self.labels = data.labels or {}
end

--- The object for an ephemeral box that is there.
---@param connection lbox.Client
---@param data table
---@return lbox.EphemeralBox
function M.new(connection, data)
  return object.build(metatable, connection, data, NAMESPACES, take)
end

return M
