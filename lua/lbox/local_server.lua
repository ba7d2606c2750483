--- Finds this user's local server, or starts it. Client side: runs on LuaJIT too.
local async = require "lbox.async"
local core = require "lbox.core"
local errors = require "lbox.errors"
local http = require "lbox.http"
local json = require "lbox.json"
local paths = require "lbox.paths"

local M = {}

-- A server that listens answers this at once.
local HELLO_MS = 5000
-- The name in the URL; the socket decides where it goes.
local BASE_URL = "http://localhost"

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- The lbox program: the running one, $LBOX_PROGRAM, or the one on PATH.
local function program()
  local named = os.getenv("LBOX_PROGRAM")
  if named and named ~= "" then
    return named
  end
  local ok, posix = pcall(require, "lbox.server.posix")
  return ok and posix.exe_path() or "lbox"
end

--- Asks the server on `socket`; nil when none answers.
local function ask(socket, method, path)
  local exchange = http.send { method = method, url = BASE_URL .. path, unix_socket = socket }
  local ok, in_time = pcall(exchange.wait, exchange, function(req) return req:done() end,
    async.now() + HELLO_MS)
  local answer = ok and in_time and exchange.req:status() == 200 and json.decode(exchange.req:body())
  exchange:close()
  if not ok then
    error(in_time, 0)
  end
  return type(answer) == "table" and answer or nil
end

--- What the server on `socket` says of itself; nil when none answers.
---@param socket string
---@return { version: string, data: string, pid: integer, busy: boolean }|nil
function M.hello(socket)
  return ask(socket, "GET", "/lbox/hello")
end

--- Ends the server on `socket` if it was started on demand and is idle. False when it was not, or none answers.
---@param socket string
---@return boolean
function M.stop(socket)
  return ask(socket, "POST", "/lbox/stop") ~= nil
end

--- Starts a server; returns when it accepts connections.
local function start(dir)
  local pipe = io.popen(("%s serve --detach --data %s 2>&1"):format(quote(program()), quote(dir)))
  local said = pipe and pipe:read("*a") or ""
  if pipe then
    pipe:close()
  end
  if said:match("^/[^\n]*\n$") then
    return
  end
  said = said:gsub("^lbox serve: ", ""):gsub("%s+$", "")
  errors.raise("local", ("the local server did not start: %s"):format(
    said ~= "" and said or "the program " .. program() .. " was not found; set LBOX_PROGRAM"))
end

-- Servers that answered, by socket: asked once, used until a connection fails.
local known = {}

--- The address of this user's local server, which is started when it does not run.
---@return { base_url: string, socket: string }
function M.connect()
  local dir = paths.data_dir()
  local socket, why = paths.socket(dir)
  if not socket then
    errors.raise("local", why)
  elseif known[socket] then
    return known[socket]
  end
  local answer = M.hello(socket)
  if not answer then
    start(dir)
    answer = M.hello(socket)
  elseif answer.version ~= core.version and not answer.busy and M.stop(socket) then
    start(dir) -- of our version: it waits for the other to end
    answer = M.hello(socket)
  end
  if not answer then
    errors.raise("local", "the local server started but does not answer on " .. socket)
  elseif answer.version ~= core.version then
    errors.raise("local", ("the local server is lbox %s%s, this is %s: end it (kill %d) and try again"):format(
      tostring(answer.version), answer.busy and " and at work" or "", core.version, answer.pid or 0))
  end
  known[socket] = { base_url = BASE_URL, socket = socket }
  return known[socket]
end

--- Forgets a server that did not answer, so that the next call looks for it again.
function M.forget()
  known = {}
end

return M
