--- A command as a run: checked, started in its box, read to its end and recorded.
local async = require "lbox.async"
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local runs = require "lbox.server.runs"

local M = {}

local TIMED_OUT = 124

-- Linux takes no longer word in a command line, and this server no more together.
local MAX_WORD, MAX_COMMAND = 128 * 1024 - 1, 2 * 1024 * 1024

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

--- Raises unless `words` can be the words of a command.
---@param words string[]
function M.check(words)
  if #words == 0 then
    refuse(400, "command must have at least one word")
  end
  local size = 0
  for _, word in ipairs(words) do
    size = size + #word
    if #word > MAX_WORD or size > MAX_COMMAND then
      refuse(413, ("a word of a command has at most %d bytes, all together %d: write it to a file and run that")
        :format(MAX_WORD, MAX_COMMAND))
    end
  end
end

local FIELDS = { command = "strings!", folder = "string" }

--- The command that a request asks for: { command, folder }.
---@param body table
---@return table
function M.command(server, row, body)
  fields.check(body, FIELDS)
  M.check(body.command)
  return { argv = body.command, cwd = server.boxes.folder(body.folder), env = server.boxes.environment(row) }
end

--- Records a command as a run that begins.
---@param schedule_id string|nil  what it is a run of
---@return lbox.server.Run
function M.begin(server, row, words, schedule_id)
  return runs.begin(server, row, { type = "shell", prompt = runs.text(table.concat(words, " ")),
    schedule_id = schedule_id })
end

--- Starts a command as a run; `use(process, run)` reads it. Returns what `use` does, and raises when the
--- command could not be brought to its end.
---@param server table
---@param row table      the box
---@param command table  with `timeout` in ms, if it has one
---@param use fun(process: lbox.server.Process, run: lbox.server.Run): any
---@param run lbox.server.Run|nil  when it has begun already
---@return any result, integer exit_code, lbox.server.Run run
function M.execute(server, row, command, use, run)
  run = run or M.begin(server, row, command.argv)
  local timer
  local ok, result = pcall(server.boxes.working, server.boxes, row, function(box)
    local process = box:spawn(command)
    run.process = process
    if run.cancelled or run.abandoned then
      process:kill()
    end
    if command.timeout then
      timer = async.at(async.now() + command.timeout, function()
        run.timed_out = true
        run:stop()
      end)
    end
    local read, value = pcall(use, process, run)
    if not read then
      process:kill()
      process:close()
      error(value, 0)
    end
    return value
  end)
  if timer then
    timer:cancel()
  end
  local process = run.process
  local done = process and process.result
  if not ok then
    run:finish { status = "failed", error_message = tostring(errors.is(result) and result.message or result) }
    error(result, 0)
  end
  if run.abandoned and done.exit_code ~= 0 then
    run:finish { status = "failed", cpu_ns = done.cpu_ns, memory_peak_bytes = done.memory_peak_bytes }
    refuse(503, run.abandoned)
  elseif done.not_started == "directory" then
    run:finish { status = "failed", error_message = process:refusal() }
    refuse(400, process:refusal())
  elseif done.stopped then
    run:finish { status = "failed", error_message = "the box was stopped" }
    refuse(500, "the box was stopped while the command ran")
  end
  local exit_code = run.timed_out and TIMED_OUT or done.exit_code
  run:finish { status = exit_code == 0 and "completed" or "failed", cpu_ns = done.cpu_ns,
    memory_peak_bytes = done.memory_peak_bytes,
    output = run.output_kept and runs.text(run.output_kept:text()) }
  return result, exit_code, run
end

--- What a command is told to have written that could not be started, or was not let to its end.
---@param run lbox.server.Run
---@param command table
---@return string
function M.ended_early(run, command)
  if run.process.result.not_started then
    return run.process:refusal() .. "\n"
  elseif run.timed_out then
    return ("timed out after %.14g ms\n"):format(command.timeout)
  end
  return ""
end

return M
