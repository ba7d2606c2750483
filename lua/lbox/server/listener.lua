--- HTTP requests for the server's handlers: one task each, answers as JSON or as streams with
--- back-pressure.
local async = require "lbox.async"
local errors = require "lbox.errors"
local httpd = require "lbox.server.httpd"
local json = require "lbox.json"

local M = {}

-- A stream's writer waits while more than this is unsent.
local HIGH_WATER = 256 * 1024

---@class lbox.server.Request
---@field method string
---@field path string      as sent, without the query
---@field query table<string, string>
---@field peer string|nil  "unix", "tcp", or nil when the client is gone
---@field uid integer|nil  of a unix peer
---@field answered boolean
---@field status integer|nil  of the answer
local Request = {}
Request.__index = Request

local function unescape(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end
M.unescape = unescape

--- A query string as a table; the last of several values wins.
function M.parse_query(text)
  local query = {}
  for pair in text:gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=?(.*)$")
    name = unescape((name:gsub("%+", " ")))
    if name ~= "" then
      query[name] = unescape((value:gsub("%+", " ")))
    end
  end
  return query
end

function Request:header(name)
  return self.conn:header(name)
end

--- The body, decoded. Raises kind `api` 400 when it is not JSON.
function Request:json()
  local body = self.conn:body()
  if not body:find("%S") then
    return {}
  end
  local value, why = json.decode(body)
  if why then
    errors.raise("api", "the request body is not JSON: " .. why, { status_code = 400 })
  elseif type(value) ~= "table" then
    errors.raise("api", "the request body must be a JSON object", { status_code = 400 })
  end
  return json.strip_nulls(value)
end

--- Answers with a JSON value.
function Request:answer(status, value)
  self.answered, self.status = true, status
  self.conn:respond(status, { ["Content-Type"] = "application/json" }, json.encode(value))
end

---@class lbox.server.Writer
local Writer = {}
Writer.__index = Writer

--- Begins an answer that is written piece by piece.
---@return lbox.server.Writer
function Request:stream(status, content_type)
  self.answered, self.status = true, status
  self.conn:begin(status, { ["Content-Type"] = content_type, ["Cache-Control"] = "no-cache" })
  return setmetatable({ conn = self.conn, id = self.conn:id() }, Writer)
end

function Writer:wait_room()
  local op = async.op(function() async.source(self.id, nil) end)
  async.source(self.id, function()
    async.source(self.id, nil)
    op:resolve()
  end)
  async.wait(op)
end

--- Sends bytes; waits while much is unsent. Raises kind `network` when the client is gone.
function Writer:write(bytes)
  if bytes ~= "" then
    self.conn:write(bytes)
  end
  while self.conn:unsent() > HIGH_WATER and not self.conn:gone() do
    self:wait_room()
  end
  if self.conn:gone() then
    errors.raise("network", "the client went away")
  end
end

function Writer:gone()
  return self.conn:gone()
end

function Writer:finish()
  self.conn:finish()
end

--- Cuts the answer, so that the client sees that it is not whole.
function Writer:abort()
  self.conn:abort()
end

local function new_request(conn)
  local path, query = conn:path()
  local peer, uid = conn:peer()
  return setmetatable({
    conn = conn,
    method = conn:method(),
    path = path,
    query = M.parse_query(query),
    peer = peer,
    uid = uid,
    answered = false,
    began = async.now(),
  }, Request)
end

---@class lbox.server.Listener
local Listener = {}
Listener.__index = Listener

--- Serves `handler(request)`, each in a task of `scope`. The handler answers; its errors are its own.
---@param opts { fd: integer, max_body: integer, scope: table, handler: fun(request: lbox.server.Request) }
---@return lbox.server.Listener
function M.new(opts)
  local server = httpd.new(async.engine(), { fd = opts.fd, max_body = opts.max_body })
  local self = setmetatable({ server = server, id = server:id() }, Listener)
  async.source(self.id, function()
    local conn = server:accept()
    while conn do
      local request = new_request(conn)
      opts.scope:spawn(function()
        local ok, err = pcall(opts.handler, request)
        request.conn:close()
        if not ok then
          error(err, 0)
        end
      end)
      conn = server:accept()
    end
  end)
  return self
end

--- Number of open connections.
function Listener:connections()
  return self.server:connections()
end

function Listener:stop()
  async.source(self.id, nil)
  self.server:stop()
end

return M
