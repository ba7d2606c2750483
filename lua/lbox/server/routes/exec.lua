--- Commands and code, answered at once or streamed (box-api.md §1.6, §2.2).
local async = require "lbox.async"
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local json = require "lbox.json"
local runs = require "lbox.server.runs"
local runtimes = require "lbox.server.runtimes"

-- An answer that is sent as a whole holds this much of each of stdout and stderr.
local MAX_OUTPUT = 16 * 1024 * 1024
-- Linux takes no longer word in a command line.
local MAX_CODE = 120 * 1024
local TIMED_OUT = 124

-- Linux takes no longer word in a command line, and this server no more together.
local MAX_WORD, MAX_COMMAND = 128 * 1024 - 1, 2 * 1024 * 1024

local EXEC = { command = "strings!", folder = "string" }
local CODE = { code = "string!", language = "string!", timeout = "number", folder = "string" }

local LANGUAGES = {
  js = { "node", "-e", package = "nodejs" },
  ts = { "node", "--experimental-strip-types", "--input-type=module-typescript", "-e", package = "nodejs" },
  python = { "python3", "-c", package = "python3" },
}

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

local function exec_command(server, request, row)
  local body = fields.check(request:json(), EXEC)
  if #body.command == 0 then
    refuse(400, "command must have at least one word")
  end
  local size = 0
  for _, word in ipairs(body.command) do
    size = size + #word
    if #word > MAX_WORD or size > MAX_COMMAND then
      refuse(413, ("a word of a command has at most %d bytes, all together %d: write it to a file and run that")
        :format(MAX_WORD, MAX_COMMAND))
    end
  end
  return { argv = body.command, cwd = server.boxes.folder(body.folder), env = server.boxes.environment(row) }
end

local node_strips_types -- whether the host's node runs TypeScript

local function code_command(server, request, row)
  local body = fields.check(request:json(), CODE)
  local language = LANGUAGES[body.language]
  if not language then
    refuse(400, ("language %q: js, ts or python"):format(body.language))
  elseif #body.code > MAX_CODE then
    refuse(413, ("the code is larger than %d bytes: write it to a file and run that"):format(MAX_CODE))
  elseif body.timeout and body.timeout < 0 then
    refuse(400, "timeout must be at least 0")
  end
  runtimes.need(language[1], language.package)
  if body.language == "ts" and node_strips_types ~= true then
    local process = server.boxes:sandbox(row):spawn { argv = { "node", "-p",
      "process.allowedNodeEnvironmentFlags.has('--experimental-strip-types')" }, cwd = "/",
      env = server.boxes.environment(row) }
    local output = ""
    for _, bytes in process.read, process do
      output = output .. bytes
    end
    node_strips_types = output:find("true") ~= nil
    if not node_strips_types then
      refuse(422, "the node of this machine does not run TypeScript: it takes node 22.6 or newer")
    end
  end
  local argv = table.move(language, 1, #language, 1, {})
  argv[#argv + 1] = body.code
  return { argv = argv, cwd = server.boxes.folder(body.folder), env = server.boxes.environment(row),
    timeout = body.timeout and body.timeout > 0 and body.timeout or nil }
end

--- Starts the command as a run; `use(process)` reads it. Returns what `use` does.
local function run_command(server, row, command, use)
  local run = runs.begin(server, row, { type = "shell", prompt = runs.text(table.concat(command.argv, " ")) })
  local timer
  local ok, result = pcall(server.boxes.working, server.boxes, row, function(box)
    local process = box:spawn(command)
    run.process = process
    if run.cancelled then
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
  if done.not_started == "directory" then
    run:finish { status = "failed", error_message = process:refusal() }
    refuse(400, process:refusal())
  elseif done.stopped then
    run:finish { status = "failed", error_message = "the box was stopped" }
    refuse(500, "the box was stopped while the command ran")
  end
  local exit_code = run.timed_out and TIMED_OUT or done.exit_code
  run:finish { status = exit_code == 0 and "completed" or "failed", cpu_ns = done.cpu_ns,
    memory_peak_bytes = done.memory_peak_bytes }
  return result, exit_code, run
end

--- What a command is told to have written that could not be started, or was not let to its end.
local function ended_early(run, command)
  if run.process.result.not_started then
    return run.process:refusal() .. "\n"
  elseif run.timed_out then
    return ("timed out after %g ms\n"):format(command.timeout)
  end
  return ""
end

local function answer_whole(server, request, row, command)
  local outputs, exit_code, run = run_command(server, row, command, function(process)
    local parts, sizes = { stdout = {}, stderr = {} }, { stdout = 0, stderr = 0 }
    for name, bytes in process.read, process do
      parts[name][#parts[name] + 1] = bytes
      sizes[name] = sizes[name] + #bytes
      if sizes[name] > MAX_OUTPUT then
        refuse(413, ("the output is larger than %d bytes and the command was ended: use a stream")
          :format(MAX_OUTPUT))
      end
    end
    return { stdout = table.concat(parts.stdout), stderr = table.concat(parts.stderr) }
  end)
  local stderr = outputs.stderr .. ended_early(run, command)
  request:answer(200, { exit_code = exit_code, output = runs.text(outputs.stdout), error = runs.text(stderr) })
end

--- The command goes on when its client goes away, as an agent run does; what it writes then is dropped.
--- The header tells a client what to cancel.
local function answer_stream(server, request, row, command)
  command.merge = true
  local writer
  local function tell(bytes)
    if writer and not writer:offer(bytes) then
      writer = nil
    end
  end
  local ok, exit_code, run = pcall(function()
    return select(2, run_command(server, row, command, function(process, begun)
      writer = request:stream(200, "text/plain; charset=utf-8", { [runs.HEADER] = begun.id })
      begun.writer = writer
      for _, bytes in process.read, process do
        tell(bytes)
      end
    end))
  end)
  local err = exit_code
  if ok then
    tell(ended_early(run, command))
    local cpu_ns = run.process.result.cpu_ns
    tell(("event: exit\ndata: %s\n\n"):format(json.encode { exit_code = exit_code, cpu_ns = cpu_ns }))
  elseif not request.answered then
    error(err, 0)
  else
    local message = errors.is(err) and err.message or "the command could not be run"
    tell(("event: error\ndata: %s\n\n"):format(json.encode { error = message }))
  end
  if writer then
    writer:finish()
  end
end

--- A handler that makes a command of the request and answers it.
local function handler(make, answer)
  return function(server, request, params)
    local row = server.boxes:get(params.id)
    answer(server, request, row, make(server, request, row))
  end
end

return {
  { "POST", "/v2/box/{id}/exec", handler(exec_command, answer_whole) },
  { "POST", "/v2/box/{id}/exec-stream", handler(exec_command, answer_stream) },
  { "POST", "/v2/box/{id}/code", handler(code_command, answer_whole) },
  { "POST", "/v2/box/{id}/code-stream", handler(code_command, answer_stream) },
}
