--- Runs: every command and every agent run is one, recorded when it begins and when it ends.
local async = require "lbox.async"
local core = require "lbox.core"
local ids = require "lbox.server.ids"

-- How much an agent says is kept, give or take an event.
local MAX_OUTPUT = 1024 * 1024
-- Of a prompt or command that a box's logs have, in bytes.
local MAX_TOLD = 200
-- How long after a failure an end is recorded again.
local RETRY_MS = 1000

---@class lbox.server.Run
---@field cancelled boolean|nil
---@field abandoned string|nil  why it has failed, when that was not its own doing
---@field output_kept lbox.server.Output|nil  what a command wrote, when its record has it
local Run = {}
Run.__index = Run

--- A header of streamed answers: the id of the run, which the stream of a command does not tell.
Run.HEADER = "X-Lbox-Run-Id"

-- By whom a run is, in the logs of its box.
local SOURCES = { agent = "agent", shell = "user" }

local function tell(run, level, what)
  run.server.logs:add(run.box_id, level, ("run %s %s"):format(run.id, what), SOURCES[run.type])
end

--- The beginning of a text.
local function cut(text)
  return #text <= MAX_TOLD and text or core.utf8_repair(text:sub(1, MAX_TOLD):gsub("[\x80-\xbf\xc0-\xff]*$", "")) .. "…"
end

--- Records a run that begins.
---@param server table
---@param row table  the box
---@param fields { type: "agent"|"shell", prompt: string, model: string|nil, schedule_id: string|nil }
function Run.begin(server, row, fields)
  local run = setmetatable({ id = ids.run(), box_id = row.id, server = server, row = row, type = fields.type,
    prompt = fields.prompt, model = fields.model, schedule_id = fields.schedule_id,
    created_at = os.time(), began = async.now() }, Run)
  server.store:add_run(run)
  local live = server.boxes:live_state(row.id)
  live.runs = live.runs or {}
  live.runs[run.id] = run
  tell(run, "info", "began: " .. cut(run.prompt or ""))
  return run
end

--- Records the end, again and again when the disk is full: a run that has ended must not be left
--- running.
local function record_later(run, fields)
  async.at(async.now() + RETRY_MS, function()
    if run.server.store.closed or pcall(run.server.store.end_run, run.server.store, fields) then
      return
    end
    record_later(run, fields)
  end)
end

--- Records the end. `fields` are columns of the store; `status` is one of them. Raises when it cannot be
--- recorded now; then, since nobody is told of it, the run has failed for that, and this is recorded as
--- soon as it can be.
function Run:finish(fields)
  if self.ended then
    return
  end
  self.ended = true
  fields.id = self.id
  fields.duration_ms = math.floor(async.now() - self.began)
  if self.cancelled and fields.status ~= "completed" then
    fields.status = "cancelled"
  elseif self.abandoned and fields.status ~= "completed" then
    fields.status, fields.error_message = "failed", self.abandoned
  end
  local live = self.server.boxes.live[self.box_id]
  if live and live.runs then
    live.runs[self.id] = nil
  end
  local ok, err = pcall(self.server.store.end_run, self.server.store, fields)
  if not ok then
    record_later(self, { id = self.id, status = "failed", error_message = tostring(err), cpu_ns = fields.cpu_ns,
      duration_ms = fields.duration_ms, memory_peak_bytes = fields.memory_peak_bytes })
    error(err, 0)
  end
  local why = fields.status == "failed" and fields.error_message
  tell(self, fields.status == "failed" and "error" or "info", fields.status .. (why and ": " .. cut(why) or ""))
end

--- Stops the run, whose status is then `cancelled`.
function Run:cancel()
  if self.ended or self.cancelled then
    return
  end
  self.cancelled = true
  self:stop()
end

--- Stops the run, which has failed for that.
---@param why string
function Run:abandon(why)
  if not self.ended and not self.cancelled then
    self.abandoned = why
    self:stop()
  end
end

--- Kills the run's process and everything it started, and no longer waits for a client that is slow to
--- read.
function Run:stop()
  if self.process then
    pcall(self.process.kill, self.process)
  end
  if self.writer then
    self.writer:hurry()
  end
end

local function wire(row)
  local out = {}
  for key, value in pairs(row) do
    if key ~= "number" then
      out[key] = value
    end
  end
  out.customer_id = "local"
  out.compute_cost_usd = 0
  return out
end

--- A run's row as the wire has it (box-api.md §1.4).
Run.wire = wire

--- Text that JSON can carry: bytes that are not UTF-8 become U+FFFD.
Run.text = core.utf8_repair

--- What an agent says, as much of it as the record keeps.
---@class lbox.server.Output
local Output = {}
Output.__index = Output

---@return lbox.server.Output
function Run.output()
  return setmetatable({ kept = 0, lost = 0 }, Output)
end

function Output:add(text)
  if text == "" then
    return
  elseif self.kept < MAX_OUTPUT then
    self.kept = self.kept + #text
    self[#self + 1] = text
  else
    self.lost = self.lost + #text
  end
end

function Output:text()
  local text = table.concat(self)
  return self.lost == 0 and text or ("%s\n[%d more bytes were not kept]"):format(text, self.lost)
end

return Run
