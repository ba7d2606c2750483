--- Webhooks of runs, single ones and those of schedules: who is told when one has ended. What is to be told is kept
--- until it has arrived or was given up, so that a server that ends meanwhile tells it at its next start.
local async = require "lbox.async"
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local json = require "lbox.json"
local webhook = require "lbox.server.webhook"

local M = {}

--- Raises 400 unless it is the webhook of a run.
---@param hook table|nil
function M.check(hook)
  if type(hook) ~= "table" then
    errors.raise("api", "the field \"webhook\" must be { url, headers }; without one, use run/stream",
      { status_code = 400 })
  end
  fields.check(hook, { url = "string!", headers = "object" })
  webhook.check(hook.url, hook.headers, "webhook.")
end

--- Keeps who is to be told of a run that begins.
---@param server table
---@param run lbox.server.Run
---@param hook { url: string, headers: table<string, string>|nil }
---@param schedule_id string|nil
function M.keep(server, run, hook, schedule_id)
  server.store:write("INSERT INTO webhooks (run_id, box_id, url, headers, schedule_id) VALUES (?, ?, ?, ?, ?)", run.id,
    run.box_id, hook.url, json.encode(hook.headers or {}), schedule_id)
end

--- Keeps why a run has failed, of which its record says only that.
---@param server table
---@param run_id string
---@param failure string
function M.keep_failure(server, run_id, failure)
  server.store:write("UPDATE webhooks SET failure = ? WHERE run_id = ?", failure, run_id)
end

--- What is told of a run that has ended (box-api.md §4.9); when its record is gone, so is the box.
local function payload(server, row)
  local record = server.store:run(row.box_id, row.run_id) or { error_message = "the box was deleted" }
  local completed = record.status == "completed"
  return { box_id = row.box_id, run_id = row.run_id, schedule_id = row.schedule_id,
    status = completed and "completed" or "failed", output = record.output, metadata = {},
    error = not completed and (record.error_message or row.failure or "the run did not complete") or nil }
end

local function tell(server, row)
  local why = webhook.post(row.url, json.decode(row.headers), payload(server, row))
  if why then
    server.log(("run %s: %s"):format(row.run_id, why))
  end
  server.store:write("DELETE FROM webhooks WHERE run_id = ?", row.run_id)
end

--- Tells of runs that have ended: of one, or, at the start of a server, of all that were not told of.
---@param server table
---@param run_id string|nil
function M.tell(server, run_id)
  for _, row in ipairs(server.store:rows("SELECT * FROM webhooks WHERE run_id = ? OR ? IS NULL", run_id, run_id)) do
    server.scope:spawn(function()
      local ok, err = pcall(tell, server, row)
      if not ok and not errors.is(err, "cancelled") then
        server.log(("run %s: %s"):format(row.run_id, async.describe(err)))
      end
    end)
  end
end

--- Whether anybody is still to be told.
---@return boolean
function M.busy(server)
  return #server.store:rows("SELECT 1 FROM webhooks LIMIT 1") > 0
end

return M
