--- box.exec: commands and code (box-api.md §1.6, §2.2).
local async = require "lbox.async"
local client = require "lbox.client"
local errors = require "lbox.errors"
local json = require "lbox.json"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local runs = require "lbox.run"
local streams = require "lbox.stream"

-- `timeout` of code is the server's; the client gives it this much longer to say so.
local SERVER_GRACE_MS = 30000

local COMMAND_OPTIONS = { folder = "string", timeout = "number", extra = "table", headers = "table" }
local STREAM_OPTIONS = { folder = "string", timeout = "number", idle_timeout = "number",
  extra = "table", headers = "table" }
local CODE_OPTIONS = { code = "string", lang = "string", folder = "string", timeout = "number",
  extra = "table", headers = "table" }

local function path(box, what)
  return ("/v2/box/%s/%s"):format(client.segment(box.id), what)
end

local function folder(box, opts)
  if opts.folder then
    return box:folder(options.nonblank(opts.folder, "folder"))
  end
  return box:folder()
end

local function merge(body, extra)
  for key, value in pairs(extra or {}) do
    body[key] = value
  end
  return body
end

local function command_body(box, cmd, opts)
  options.nonblank(cmd, "the command")
  return merge({ command = json.array { "sh", "-c", cmd }, folder = folder(box, opts) }, opts.extra)
end

local function code_body(box, opts, what)
  options.check(opts, CODE_OPTIONS, what)
  options.require(opts, "code", what)
  options.require(opts, "lang", what)
  if opts.timeout then
    options.ms(opts.timeout, "timeout")
  end
  return merge({ code = opts.code, language = opts.lang, timeout = opts.timeout,
    folder = folder(box, opts) }, opts.extra)
end

local function text_of(value)
  return type(value) == "string" and value or ""
end

--- A finished run from the answer of exec or code.
local function finished(box, kind, answer)
  local run = runs.new(box, kind)
  run.exit_code = tonumber(answer.exit_code)
  if not run.exit_code then
    errors.raise("api", "the answer has no exit code")
  end
  run.stdout, run.stderr = text_of(answer.output), text_of(answer.error)
  if run.exit_code == 0 then
    run.status, run.result = "completed", run.stdout
  else
    run.status, run.result = "failed", run.stderr ~= "" and run.stderr or run.stdout
  end
  return run
end

local function ask(box, kind, what, body, opts, timeout)
  local started = async.now()
  local answer = box.client:request {
    method = "POST", path = path(box, what), json = body, headers = opts.headers, timeout = timeout,
  }
  local run = finished(box, kind, answer)
  run.cost.compute_ms = async.now() - started
  return run
end

-- ----------------------------------------------------------------------------------- streams

local reader = {}

local function exit_data(text)
  local value = json.decode(text)
  return type(value) == "table" and value or nil
end

function reader.event(stream, name, data)
  if name == "output" then
    stream:keep(data)
    return { type = "output", data = data }
  end
  local value = exit_data(data)
  if name == "error" then
    errors.raise("run", value and text_of(value.error) ~= "" and stream.box.client:excerpt(value.error)
      or "the server could not run the command", { box_id = stream.box.id, partial = stream:partial() })
  elseif not value or type(value.exit_code) ~= "number" then
    errors.raise("stream", "the exit of the command cannot be read",
      { box_id = stream.box.id, partial = stream:partial() })
  end
  stream.exit_code = value.exit_code
  stream.status = value.exit_code == 0 and "completed" or "failed"
  return { type = "exit", exit_code = value.exit_code,
    cpu_ns = type(value.cpu_ns) == "number" and value.cpu_ns or 0 }
end

function reader.ended(stream, why)
  stream.result = stream:partial()
  if not stream.exit_code then
    errors.raise("stream", why or "the stream ended without the exit of the command",
      { box_id = stream.box.id, partial = stream.result, retryable = false })
  end
end

local function open(box, kind, what, body, opts, timeout)
  if opts.idle_timeout then
    options.ms(opts.idle_timeout, "idle_timeout")
  end
  local deadline = timeout and timeout > 0 and async.now() + timeout or nil
  local idle = opts.idle_timeout or box.client.settings.timeout
  local run = runs.new(box, kind, streams.mt)
  local exchange = box.client:open_stream({
    method = "POST", path = path(box, what), json = body, headers = opts.headers, mode = "exec",
  }, deadline, idle)
  return streams.open(run, exchange, reader, deadline, idle)
end

local exec = {}

--- Runs a command with `sh -c` and waits for it. A non-zero exit does not raise.
---@param cmd string
---@param opts { folder: string|nil, timeout: number|nil }|nil
---@return lbox.Run
function exec.command(box, cmd, opts)
  options.check(opts, COMMAND_OPTIONS, "exec:command")
  opts = opts or {}
  if opts.timeout then
    options.ms(opts.timeout, "timeout")
  end
  return ask(box, "command", "exec", command_body(box, cmd, opts), opts, opts.timeout)
end

--- Runs a snippet in js, ts or python. `timeout` (ms) is the server's: it kills the program.
---@param opts { code: string, lang: string, timeout: number|nil, folder: string|nil }
---@return lbox.Run
function exec.code(box, opts)
  local body = code_body(box, opts, "exec:code")
  return ask(box, "code", "code", body, opts, opts.timeout and opts.timeout + SERVER_GRACE_MS)
end

--- Runs a command and streams its output: chunks `output{data}`, at last `exit{exit_code, cpu_ns}`.
---@param cmd string
---@param opts { folder: string|nil, timeout: number|nil, idle_timeout: number|nil }|nil
---@return lbox.Stream
function exec.stream(box, cmd, opts)
  options.check(opts, STREAM_OPTIONS, "exec:stream")
  opts = opts or {}
  if opts.timeout then
    options.ms(opts.timeout, "timeout")
  end
  return open(box, "command", "exec-stream", command_body(box, cmd, opts), opts, opts.timeout)
end

--- Runs a snippet and streams its output.
---@return lbox.Stream
function exec.stream_code(box, opts)
  local body = code_body(box, opts, "exec:stream_code")
  return open(box, "code", "code-stream", body, opts, opts.timeout and opts.timeout + SERVER_GRACE_MS)
end

return namespace.define("exec", exec)
