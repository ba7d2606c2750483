--- An agent run from its harness's first word to its record. What the harness says goes to the client as
--- it comes; how it ended is told when the harness has ended, for only then is it known.
local agent_ask = require "lbox.server.agent_ask"
local agent_sessions = require "lbox.server.agent_sessions"
local errors = require "lbox.errors"
local failures = require "lbox.failure"
local json = require "lbox.json"
local runs = require "lbox.server.runs"

local M = {}

-- Of the server itself; a harness does not say them.
local OURS = { run_start = true, stats = true }
-- What a harness says last.
local LAST = { done = true, error = true }
local MAX_COUNT = 2 ^ 53
-- What the agent answers with --session. It becomes an argument of the next run.
local MAX_SESSION = 256

M.command = agent_ask.command

---@class lbox.server.AgentRun
---@field last { name: "done"|"error", data: table, text: string }|nil  how the harness says it ended
local AgentRun = {}
AgentRun.__index = AgentRun

--- Something the harness says. What it says after its last word is dropped.
function AgentRun:event(name, data, text)
  text = text or json.encode(data)
  if self.last or OURS[name] then
    return
  elseif LAST[name] then
    self.last = { name = name, data = data, text = text }
    return
  elseif name == "text" and type(data.text) == "string" then
    self.output:add(data.text)
  end
  self.send(name, text)
end

--- A session the next run can be given as an argument: nil when there is none, or none that can.
local function session_id(value)
  return type(value) == "string" and #value <= MAX_SESSION and value:match("^[^%-%c\128-\255][^%c\128-\255]*$")
    or nil
end

--- What a harness says it used, as far as it can be true.
local function count(value)
  return type(value) == "number" and value >= 0 and value < MAX_COUNT and value or 0
end

--- The columns of the record that the harness's last word fills.
local function usage(data)
  local function number(name)
    return count(data[name])
  end
  return {
    session_id = session_id(data.session_id),
    input_tokens = math.floor(number("input_tokens")),
    output_tokens = math.floor(number("output_tokens")),
    cached_input_tokens = data.cached_input_tokens and math.floor(number("cached_input_tokens")),
    cost_usd = number("total_cost_usd"),
  }
end

local function tail(last_line)
  return last_line and ": " .. runs.text(last_line) or ""
end

--- Why the run failed; nil when it did not.
---@param result table  of the process
---@param last_line string|nil  of what it wrote to stderr
function AgentRun:failure(result, last_line)
  local last = self.last
  if self.run.cancelled then
    return "the run was cancelled"
  elseif self.run.abandoned and result.exit_code ~= 0 then
    return self.run.abandoned
  elseif self.run.timed_out then
    return ("the run timed out after %.14g ms"):format(self.run.timed_out)
  elseif result.stopped then
    return "the box was stopped"
  elseif result.not_started then
    return "the harness cannot be started: " .. self.run.process:refusal()
  elseif last and last.name == "error" then
    return type(last.data.error) == "string" and last.data.error or "the agent reported an error without words"
  elseif not last then
    return ("the harness ended with exit code %d without saying that it was done%s"):format(result.exit_code,
      tail(last_line))
  elseif last.data.output ~= nil and last.data.output ~= json.null and type(last.data.output) ~= "string" then
    return ("the output of the harness's done must be a string, not a %s"):format(type(last.data.output))
  elseif result.exit_code ~= 0 then
    return ("the harness said that it was done and then ended with exit code %d%s"):format(result.exit_code,
      tail(last_line))
  end
end

--- Runs the harness in its box to its end. Returns why it failed.
local function execute(self, server, row, command)
  local ok, err = pcall(server.boxes.working, server.boxes, row, function(box)
    for _, file in ipairs(command.files or {}) do
      box:write_file(file.path, file.bytes)
    end
    local process = box:spawn(command)
    self.run.process = process
    if self.run.cancelled or self.run.abandoned then
      process:kill()
    end
    local read, last_line, skipped = pcall(command.harness.read, process, function(...)
      self:event(...)
    end, command)
    if not read then
      pcall(process.kill, process)
      process:close()
      error(last_line, 0)
    elseif skipped and skipped > 0 then
      server.log(("run %s: %d lines of the harness are no JSON"):format(self.run.id, skipped))
    end
    return last_line
  end)
  if ok then
    local failure = self:failure(self.run.process.result, err)
    return failure and failures.redact(failure, command.secrets)
  elseif errors.is(err) then
    return err.message
  end
  error(err, 0)
end

--- The session for the next run. One that the harness no longer finds is forgotten: the next run begins a new one.
local function keep_session(server, row, run, command, record, given, failure)
  local lost = command.harness.lost_session
  if not failure and record.session_id then
    agent_sessions.keep(server, row, command.harness, command.cwd, record.session_id)
  elseif failure and lost and failure:find(lost, 1, true) then
    agent_sessions.forget(server, row, command.cwd)
  elseif given and not record.session_id then
    server.log(("run %s: the harness's session_id is not taken: 1 to %d printable ASCII characters"):format(
      run.id, MAX_SESSION))
  end
end

--- Runs an agent to its end and records it. `send(event, json)` hears of everything; it does not raise.
---@param server table
---@param row table  the box
---@param run lbox.server.Run
---@param command table
---@param send fun(event: string, json: string)
function M.execute(server, row, run, command, send)
  local self = setmetatable({ run = run, send = send, output = runs.output() }, AgentRun)
  local failure = execute(self, server, row, command)
  local data = self.last and self.last.data or {}
  local result = run.process and run.process.result or {}
  local record = usage(data)
  record.status = failure and "failed" or "completed"
  record.error_message = failure
  record.output = self.output:text()
  if not failure and type(data.output) == "string" and data.output ~= "" then
    record.output = data.output
  end
  record.cpu_ns, record.memory_peak_bytes = result.cpu_ns, result.memory_peak_bytes
  -- Recorded before it is told.
  run:finish(record)
  keep_session(server, row, run, command, record, data.session_id, failure)
  if not failure or (self.last and self.last.name == "error" and failure == data.error) then
    send(self.last.name, self.last.text)
  else
    send("error", json.encode { error = failure })
  end
  if result.cpu_ns then
    send("stats", json.encode { cpu_ns = result.cpu_ns, memory_peak_bytes = result.memory_peak_bytes })
  end
end

return M
