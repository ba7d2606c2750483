--- Making a box: sending it, waiting until it can be used, and taking it back.
local async = require "lbox.async"
local client = require "lbox.client"
local errors = require "lbox.errors"
local ephemeral = require "lbox.ephemeral_box"
local json = require "lbox.json"
local object = require "lbox.box_object"
local options = require "lbox.options"
local poll = require "lbox.poll"
local settings = require "lbox.box_settings"
local url = require "lbox.url"

local M = {}

--- Looks at a new box until it is no longer `creating`.
local function wait_until_ready(box, deadline)
  if box.status == "creating" then
    poll.wait("box " .. box.id, function()
      object.apply(box, object.fetch(box._link.client, box._link:spec { path = "", deadline = deadline }))
      return box.status ~= "creating"
    end, deadline, { box_id = box.id, retryable = true })
  end
  if box.status == "error" then
    errors.raise("api", ("box %s could not be created: its status is error"):format(box.id),
      { box_id = box.id })
  end
end

--- Deletes a box whose creator was cancelled, also in a cancelled scope; what is left is said to the host.
local function discard(connection, id, ms)
  local ok, err = pcall(async.shield, function()
    connection:send { method = "DELETE", path = "/v2/box/" .. url.segment(id, "the id of a box"), timeout = ms }
  end, ms)
  if not ok and not (errors.is(err, "api") and err.status_code == 404) then
    async.warn(("box %s is left, it could not be deleted: %s"):format(id, tostring(err)))
  end
end

--- Deletes the box of a create request that nobody waits for any more, once it is answered.
local function undo_create(connection, transfer)
  local give_up_at = async.now() + async.CLEAN_UP_MS
  local data, status = client.late_answer(transfer)
  if data and type(data.id) == "string" and data.id:find("%S") then
    discard(connection, data.id, math.max(0, give_up_at - async.now()))
  elseif not status or status < 300 then
    async.warn("a box may be left: nobody waits for its creation, and the server did not answer with its id")
  end
end

---@class lbox.create.How
---@field what string            the call, for errors
---@field ephemeral boolean|nil
---@field snapshot string|nil    the id of what it is made of
---@field undo boolean|nil       deletes the box when its creator is cancelled

---@param opts table|nil
---@param how lbox.create.How
---@return lbox.Box|lbox.EphemeralBox
local function make(opts, how)
  opts = options.call(opts, how.ephemeral and settings.EPHEMERAL_OPTIONS or settings.OPTIONS, how.what)
  local body = settings.body(opts)
  body.ephemeral = how.ephemeral
  body.snapshot_id = how.snapshot and options.nonblank(how.snapshot, "the id of a snapshot")
  local connection = client.new(opts)
  local deadline = connection:deadline(opts.timeout)
  local spec = {
    method = "POST",
    path = how.snapshot and "/v2/box/from-snapshot" or "/v2/box",
    json = body,
    opts = opts,
    deadline = deadline,
    lost = "a box may have been created",
    undo = how.undo and function(transfer) undo_create(connection, transfer) end or nil,
  }
  local data, status = connection:request(spec)
  if type(data.id) ~= "string" or data.id == "" then
    connection:nonsense(spec, status)
  end
  data = json.strip_nulls(data)
  local box = how.ephemeral and ephemeral.new(connection, data)
    or object.new(connection, data, opts.git and opts.git.token)
  local ok, err = pcall(wait_until_ready, box, deadline)
  if not ok then
    if how.undo and errors.is(err, "cancelled") then
      discard(connection, box.id, async.CLEAN_UP_MS)
    end
    error(err, 0)
  end
  return box
end

--- Makes a box and waits until it can be used. Raises `api` when the server refuses or the box fails,
--- `timeout` (with `box_id`) when it is not ready after 300 s. Cancelled, it deletes the box.
---@param opts lbox.CreateOptions|nil
---@return lbox.Box
function M.box(opts)
  return make(opts, { what = "Box.create", undo = true })
end

--- The same with the files, environment and agent of a snapshot. Schedules, init command, public URLs and
--- headers to attach are not part of one.
---@param snapshot_id string
---@param opts lbox.CreateOptions|nil
---@return lbox.Box
function M.from_snapshot(snapshot_id, opts)
  return make(opts, { what = "Box.from_snapshot", snapshot = snapshot_id or "", undo = true })
end

--- Makes a box that the server deletes after `ttl` seconds (at most, and when nil, three days).
---@param opts lbox.EphemeralOptions|nil
---@return lbox.EphemeralBox
function M.ephemeral(opts)
  return make(opts, { what = "EphemeralBox.create", ephemeral = true, undo = true })
end

--- The same with the files and environment of a snapshot.
---@param snapshot_id string
---@param opts lbox.EphemeralOptions|nil
---@return lbox.EphemeralBox
function M.ephemeral_from_snapshot(snapshot_id, opts)
  return make(opts, {
    what = "EphemeralBox.from_snapshot", ephemeral = true, snapshot = snapshot_id or "", undo = true,
  })
end

--- Makes any of them for `lbox.with_box`.
---@param opts table
---@param kind { ephemeral: boolean|nil, snapshot: string|nil }
---@param undo boolean  deletes the box when its creator is cancelled; else the caller does, whatever happens
---@return lbox.Box|lbox.EphemeralBox
function M.any(opts, kind, undo)
  return make(opts, { what = "with_box", ephemeral = kind.ephemeral or nil, snapshot = kind.snapshot, undo = undo })
end

return M
