--- Runs: every command and every agent run is one, recorded when it begins and when it ends.
local async = require "lbox.async"
local core = require "lbox.core"
local ids = require "lbox.server.ids"

---@class lbox.server.Run
---@field cancelled boolean|nil
local Run = {}
Run.__index = Run

--- A header of streamed answers: the id of the run, which the stream of a command does not tell.
Run.HEADER = "X-Lbox-Run-Id"

--- Records a run that begins.
---@param server table
---@param row table  the box
---@param fields { type: "agent"|"shell", prompt: string, model: string|nil }
function Run.begin(server, row, fields)
  local run = setmetatable({ id = ids.run(), box_id = row.id, server = server, row = row, type = fields.type,
    prompt = fields.prompt, model = fields.model, created_at = os.time(), began = async.now() }, Run)
  server.store:add_run(run)
  local live = server.boxes.live[row.id]
  if live then
    live.runs = live.runs or {}
    live.runs[run.id] = run
  end
  return run
end

--- Records the end. `fields` are columns of the store; `status` is one of them.
function Run:finish(fields)
  if self.ended then
    return
  end
  self.ended = true
  fields.id = self.id
  fields.duration_ms = math.floor(async.now() - self.began)
  if self.cancelled and fields.status ~= "completed" then
    fields.status = "cancelled"
  end
  local live = self.server.boxes.live[self.box_id]
  if live and live.runs then
    live.runs[self.id] = nil
  end
  self.server.store:end_run(fields)
end

--- Stops the run's process and everything it started.
function Run:cancel()
  if self.ended or self.cancelled then
    return
  end
  self.cancelled = true
  if self.process then
    pcall(self.process.kill, self.process)
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
function Run.text(bytes)
  if core.is_utf8(bytes) then
    return bytes
  end
  local out, at = {}, 1
  while at <= #bytes do
    local _, bad = utf8.len(bytes, at)
    if not bad then
      out[#out + 1] = bytes:sub(at)
      break
    end
    out[#out + 1] = bytes:sub(at, bad - 1)
    out[#out + 1] = "\u{FFFD}"
    at = bad + 1
  end
  return table.concat(out)
end

return Run
