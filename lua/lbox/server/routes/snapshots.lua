--- Snapshots of boxes (box-api.md §1.2, §1.4). Boxes are made of them in routes/account.lua.
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"

local MAX_NAME = 200

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

local function take(server, request, params)
  local row = server.boxes:get(params.id)
  local name = fields.check(request:json(), { name = "string!" }).name
  if #name > MAX_NAME or name:find("%c") or not name:find("%S") then
    refuse(400, ("the name of a snapshot has 1 to %d characters, not all of them blanks"):format(MAX_NAME))
  elseif row.status == "error" then
    refuse(409, ("the box %q could not be made: there is nothing to take a snapshot of"):format(row.id))
  end
  request:answer(200, server.snapshots.describe(server.snapshots:take(row, name)))
end

local function answer_list(server, request, snapshots)
  request:answer_list(200, "snapshots", snapshots, server.snapshots.describe)
end

local function list(server, request, params)
  answer_list(server, request, server.snapshots:list(server.boxes:get(params.id).id))
end

local function list_all(server, request)
  answer_list(server, request, server.snapshots:list())
end

local function delete(server, request, params)
  server.snapshots:delete(server.snapshots:get(params.snapshot, server.boxes:get(params.id).id))
  request:answer(200, {})
end

--- An empty list could be meant for all or for none; it is for neither.
local function delete_many(server, request)
  local ids = fields.check(request:json(), { ids = "strings" }).ids
  local all = request.query.all == "true"
  if all == (ids ~= nil) or (ids and #ids == 0) then
    refuse(400, "name the snapshots in ids, at least one, or say ?all=true")
  end
  local chosen = {}
  for _, snapshot in ipairs(all and server.snapshots:list() or {}) do
    chosen[snapshot.id] = snapshot
  end
  for _, id in ipairs(ids or {}) do
    chosen[id] = server.snapshots:get(id)
  end
  local deleted = 0
  for _, snapshot in pairs(chosen) do
    server.snapshots:delete(snapshot)
    deleted = deleted + 1
  end
  request:answer(200, { deleted = deleted })
end

return {
  { "GET", "/v2/box/snapshots", list_all },
  { "DELETE", "/v2/box/snapshots", delete_many },
  { "POST", "/v2/box/{id}/snapshots", take },
  { "GET", "/v2/box/{id}/snapshots", list },
  { "DELETE", "/v2/box/{id}/snapshots/{snapshot}", delete },
}
