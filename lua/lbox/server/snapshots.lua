--- Snapshots: copies of boxes' files, with what a box made of one begins with. They do not depend on the
--- box they were taken of, nor do boxes made of them depend on them.
local async = require "lbox.async"
local errors = require "lbox.errors"
local ids = require "lbox.server.ids"
local Job = require "lbox.server.job"
local json = require "lbox.json"
local sandbox = require "lbox.server.sandbox"
local Trees = require "lbox.server.trees"

-- Whoever takes one is told at once that it is ready when it is by then.
local SOON_MS = 1000
-- How long until one tries again to note what the database did not take.
local NOTE_MS = 500

-- Of a box's settings, what goes into a snapshot. The name, labels, init command, network and time to live
-- are a box's own.
local CARRIED = { "agent", "custom_runner", "env_vars", "git_user_email", "git_user_name", "mcp_servers", "model",
  "runtime", "size", "skills" }

---@class lbox.server.Snapshots
---@field uses table<string, integer>        how many boxes are just made of one
---@field jobs table<string, lbox.server.Job>  those that are being taken
local Snapshots = {}
Snapshots.__index = Snapshots

---@param server table  data, store, scope, log, boxes
---@return lbox.server.Snapshots
function Snapshots.new(server)
  return setmetatable({ server = server, store = server.store, uses = {}, jobs = {},
    trees = Trees.new(server, server.data.snapshots, "snapshot") }, Snapshots)
end

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

local COLUMNS = "SELECT * FROM snapshots "

local function decoded(rows)
  for _, row in ipairs(rows) do
    row.config = json.decode(row.config)
  end
  return rows
end

--- The snapshot of this id; raises 404.
---@param id string
---@param box_id string|nil  of this box
function Snapshots:get(id, box_id)
  local snapshot = decoded(self.store:rows(COLUMNS .. "WHERE id = ?", id))[1]
  if not snapshot or (box_id and snapshot.box_id ~= box_id) then
    refuse(404, ("snapshot %q not found"):format(id))
  end
  return snapshot
end

--- All of them, or those of a box, newest first.
---@param box_id string|nil
function Snapshots:list(box_id)
  if box_id then
    return decoded(self.store:rows(COLUMNS .. "WHERE box_id = ? ORDER BY number DESC", box_id))
  end
  return decoded(self.store:rows(COLUMNS .. "ORDER BY number DESC"))
end

-- ------------------------------------------------------------------------------------------ taking

local function carried(config)
  local out = {}
  for _, name in ipairs(CARRIED) do
    out[name] = config[name]
  end
  return out
end

local function record(self, snapshot)
  self.store:write("UPDATE snapshots SET status = ?, size_bytes = ? WHERE id = ?", snapshot.status,
    snapshot.size_bytes, snapshot.id)
end

--- Copies the box's files.
local function fill(self, row, snapshot, root)
  local copying = self.server.boxes:still(row, function(from)
    return self.server.limits:while_room(function()
      return sandbox.copy_root(from, root, snapshot.uid, self.server.data.bin)
    end)
  end)
  local waited, copied, size = pcall(copying.wait, copying)
  if not waited then
    copying:cancel("the snapshot is deleted")
    pcall(async.shield, function() copying:wait() end)
    error(copied, 0)
  elseif not copied then
    error(size, 0)
  end
  self.trees:keep(snapshot.id)
  snapshot.status, snapshot.size_bytes = "ready", size
  record(self, snapshot)
end

local function failed(self, snapshot, err)
  self.server.log(("the snapshot %s of the box %s failed: %s"):format(snapshot.id, snapshot.box_id,
    errors.is(err) and err.message or tostring(err)))
  snapshot.status, snapshot.size_bytes = "error", 0
  local noted = pcall(record, self, snapshot)
  pcall(self.trees.discard, self.trees, snapshot.id)
  self.trees:remove(snapshot.id)
  self.trees:abandon(snapshot.id)
  -- On a disk that is full, not before there is room again.
  while not noted do
    async.sleep(NOTE_MS)
    noted = pcall(record, self, snapshot)
  end
end

--- Takes a snapshot of a box: one that is `creating`, or how it went when that is known soon.
---@param row table  the box
---@param name string
---@return table snapshot
function Snapshots:take(row, name)
  self.server.limits:check_room()
  local snapshot = { id = ids.snapshot(), box_id = row.id, name = name, status = "creating", size_bytes = 0,
    uid = row.uid, config = carried(row.config), created_at = os.time() }
  local ok, root = pcall(function()
    local root = self.trees:begin(snapshot.id, snapshot.uid)
    self.store:write("INSERT INTO snapshots (id, box_id, name, status, uid, config, created_at) "
      .. "VALUES (?, ?, ?, ?, ?, ?, ?)", snapshot.id, snapshot.box_id, snapshot.name, snapshot.status,
      snapshot.uid, json.encode(snapshot.config), snapshot.created_at)
    return root
  end)
  if not ok then
    self.trees:abandon(snapshot.id)
    error(root, 0)
  end
  local job = Job.start(self.server, function() fill(self, row, snapshot, root) end, function(well, err)
    self.jobs[snapshot.id] = nil
    if not well then
      failed(self, snapshot, err)
    end
  end)
  self.jobs[snapshot.id] = job
  local soon, err = pcall(async.timeout, SOON_MS, job.wait, job)
  if not soon and not errors.is(err, "timeout") then
    error(err, 0)
  end
  return snapshot
end

-- ----------------------------------------------------------------------------------------- leaving

--- Deletes a snapshot. Boxes that are just made of it are made, and its files are there until then.
function Snapshots:delete(snapshot)
  local id = snapshot.id
  local job = self.jobs[id]
  if job then
    job:cancel("the snapshot is deleted")
    job:wait()
  end
  self.trees:discard(id)
  self.store:write("DELETE FROM snapshots WHERE id = ?", id)
  if not self.uses[id] then
    self.trees:remove(id)
  end
end

--- What fills the root of a box made of a snapshot, for Boxes:create. It must be called.
---@param snapshot table
---@return fun(root: string, uid: integer|nil)
function Snapshots:filler(snapshot)
  local id, uses = snapshot.id, self.uses
  if snapshot.status ~= "ready" then
    refuse(409, ("snapshot %q is not ready: its status is %q"):format(id, snapshot.status))
  end
  return function(root, uid)
    uses[id] = (uses[id] or 0) + 1
    local ok, err = pcall(self.server.limits.while_room, self.server.limits, function()
      return sandbox.copy_root(self.trees:root(id), root, uid, self.server.data.bin)
    end)
    uses[id] = uses[id] > 1 and uses[id] - 1 or nil
    if not uses[id] and not self.store:rows(COLUMNS .. "WHERE id = ?", id)[1] then
      self.trees:remove(id)
    end
    if not ok then
      error(err, 0)
    end
  end
end

--- Puts in order what a killed server left behind: what was not ready never will be.
function Snapshots:sweep()
  local known = {}
  for _, snapshot in ipairs(self:list()) do
    local id, there = snapshot.id, self.trees:has(snapshot.id)
    known[id] = true
    if snapshot.status == "creating" or (snapshot.status == "ready" and not there and not self.trees:has_rest(id))
    then
      snapshot.status, snapshot.size_bytes = "error", 0
      record(self, snapshot)
      self.trees:discard(id) -- and below it is rubbish like any other: two removals would be in each other's way
    elseif snapshot.status == "ready" and not there then
      self.store:write("DELETE FROM snapshots WHERE id = ?", id)
    end
  end
  self.trees:sweep(function(id) return known[id] end)
end

--- A snapshot as the wire has it (box-api.md §1.4).
function Snapshots.describe(snapshot)
  return { id = snapshot.id, name = snapshot.name, box_id = snapshot.box_id, size_bytes = snapshot.size_bytes,
    status = snapshot.status, created_at = snapshot.created_at }
end

return Snapshots
