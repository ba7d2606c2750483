--- Exec sessions (box-api.md §2.3): a command of a box and a client that talks to it over a WebSocket. Its end, and
--- everything it started, comes with the end of the connection.
local async = require "lbox.async"
local core = require "lbox.core"
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local settings = require "lbox.server.settings"
local shell_run = require "lbox.server.shell_run"

local M = {}

-- For the client to say what is to be run, to take what is left at the end, and to hang up.
local START_MS, DRAIN_MS, PART_MS = 10000, 30000, 5000
local GRACE_MS, MAX_GRACE_MS = 5000, 600000
-- Input that the command has not read; with more of it, the client is not listened to.
local MAX_INPUT = 1024 * 1024
-- What a piece of it costs beside its bytes.
local ITEM = 64
-- Rows and columns of a terminal whose client does not say.
local ROWS, COLUMNS, MAX_SIZE = 24, 80, 65535
local SIGNALS = { TERM = true, KILL = true, INT = true, HUP = true, TSTP = true, QUIT = true, USR1 = true, USR2 = true }

local START = { argv = "strings", cmd = "string", tty = "boolean", cwd = "string", env = "strings" }

local function refuse(message)
  errors.raise("api", message, { status_code = 400 })
end

--- The variables of "K=V"; those that no box may be given are passed over.
local function variables(list)
  local vars = {}
  for _, pair in ipairs(list or {}) do
    local name, value = pair:match("^([^=]+)=(.*)$")
    if not name then
      refuse(("env: %q is not NAME=VALUE"):format(pair))
    elseif not settings.BLOCKED_ENV[name] then
      vars[name] = value
    end
  end
  settings.env(vars, "env")
  return vars
end

--- How many rows or columns; `or_else` when that makes no sense, as it may be 0 where nobody knows.
local function size_of(value, or_else)
  local whole = math.type(value) and math.tointeger(value)
  return whole and whole > 0 and whole <= MAX_SIZE and whole or or_else
end

--- What the first message asks for, as Sandbox:spawn takes it.
local function command_of(server, row, start)
  fields.check(start, START)
  local argv = start.argv
  if not argv or #argv == 0 then
    if not start.cmd or start.cmd == "" then
      refuse("a session needs cmd or argv")
    end
    argv = { "bash", "-lc", start.cmd }
  end
  shell_run.check(argv)
  local vars = variables(start.env)
  local tty
  if start.tty then
    tty = { rows = size_of(start.rows, ROWS), columns = size_of(start.cols, COLUMNS) }
    vars.TERM = vars.TERM or "xterm-256color"
  end
  return { argv = argv, cwd = server.boxes.folder(start.cwd), env = server.boxes.environment(row, vars), stdin = true,
    tty = tty }
end

-- ------------------------------------------------------------------------------------- its input

---@class lbox.server.Session
local Session = {}
Session.__index = Session

--- Writes what the client sends to the command, in its turn: the client can send signals meanwhile.
local function write_input(self)
  for piece in self.input.receive, self.input do
    if piece == "" then
      self.process:close_stdin()
    else
      self.process:write(piece)
    end
    self.waiting = self.waiting - #piece - ITEM
    self.room:set()
  end
end

--- Waits until the command has read some of what waits for it.
local function wait_for_room(self)
  while self.waiting > MAX_INPUT do
    self.room:clear()
    self.room:wait()
  end
end

--- Hands input on, "" for its end.
local function put_input(self, piece)
  self.waiting = self.waiting + #piece + ITEM
  self.input:send(piece)
  if self.waiting > MAX_INPUT then
    self.ws:meanwhile(function() wait_for_room(self) end)
  end
end

local HANDLERS = {}

function HANDLERS.stdin(self, message)
  local bytes = type(message.data) == "string" and core.base64_decode(message.data)
  if bytes and bytes ~= "" and not self.input_ended then
    put_input(self, bytes)
  end
end

function HANDLERS.stdin_close(self)
  if not self.input_ended then
    self.input_ended = self.process.tty == nil
    put_input(self, "")
  end
end

function HANDLERS.resize(self, message)
  local rows, columns = size_of(message.rows), size_of(message.cols)
  if rows and columns then
    self.process:resize(rows, columns)
  end
end

function HANDLERS.signal(self, message)
  if message.signal == nil or SIGNALS[message.signal] then
    self.process:signal(message.signal or "TERM")
  end
end

--- The first says how much time there is.
function HANDLERS.terminate(self, message)
  if self.terminated then
    return
  end
  self.terminated = true
  local grace = tonumber(message.graceMs)
  self.process:kill("TERM")
  self.scope:spawn(function()
    async.sleep(grace and grace > 0 and math.min(grace, MAX_GRACE_MS) or GRACE_MS)
    self.process:kill()
  end)
end

--- Does what the client says, until it is gone: then so is the command.
local function listen(self)
  local ok, err = pcall(function()
    for message in self.ws.receive, self.ws do
      local handler = HANDLERS[message.type]
      if handler then
        handler(self, message)
      end
    end
  end)
  self.hung_up = ok or errors.is(err, "network")
  self.process:kill()
  if not self.hung_up then
    error(err, 0)
  end
  self.ws.socket:shut() -- whoever writes to it need not wait
end

-- ------------------------------------------------------------------------------------ its output

local function send_output(self, run)
  local process = self.process
  process:wait_started()
  if process.pid then
    self.ws:send { type = "started", pid = process.pid, execId = run.id }
  end
  for name, bytes in process.read, process do
    self.ws:send { type = name, data = core.base64_encode(bytes) }
  end
end

--- Attends to a command from its start to its end.
local function attend(self, process, run)
  self.process = process
  async.scope(function(scope)
    self.scope = scope
    scope:spawn(listen, self)
    scope:spawn(write_input, self)
    scope:spawn(function()
      async.wait(process.ended)
      async.sleep(DRAIN_MS)
      self.ws.socket:shut() -- a client that does not read is not waited for
    end)
    local ok, err = pcall(send_output, self, run)
    self.hung_up = self.hung_up or (not ok and errors.is(err, "network"))
    if self.hung_up then
      process:kill()
      process:wait()
    elseif not ok then
      error(err, 0)
    end
    scope:cancel("the session is over")
  end)
end

-- ----------------------------------------------------------------------------------- the session

--- The message that says what to run; nil when the client went away without.
local function first_message(ws)
  local ok, message = pcall(async.timeout, START_MS, ws.receive, ws)
  if not ok and errors.is(message, "timeout") then
    refuse(("no message of type start within %d s"):format(START_MS // 1000))
  elseif not ok then
    error(message, 0)
  elseif message and message.type ~= "start" then
    refuse("the first message must be of type start")
  end
  return message
end

--- What the client is told at last; nil when it is gone.
local function run(self, server, row)
  local start = first_message(self.ws)
  if not start then
    return nil
  end
  local _, code, record = shell_run.execute(server, row, command_of(server, row, start), function(process, record)
    attend(self, process, record)
  end)
  if self.hung_up then
    return nil
  elseif record.process.result.not_started then
    return { type = "error", message = record.process:refusal() }
  end
  return { type = "exit", code = code }
end

--- Says the last word, and waits until the client has it.
local function part(ws, message)
  ws:send(message)
  ws:hang_up()
  while ws:receive() do end
end

--- Serves a client from its first message to its end.
---@param server table
---@param row table  the box
---@param ws lbox.server.WebSocket
function M.serve(server, row, ws)
  local self = setmetatable({ ws = ws, input = async.channel(math.huge), room = async.event(), waiting = 0 }, Session)
  local ok, last = pcall(run, self, server, row)
  if not ok and errors.is(last, "cancelled") then
    error(last, 0)
  elseif not ok and not errors.is(last) then
    server.log("error: " .. async.describe(last))
  end
  if not ok then
    last = { type = "error", message = core.utf8_repair(errors.is(last) and last.message or "the session failed") }
  end
  if last then
    pcall(async.timeout, PART_MS, part, ws, last)
  end
end

return M
