--- Methods of a box: keeping what it is for other boxes to begin with.
local client = require "lbox.client"
local errors = require "lbox.errors"
local options = require "lbox.options"
local poll = require "lbox.poll"
local url = require "lbox.url"

---@class lbox.SnapshotOptions: lbox.CallOptions
---@field name string

local SNAPSHOT_OPTIONS = client.call_options { name = "text!" }
local READ_OPTIONS = client.read_options {}

---@class lbox.Snapshot
---@field id string
---@field name string
---@field box_id string
---@field size_bytes integer
---@field status "creating"|"ready"|"error"|"deleted"
---@field created_at integer  Unix seconds

---@class lbox.Box
local methods = {}

local function list(self, opts, deadline)
  return self._link:list("snapshots", { path = "/snapshots", opts = opts, deadline = deadline })
end

--- Takes a snapshot of the box's files, environment and agent, and waits until it can be used. Raises `api` when
--- it fails, `timeout` when it is not ready after 300 s.
---@param opts lbox.SnapshotOptions
---@return lbox.Snapshot
function methods:snapshot(opts)
  opts = options.call(opts, SNAPSHOT_OPTIONS, "box:snapshot")
  local link = self._link
  local deadline = link.client:deadline(opts.timeout)
  local snapshot = link:object("id", {
    method = "POST", path = "/snapshots", json = { name = opts.name }, opts = opts, deadline = deadline,
    lost = "a snapshot may have been created",
  })
  local id, listed = snapshot.id, true
  if snapshot.status == "creating" then
    poll.wait("snapshot " .. id, function()
      listed = false
      for _, each in ipairs(list(self, {}, deadline)) do
        if each.id == id then
          snapshot, listed = each, true
        end
      end
      return not listed or snapshot.status ~= "creating"
    end, deadline, { box_id = self.id, retryable = true })
  end
  if not listed or snapshot.status ~= "ready" then
    errors.raise("api", ("snapshot %s of box %s could not be created: %s"):format(id, self.id,
      listed and "its status is " .. tostring(snapshot.status) or "it is not in the list"), { box_id = self.id })
  end
  return snapshot
end

--- The snapshots of the box.
---@param opts lbox.ReadOptions|nil
---@return lbox.Snapshot[]
function methods:list_snapshots(opts)
  return list(self, options.call(opts, READ_OPTIONS, "box:list_snapshots"))
end

--- Deletes one. Boxes made of it stay.
---@param id string
---@param opts lbox.ReadOptions|nil
function methods:delete_snapshot(id, opts)
  opts = options.call(opts, READ_OPTIONS, "box:delete_snapshot")
  self._link:perform { method = "DELETE", path = "/snapshots/" .. url.segment(id, "the id of a snapshot"), opts = opts }
end

return methods
