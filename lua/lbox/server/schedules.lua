--- Schedules: what is due when, on the server's clock, and what came of it. A run that was due while the
--- server was down, or the machine asleep, is skipped, and so is one whose predecessor still runs.
local agent_run = require "lbox.server.agent_run"
local async = require "lbox.async"
local cron = require "lbox.server.cron"
local errors = require "lbox.errors"
local ids = require "lbox.server.ids"
local json = require "lbox.json"
local run_webhooks = require "lbox.server.run_webhooks"
local runs = require "lbox.server.runs"
local shell_run = require "lbox.server.shell_run"

local M = {}

-- A run that is later than this is skipped.
local LATE_S = 60
-- How long one sleeps at most: the clock may have been set.
local LOOK_MS = 30000
-- After a failure (a full disk) what is due is looked at again.
local RETRY_MS = 1000
-- Missed runs are counted so far.
local MAX_COUNTED = 1000

---@class lbox.server.Schedules
---@field running table<string, true>  ids of schedules of which a run goes on
local Schedules = {}
Schedules.__index = Schedules

local function decode(row)
  if row then
    row.settings = json.decode(row.settings)
  end
  return row
end

local function query(self, where, ...)
  local rows = self.server.store:rows("SELECT * FROM schedules " .. where, ...)
  for _, row in ipairs(rows) do
    decode(row)
  end
  return rows
end

local function update(self, id, sets, ...)
  local values = table.pack(...)
  values.n = values.n + 1
  values[values.n] = id
  self.server.store:write("UPDATE schedules SET " .. sets .. " WHERE id = ?", table.unpack(values, 1, values.n))
end

local function next_time(settings, after)
  return cron.next(assert(cron.parse(settings.cron)), after)
end

-- ------------------------------------------------------------------------------------ a run

--- What the record of a run says it does.
local function prompt_of(settings)
  return settings.prompt or runs.text(table.concat(settings.command, " "))
end

local function type_of(settings)
  return settings.type == "exec" and "shell" or "agent"
end

local KINDS = {}

--- Runs the command. Returns why it failed, where its record does not say that.
function KINDS.exec(self, box, settings, run)
  local command = shell_run.command(self.server, box, { command = settings.command, folder = settings.folder })
  command.merge = true
  run.output_kept = runs.output()
  local _, exit_code = shell_run.execute(self.server, box, command, function(process)
    for _, bytes in process.read, process do
      run.output_kept:add(bytes)
    end
  end, run)
  if exit_code ~= 0 then
    local early = shell_run.ended_early(run, command)
    return early ~= "" and early:gsub("\n$", "") or ("the command ended with exit code %d"):format(exit_code)
  end
end

function KINDS.prompt(self, box, settings, run)
  local command = agent_run.command(self.server, box, { prompt = settings.prompt, folder = settings.folder,
    agent_options = settings.agent_options }, settings.model)
  local timer = settings.timeout and async.at(async.now() + settings.timeout, function()
    run.timed_out = settings.timeout
    run:stop()
  end)
  local ok, err = pcall(agent_run.execute, self.server, box, run, command, function() end)
  if timer then
    timer:cancel()
  end
  if not ok then
    error(err, 0)
  end
end

--- Notes how a run ended, by its record; when that is gone, so is the box.
local function note(self, row, run_id, failure)
  local record = self.server.store:run(row.box_id, run_id)
  if not record then
    return
  end
  local failed = record.status ~= "completed"
  update(self, row.id, "last_run_status = CASE WHEN last_run_id = ? THEN ? ELSE last_run_status END, "
    .. "total_failures = total_failures + ?", run_id, failed and "failed" or "completed", failed and 1 or 0)
  if failure then
    run_webhooks.keep_failure(self.server, run_id, failure)
  end
end

local function execute(self, row, box, run)
  local ok, err = pcall(KINDS[row.settings.type], self, box, row.settings, run)
  self.running[row.id] = nil
  if self.server.stopped then
    return -- the next start says what became of it
  elseif not ok then
    if not errors.is(err) then
      self.server.log(("schedule %s: %s"):format(row.id, async.describe(err)))
    end
    pcall(run.finish, run, { status = "failed", error_message = errors.is(err) and err.message or "the server failed" })
  end
  local noted, why = pcall(function()
    note(self, row, run.id, ok and err or nil)
    run_webhooks.tell(self.server, run.id)
  end)
  if not noted then
    self.server.log(("schedule %s: %s"):format(row.id, tostring(why)))
  end
end

local function start(self, row, now, next_at)
  local found, box = pcall(self.server.boxes.get, self.server.boxes, row.box_id)
  if not found then
    return -- it is being deleted
  end
  local settings = row.settings
  local run
  local ok, err = pcall(self.server.store.transaction, self.server.store, function()
    run = runs.begin(self.server, box, { type = type_of(settings), prompt = prompt_of(settings),
      model = settings.type == "prompt" and (settings.model or box.config.model) or nil, schedule_id = row.id })
    update(self, row.id, "next_at = ?, last_run_at = ?, last_run_id = ?, last_run_status = NULL, "
      .. "total_runs = total_runs + 1", next_at, now, run.id)
    if settings.webhook_url then
      run_webhooks.keep(self.server, run, { url = settings.webhook_url, headers = settings.webhook_headers }, row.id)
    end
  end)
  if not ok then
    if run then
      pcall(run.finish, run, { status = "failed" }) -- which has no record
    end
    error(err, 0)
  end
  self.running[row.id] = true
  self.server.scope:spawn(function() execute(self, row, box, run) end)
end

--- Records that a run did not take place.
local function skip(self, row, now, next_at, why)
  local id = ids.run()
  local store = self.server.store
  store:transaction(function()
    store:add_run { id = id, box_id = row.box_id, type = type_of(row.settings), prompt = prompt_of(row.settings),
      schedule_id = row.id, created_at = now }
    store:end_run { id = id, status = "skipped", error_message = why }
    update(self, row.id, "next_at = ?, last_run_at = ?, last_run_id = ?, last_run_status = 'skipped'", next_at, now,
      id)
  end)
end

-- ------------------------------------------------------------------------------------ the clock

--- How many times were due from `at` to `now`, in words.
local function missed(settings, at, now)
  local parsed, count = cron.parse(settings.cron), 0
  while at and at <= now and count <= MAX_COUNTED do
    count, at = count + 1, cron.next(parsed, at)
  end
  local number = count > MAX_COUNTED and "more than " .. MAX_COUNTED or tostring(count)
  return ("%s %s missed: the server was down, or the machine asleep"):format(number, count == 1 and "run was"
    or "runs were")
end

local function due(self, row, now, late)
  local next_at = next_time(row.settings, now)
  if now - row.next_at > late then
    skip(self, row, now, next_at, missed(row.settings, row.next_at, now))
  elseif self.running[row.id] then
    skip(self, row, now, next_at, "the previous run of the schedule was still going")
  else
    start(self, row, now, next_at)
  end
end

--- The clock may have been set back: what was due far ahead by the old one has a time by this one.
local function set_back(self, now)
  for _, row in ipairs(query(self, "WHERE status = 'active'")) do
    update(self, row.id, "next_at = min(next_at, ?)", next_time(row.settings, now))
  end
end

--- Deals with what is due. `late`: seconds after which it is not run any more.
local function turn(self, late)
  local now = os.time()
  if not self.looked_at or now < self.looked_at - LATE_S then
    set_back(self, now)
  end
  self.looked_at = now
  for _, row in ipairs(query(self, "WHERE status = 'active' AND next_at <= ? ORDER BY next_at, number", now)) do
    due(self, row, now, late)
  end
end

--- Milliseconds until something is due, or one should look anyway.
local function pause(self)
  local row = self.server.store:rows("SELECT min(next_at) AS at FROM schedules WHERE status = 'active'")[1]
  return row and row.at and math.max(0, math.min(LOOK_MS, (row.at - os.time()) * 1000)) or LOOK_MS
end

local function wait(self, ms)
  self.changed = async.op()
  local ok, err = pcall(async.timeout, ms, async.wait, self.changed)
  if not ok and not errors.is(err, "timeout") then
    error(err, 0)
  end
end

local function keep_time(self)
  while not self.server.stopping do
    local ok, ms = pcall(function()
      turn(self, LATE_S)
      return pause(self)
    end)
    if not ok then
      self.server.log("schedules: " .. tostring(ms))
    end
    wait(self, ok and ms or RETRY_MS)
  end
end

--- Runs that were going when the server ended have failed; who is to be told of them is with all others.
local function settle(self)
  for _, row in ipairs(query(self, "WHERE last_run_id IS NOT NULL AND last_run_status IS NULL")) do
    note(self, row, row.last_run_id)
  end
end

--- The schedules of a server, which run from now on.
---@param server table  boxes, store, scope, log
---@return lbox.server.Schedules
function M.new(server)
  local self = setmetatable({ server = server, running = {} }, Schedules)
  local ok, err = pcall(function()
    settle(self)
    turn(self, -1) -- all that is due by now was due before
  end)
  if not ok then
    server.log("schedules: " .. tostring(err))
  end
  server.scope:spawn(function() keep_time(self) end)
  return self
end

--- Looks at the times again: one of them has changed.
local function touch(self)
  if self.changed then
    self.changed:resolve()
  end
end

-- ------------------------------------------------------------------------------ what is asked for

--- A schedule as the wire has it (box-api.md §1.9).
---@param row table
---@return table
function M.wire(row)
  local out = { id = row.id, box_id = row.box_id, customer_id = "local", status = row.status,
    last_run_at = row.last_run_at, last_run_id = row.last_run_id, last_run_status = row.last_run_status,
    total_runs = row.total_runs, total_failures = row.total_failures, created_at = row.created_at,
    updated_at = row.updated_at }
  for name, value in pairs(row.settings) do
    out[name] = value
  end
  return out
end

--- Those of a box, the oldest first.
---@param box_id string
---@return table[] rows
function Schedules:list(box_id)
  return query(self, "WHERE box_id = ? ORDER BY number", box_id)
end

--- One of a box's; raises 404.
---@return table row
function Schedules:get(box_id, id)
  local row = query(self, "WHERE box_id = ? AND id = ?", box_id, id)[1]
  if not row then
    errors.raise("api", ("schedule %q not found"):format(id), { status_code = 404 })
  end
  return row
end

--- Makes one of checked settings.
---@return table row
function Schedules:create(box_id, settings)
  local id, now = ids.schedule(), os.time()
  self.server.store:write("INSERT INTO schedules (id, box_id, settings, status, next_at, created_at, updated_at) "
    .. "VALUES (?, ?, ?, 'active', ?, ?, ?)", id, box_id, json.encode(settings), next_time(settings, now), now, now)
  touch(self)
  return self:get(box_id, id)
end

--- Gives one other settings. Its next time stays, unless it has another cron.
---@return table row
function Schedules:change(row, settings)
  local next_at = row.next_at
  if next_at and settings.cron ~= row.settings.cron then
    next_at = next_time(settings, os.time())
  end
  update(self, row.id, "settings = ?, next_at = ?, updated_at = ?", json.encode(settings), next_at, os.time())
  touch(self)
  return self:get(row.box_id, row.id)
end

--- Holds one, or lets it go on.
---@param active boolean
function Schedules:set_active(row, active)
  if active ~= (row.status == "active") then
    update(self, row.id, "status = ?, next_at = ?, updated_at = ?", active and "active" or "paused",
      active and next_time(row.settings, os.time()) or nil, os.time())
    touch(self)
  end
end

--- Ends one for good; a run of it that is going goes on.
function Schedules:delete(row)
  self.server.store:write("DELETE FROM schedules WHERE id = ?", row.id)
end

--- Whether any is active.
---@return boolean
function Schedules:busy()
  return #self.server.store:rows("SELECT 1 FROM schedules WHERE status = 'active' LIMIT 1") > 0
end

return M
