--- `box.exec`: commands and pieces of code.
local async = require "lbox.async"
local client = require "lbox.client"
local errors = require "lbox.errors"
local exec_stream = require "lbox.exec_stream"
local failure = require "lbox.failure"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local runs = require "lbox.run"
local session = require "lbox.session"
local workdir = require "lbox.workdir"

local M = {}

-- The time limit of `code` is the server's: the client waits this much longer for its answer.
local GRACE_MS = 30000

---@class lbox.exec.CommandOptions: lbox.CallOptions
---@field folder string|nil  where to run, relative to the box's directory, which is the default

local COMMAND_OPTIONS = client.call_options { folder = "text" }

---@class lbox.exec.StreamOptions: lbox.exec.CommandOptions
---@field idle_timeout number|nil  ms of silence allowed; 0: any, nil: the client's timeout

local STREAM_OPTIONS = client.call_options { folder = "text", idle_timeout = "ms" }

---@class lbox.exec.CodeOptions: lbox.exec.CommandOptions
---@field code string
---@field lang string  "js", "ts" or "python"

local CODE_OPTIONS = client.call_options { code = "string!", lang = "text!", folder = "text" }

---@class lbox.exec.StreamCodeOptions: lbox.exec.CodeOptions
---@field idle_timeout number|nil  ms of silence allowed; 0: any, nil: the client's timeout

local STREAM_CODE_OPTIONS = client.call_options {
  code = "string!", lang = "text!", folder = "text", idle_timeout = "ms",
}

--- The body of a request for a command.
local function command_body(self, command, opts, spec, what)
  options.nonblank(command, "command")
  opts = options.call(opts, spec, what)
  return { command = { "sh", "-c", command }, folder = self._link:folder(opts.folder) }, opts
end

--- The body of a request for a piece of code.
local function code_body(self, opts, spec, what)
  options.check(opts, spec, what)
  return {
    code = opts.code,
    language = opts.lang,
    timeout = opts.timeout,
    folder = self._link:folder(opts.folder),
  }
end

--- How long the client waits for code that the server gives `timeout` ms.
local function patience(timeout)
  if timeout and timeout > 0 then
    return timeout + GRACE_MS
  end
  return timeout
end

--- Runs something whose answer comes in one piece.
local function run_once(self, kind, path, body, opts, timeout)
  local link = self._link
  local run = runs.fields(link, kind)
  local spec = {
    method = "POST", path = path, json = body, opts = opts, timeout = timeout,
  }
  local ok, answer, status = pcall(link.request, link, spec)
  if not ok then
    error(failure.of_command(answer, async.now() - run._started), 0)
  elseif not runs.is_exit_code(answer.exit_code) then
    link:nonsense(spec, status)
  end
  run.exit_code = answer.exit_code
  run.stdout = type(answer.output) == "string" and answer.output or ""
  run.stderr = type(answer.error) == "string" and answer.error or ""
  run.status = run.exit_code == 0 and "completed" or "failed"
  if run.exit_code == 0 or run.stderr == "" then
    run.result = run.stdout
  else
    run.result = run.stderr
  end
  run.cost.compute_ms = async.now() - run._started
  return runs.new(run)
end

--- Streams have no total deadline unless one is asked for.
local function stream_once(self, kind, path, body, opts, timeout)
  local link = self._link
  return exec_stream.open {
    link = link,
    type = kind,
    spec = {
      method = "POST", path = path, mode = "exec", json = body, opts = opts,
    },
    deadline = link.client:deadline(timeout or 0),
    idle_timeout = opts.idle_timeout,
  }
end

-- With a terminal the output is all stdout, and `rows` and `cols` are its size.
---@class lbox.exec.SessionOptions: lbox.ReadOptions
---@field cmd string|nil      for a login shell of the box
---@field argv string[]|nil   a program and its arguments, instead
---@field tty boolean|nil     gives it a terminal
---@field cwd string|nil      where to run, relative to the box's directory, which is the default
---@field rows integer|nil
---@field cols integer|nil
---@field env table<string, string>|nil  beside that of the box
---@field idle_timeout number|nil  ms of silence allowed while it is waited for; 0: any, nil: the client's timeout
---@field on_stdout fun(data: string)|nil  gets the output while the session is read: in `wait` and `output`
---@field on_stderr fun(data: string)|nil

local SESSION_OPTIONS = client.read_options {
  cmd = "text", argv = "strings", tty = "boolean", cwd = "text", rows = "count", cols = "count", env = "map",
  idle_timeout = "ms", on_stdout = "function", on_stderr = "function",
}

--- "K=V" of each variable, in the order of their names.
local function env_list(env)
  local list = {}
  for name, value in pairs(env or {}) do
    if name == "" or name:find("[=%z]") or value:find("%z") then
      errors.raise("usage", ("env: %q cannot be the name of a variable, or its value has a NUL"):format(name))
    end
    list[#list + 1] = name .. "=" .. value
  end
  table.sort(list)
  return list[1] and list or nil
end

---@class lbox.BoxExec
local methods = {}

--- Runs a command with `sh -c` and waits for it. An exit code that is not 0 does not raise. Raises
--- `timeout` when the deadline passes (the command may go on), `api` when the folder is not there.
---@param command string
---@param opts lbox.exec.CommandOptions|nil
---@return lbox.Run
function methods:command(command, opts)
  local body
  body, opts = command_body(self, command, opts, COMMAND_OPTIONS, "box.exec:command")
  return run_once(self, "command", "/exec", body, opts, opts.timeout)
end

--- Runs a piece of code; `timeout` (ms) is the server's and kills it, the client waits 30 s longer.
---@param opts lbox.exec.CodeOptions
---@return lbox.Run
function methods:code(opts)
  local body = code_body(self, opts, CODE_OPTIONS, "box.exec:code")
  return run_once(self, "code", "/code", body, opts, patience(opts.timeout))
end

--- Starts a command whose output is read as it comes: `output` chunks with `data`, then `exit` with
--- `exit_code`. Output that ends without an exit raises `stream`.
---@param command string
---@param opts lbox.exec.StreamOptions|nil
---@return lbox.Stream
function methods:stream(command, opts)
  local body
  body, opts = command_body(self, command, opts, STREAM_OPTIONS, "box.exec:stream")
  return stream_once(self, "command", "/exec-stream", body, opts, opts.timeout)
end

--- Starts a piece of code whose output is read as it comes.
---@param opts lbox.exec.StreamCodeOptions
---@return lbox.Stream
function methods:stream_code(opts)
  local body = code_body(self, opts, STREAM_CODE_OPTIONS, "box.exec:stream_code")
  return stream_once(self, "code", "/code-stream", body, opts, patience(opts.timeout))
end

--- Starts a command that one can talk to while it runs. `timeout` (ms; nil: the client's) is for its start. Raises
--- `run` when it could not be started.
---@param opts lbox.exec.SessionOptions
---@return lbox.Session
function methods:session(opts)
  opts = options.call(opts, SESSION_OPTIONS, "box.exec:session")
  local argv = opts.argv and opts.argv[1] and opts.argv or nil
  if not argv and not opts.cmd then
    errors.raise("usage", "box.exec:session needs the option \"cmd\" or \"argv\"")
  elseif argv and opts.cmd then
    errors.raise("usage", "box.exec:session takes cmd or argv, not both")
  end
  local link = self._link
  return session.open {
    link = link,
    spec = { method = "GET", path = "/exec-session", mode = "websocket", headers = opts.headers },
    deadline = link.client:deadline(opts.timeout),
    start = {
      type = "start",
      argv = argv,
      cmd = opts.cmd,
      tty = opts.tty or nil,
      cwd = opts.cwd and link:path_of(opts.cwd, "cwd") or link.box.cwd,
      rows = opts.rows ~= 0 and opts.rows or nil,
      cols = opts.cols ~= 0 and opts.cols or nil,
      env = env_list(opts.env),
    },
    idle_timeout = opts.idle_timeout,
    on_stdout = opts.on_stdout,
    on_stderr = opts.on_stderr,
    secrets = opts.env,
  }
end

M.new = namespace.of_box("box.exec", methods)

local NOT_THERE = "No such file or directory"
local OTHER_REASONS = { "Not a directory", "Permission denied" }

--- Why one cannot `cd` to `path`, in the words of the system; nil when one can.
---@param link lbox.Link
---@param path string  absolute
---@return string|nil
function M.no_directory(link, path, opts)
  local spec = {
    -- The dot at the end is found in a directory only, and only in one that may be entered.
    method = "POST", path = "/exec", json = { command = { "ls", "-d", "--", workdir.absolute(path, ".") } },
    opts = opts,
  }
  local answer, status = link:request(spec)
  if type(answer.exit_code) ~= "number" then
    link:nonsense(spec, status)
  end
  if answer.exit_code == 0 then
    return nil
  end
  for _, reason in ipairs(OTHER_REASONS) do
    if type(answer.error) == "string" and answer.error:find(reason .. "%s*$") then
      return reason
    end
  end
  return NOT_THERE
end

return M
