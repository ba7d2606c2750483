--- Commands and code, answered at once or streamed (box-api.md §1.6, §2.2).
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local json = require "lbox.json"
local runs = require "lbox.server.runs"
local runtimes = require "lbox.server.runtimes"
local shell_run = require "lbox.server.shell_run"

-- An answer that is sent as a whole holds this much of each of stdout and stderr.
local MAX_OUTPUT = 16 * 1024 * 1024
-- Linux takes no longer word in a command line.
local MAX_CODE = 120 * 1024

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
  return shell_run.command(server, row, request:json())
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
    local process = server.boxes:sandbox(row):spawn { argv = { "node", "-p", runtimes.RUNS_TYPESCRIPT },
      cwd = "/", env = server.boxes.environment(row) }
    local output = ""
    for _, bytes in process.read, process do
      output = output .. bytes
    end
    node_strips_types = output:find("true") ~= nil
    if not node_strips_types then
      refuse(422, ("the node of this machine does not run TypeScript: it takes node %s or newer"):format(
        runtimes.TYPESCRIPT_NODE))
    end
  end
  local argv = table.move(language, 1, #language, 1, {})
  argv[#argv + 1] = body.code
  return { argv = argv, cwd = server.boxes.folder(body.folder), env = server.boxes.environment(row),
    timeout = body.timeout and body.timeout > 0 and body.timeout or nil }
end

local function answer_whole(server, request, row, command)
  local outputs, exit_code, run = shell_run.execute(server, row, command, function(process)
    local outputs = process:collect(MAX_OUTPUT)
    if not outputs then
      refuse(413, ("the output is larger than %d bytes and the command was ended: use a stream")
        :format(MAX_OUTPUT))
    end
    return outputs
  end)
  local stderr = outputs.stderr .. shell_run.ended_early(run, command)
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
    return select(2, shell_run.execute(server, row, command, function(process, begun)
      writer = request:stream(200, "text/plain; charset=utf-8", { [runs.HEADER] = begun.id })
      begun.writer = writer
      for _, bytes in process.read, process do
        tell(bytes)
      end
    end))
  end)
  local err = exit_code
  if ok then
    tell(shell_run.ended_early(run, command))
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
