--- Talks to one Box API with one key: headers, deadlines, retries, and errors made of what comes
--- back.
local async = require "lbox.async"
local bodies = require "lbox.body"
local config = require "lbox.config"
local core = require "lbox.core"
local errors = require "lbox.errors"
local failure = require "lbox.failure"
local http = require "lbox.http"
local json = require "lbox.json"
local pace = require "lbox.pace"
local retry = require "lbox.retry"
local secrets = require "lbox.secrets"
local telemetry = require "lbox.telemetry"
local url = require "lbox.url"

local M = {}

-- What every call takes beside its own options: with a JSON body, and without one.
---@class lbox.ReadOptions
---@field timeout number|nil  ms for the whole call, 0: none, nil: the client's
---@field headers table<string, string>|nil  more headers of the request
---@class lbox.CallOptions: lbox.ReadOptions
---@field extra table|nil  merged into the JSON body as it is

local CALL_OPTIONS = { timeout = "ms", headers = "table", extra = "table" }
local READ_OPTIONS = { timeout = "ms", headers = "table" }

-- A time limit beyond this (30,000 years) is none.
local FOR_EVER_MS = 1e15

local function merged(...)
  local all = {}
  for _, spec in ipairs { ... } do
    for key, want in pairs(spec) do
      all[key] = want
    end
  end
  return all
end

--- The options of a call that sends JSON: its own and those of every call.
function M.call_options(own)
  return merged(CALL_OPTIONS, own)
end

--- The options of a call that sends none.
function M.read_options(own)
  return merged(READ_OPTIONS, own)
end

--- The same for calls that also take the connection options.
function M.static_options(own)
  return merged(CALL_OPTIONS, config.OPTIONS, own)
end

--- The same for such that send no JSON.
function M.static_read_options(own)
  return merged(READ_OPTIONS, config.OPTIONS, own)
end

---@class lbox.Client
---@field settings lbox.Settings
local Client = {}
Client.__index = Client

---@param opts table|nil  the caller's options; only those of the connection are looked at
---@return lbox.Client
function M.new(opts)
  return setmetatable({ settings = config.resolve(opts) }, Client)
end

---@class lbox.Deadline
---@field ms number
---@field at number|nil  absolute; nil: none

--- A deadline from now on. nil: the client's timeout; 0: none.
---@param ms number|nil
---@return lbox.Deadline
function Client:deadline(ms)
  ms = ms or self.settings.timeout
  return { ms = ms, at = ms > 0 and ms < FOR_EVER_MS and async.now() + ms or nil }
end

--- No deadline at all.
function Client.no_deadline()
  return { ms = 0 }
end

-- ---------------------------------------------------------------------------------- requests

---@class lbox.client.Spec
---@field method string
---@field path string              percent-encoded, from /v2 on
---@field query table[]|nil        list of { name, value }
---@field json table|nil           the body
---@field extra table|nil          merged into the body as it is
---@field parts lbox.Part[]|nil    files that are sent too: the body is a form then, with `json` as its fields
---@field progress (fun(sent: integer, total: integer))|nil  hears how much of such a body was sent
---@field opts table|nil           the caller's options: headers, extra and timeout come from there when the
---  spec has none itself
---@field headers table|nil        name -> value, from the user
---@field timeout number|nil       ms, 0: none, nil: the client's
---@field deadline lbox.Deadline|nil  instead of timeout
---@field mode "sse"|"exec"|"raw"|"websocket"|nil  of a streamed answer
---@field size integer|nil        of a raw answer, if it is known
---@field accept string|nil        what a WebSocket's server has to say to its key
---@field idle number|nil          ms of silence a stream may keep before its answer begins
---@field secrets string[]|nil     what no message may show, beside the key and what its fields tell (secrets.lua)
---@field box_id string|nil         goes into errors
---@field may_be_empty boolean|nil  an answer without a body reads as {}
---@field once boolean|nil          an answer is final: only broken connections are retried
---@field subject string|nil       which of many things that are asked for alike: named in messages
---@field lost string|nil          what may have happened when no answer came
---@field undo fun(transfer: lbox.Transfer)|nil  called when nobody waits any longer for the answer of a
---  request that was sent; the transfer still runs. Takes back what the request does, in CLEAN_UP_MS and
---  also in a cancelled scope, and never raises
---@field permit fun()|nil          called before the request is sent, each time: raises when it must not be

-- Of these the transfer itself decides.
local FRAMING = { ["connection"] = true, ["content-length"] = true, ["expect"] = true, ["te"] = true,
  ["trailer"] = true, ["transfer-encoding"] = true, ["upgrade"] = true }

local function check_header(name, value)
  if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+%-.^_`|~]+$") then
    errors.raise("usage", ("%q is not the name of a header"):format(tostring(name)))
  elseif FRAMING[name:lower()] then
    errors.raise("usage", ("the header %s is set by lbox"):format(name))
  elseif type(value) ~= "string" or value:find("[%c]") then
    errors.raise("usage", ("the header %s must be a string without line breaks"):format(name))
  end
end

function Client:headers(spec, is_json)
  local list, taken = {}, {}
  for name, value in pairs(spec.headers or {}) do
    check_header(name, value)
    if spec.parts and name:lower() == "content-type" then
      errors.raise("usage", ("the header %s is set by lbox"):format(name))
    end
    taken[name:lower()] = true
    list[#list + 1] = name .. ": " .. value
  end
  table.sort(list)
  local function add(name, value)
    if not taken[name:lower()] then
      list[#list + 1] = name .. ": " .. value
    end
  end
  if self.settings.api_key then
    add("X-Box-Api-Key", self.settings.api_key)
  end
  if is_json then
    add("Content-Type", "application/json")
  end
  add("Accept", spec.mode == "sse" and "text/event-stream" or "*/*")
  add("User-Agent", "lbox/" .. core.version)
  telemetry.add(list, self.settings.telemetry)
  if spec.mode == "websocket" then
    local key
    key, spec.accept = core.websocket_key()
    add("Upgrade", "websocket")
    add("Connection", "Upgrade")
    add("Sec-WebSocket-Version", "13")
    add("Sec-WebSocket-Key", key)
  end
  return list
end

--- What messages may say of the request.
function Client:describe(spec)
  local hidden = { self.settings.api_key }
  secrets.add_all(hidden, spec.secrets)
  secrets.add_all(hidden, spec.headers)
  secrets.add(hidden, spec.json)
  secrets.add(hidden, spec.extra)
  return {
    what = spec.method .. " " .. spec.path .. (spec.subject and " of " .. spec.subject or ""),
    subject = spec.subject,
    url = self.settings.base_url,
    unix_socket = self.settings.unix_socket,
    secrets = hidden,
    lost = spec.lost or (spec.method == "POST" and "it may have been carried out" or nil),
  }
end

function Client:log(call, text, started)
  if self.settings.debug then
    io.stderr:write(("lbox: %s -> %s in %.0f ms\n"):format(call.what, text, async.now() - started))
  end
end

local function raise(spec, err)
  err.box_id = spec.box_id
  error(err, 0)
end

local function finished(req)
  return req:done()
end

local function answered(req)
  return req:status() ~= nil or req:done()
end

--- Waits for a transfer; whatever interrupts the wait ends the transfer.
local function wait(transfer, spec, ready, limit)
  local ok, in_time = pcall(transfer.wait, transfer, ready, limit, spec.progress)
  if not ok then
    if spec.undo and transfer.req:sent() then
      spec.undo(transfer)
    end
    transfer:close()
    error(in_time, 0)
  end
  return in_time
end

--- The time for an answer is over. What the request does is undone beside the caller, who has waited long
--- enough. Returns whether the request was sent.
local function expired(transfer, spec)
  if not spec.undo or not transfer.req:sent() then
    return transfer:was_sent()
  end
  async.clean_up(function()
    spec.undo(transfer)
    transfer:close()
  end)
  return true
end

--- When waiting for an answer ends: the absolute time, nil when never, and the ms it was made of.
local function limit_of(deadline, idle)
  if idle and idle > 0 and (not deadline.at or async.now() + idle < deadline.at) then
    return async.now() + idle, idle
  end
  return deadline.at, deadline.ms
end

--- The error of an attempt and what a retry has to know of it; nothing when it went well.
local function judge(call, spec, transfer, limit, try)
  local req = transfer.req
  local status = req:status()
  if spec.mode == "websocket" and status and status < 300 then
    if status ~= 101 or req:header("sec-websocket-accept") ~= spec.accept then
      return failure.nonsense(call, status), { method = spec.method, sent = true, permanent = true }
    end
  elseif status and (status < 200 or status > 299) then
    wait(transfer, spec, finished, limit)
    if status == 404 and spec.method == "DELETE" and try > 1 then
      return nil -- an earlier try did it, only its answer was lost
    end
    local answer = {
      status = status,
      body = req:body(),
      request_id = req:header("x-request-id"),
      location = req:header("location"),
    }
    return failure.api(call, answer), {
      method = spec.method, sent = true, status = status, permanent = spec.once,
      retry_after = retry.retry_after(req:header("retry-after")),
    }
  end
  local kind, text, sent, curl_code = req:failure()
  if kind and not (spec.mode and status) then
    local err = failure.network(call, kind, text, sent, curl_code)
    return err, { method = spec.method, sent = sent, permanent = not err.retryable }
  end
end

--- Sends a request once and waits for its answer, of a streamed one for its beginning. Returns the
--- transfer, and the error and what a retry has to know of it if there is one.
function Client:attempt(call, spec, options, deadline, try)
  local limit, limit_ms = limit_of(deadline, spec.idle)
  if limit and limit <= async.now() then
    raise(spec, failure.timeout(call, limit_ms, false))
  end
  local transfer = http.send(options)
  local in_time = wait(transfer, spec, spec.mode and answered or finished, limit)
  local status = transfer.req:status()
  if not in_time and (not status or status < 300) then
    self:log(call, "no answer", transfer.started)
    raise(spec, failure.timeout(call, limit_ms, expired(transfer, spec)))
  end
  local err, outcome = judge(call, spec, transfer, limit, try)
  self:log(call, err and err.message or tostring(transfer.req:status()), transfer.started)
  if err then
    transfer:close()
  end
  return transfer, err, outcome
end

--- Sends a request until it is answered well or must not be sent again. A streamed answer is
--- returned as soon as its headers are here.
---@param spec lbox.client.Spec
---@return lbox.Transfer
function Client:send(spec)
  for name in pairs(spec.opts and CALL_OPTIONS or {}) do
    if spec[name] == nil then
      spec[name] = spec.opts[name]
    end
  end
  local settings = self.settings
  local deadline = spec.deadline or self:deadline(spec.timeout)
  local body, parts = bodies.of(spec)
  local call = self:describe(spec)
  local options = {
    method = spec.method,
    headers = self:headers(spec, body ~= nil),
    body = body,
    parts = parts,
    mode = spec.mode or "buffer",
    texts = true,
    proxy = settings.proxy,
    no_proxy = settings.no_proxy,
    ca_file = settings.ca_file,
  }
  local gate = pace.gate(settings)
  local try, passed = 0, gate.passed
  while true do
    try = try + 1
    options.url = settings.base_url .. spec.path .. url.query(spec.query)
    options.unix_socket = settings.unix_socket
    local place = gate:enter(deadline.at)
    if spec.permit then
      spec.permit()
    end
    local transfer, err, outcome = self:attempt(call, spec, options, deadline, try)
    if not err then
      gate:pass()
      return transfer
    end
    local refused = retry.is_refusal(outcome)
    if refused and gate.passed > passed then
      try = try - 1 -- others got through since it was refused last: its turn comes
    end
    passed = gate.passed
    local pause = retry.delay(try, outcome)
    if refused then
      gate:refuse(place, pause)
    elseif outcome.status then
      gate:pass()
    end
    if not pause or (deadline.at and async.now() + pause >= deadline.at) then
      raise(spec, err)
    end
    if settings.is_local and not outcome.sent then
      config.locate(settings, true) -- an idle server ends itself, and is started when it is needed
    elseif not (refused and gate.shared) then
      async.sleep(pause)
    end
  end
end

--- The answer of a request that nobody waits for any more, for undoing what it did: also in a cancelled scope, for
--- CLEAN_UP_MS at most.
---@param transfer lbox.Transfer
---@return table|nil answer  nil when there is none, or it says that nothing was done
---@return integer|nil status
function M.late_answer(transfer)
  local req = transfer.req
  pcall(async.shield, function()
    transfer:wait(req.done)
  end)
  local status = req:done() and not req:failure() and req:status() or nil
  local data = status and status < 300 and json.decode(req:body())
  return type(data) == "table" and data or nil, status
end

--- Takes what a streamed answer has, and waits for what follows, until it has ended well.
local function read_on(self, spec, deadline, transfer, take)
  local req, received = transfer.req, 0
  while true do
    local _, bytes = req:next()
    if deadline.at and async.now() >= deadline.at then
      raise(spec, failure.timeout(self:describe(spec), deadline.ms, true))
    elseif bytes then
      received = received + #bytes
      take(bytes, received)
      async.checkpoint()
    elseif req:done() then
      break
    else
      transfer:wait_change(deadline.at)
    end
  end
  local kind, text, sent, curl_code = req:failure()
  if kind then
    raise(spec, failure.network(self:describe(spec), kind, text, sent, curl_code))
  end
  return received
end

--- Whether something shows that an answer of so many bytes is whole: framing that libcurl goes by (it ignores
--- other codings, and lengths that are no numbers), or a size that was known before.
local function is_whole(req, received, size)
  local coding = (req:header("transfer-encoding") or ""):lower()
  return coding:find("%f[%w]chunked%s*$") ~= nil or received == size
    or (coding == "" and tonumber(req:header("content-length") or "", 10) == received)
end

--- Sends a request whose answer is bytes (mode "raw"), and gives each piece of them, and how many there
--- were with it, to `take`, which may raise. Raises also when the answer is cut.
---@param spec lbox.client.Spec  with a deadline
---@param take fun(bytes: string, received: integer)
---@param begin (fun(req: table))|nil  called before, when the headers of the answer are here; may raise
function Client:receive(spec, take, begin)
  local transfer = self:send(spec)
  local req = transfer.req
  local ok, received = pcall(function()
    if req:status() == 206 or req:header("content-encoding") then
      self:nonsense(spec, req:status()) -- a part or a coding that nobody asked for: these bytes are not the file
    end
    if begin then
      begin(req)
    end
    return read_on(self, spec, spec.deadline, transfer, take)
  end)
  transfer:close()
  if not ok then
    error(received, 0)
  end
  if not is_whole(req, received, spec.size) then
    raise(spec, failure.network(self:describe(spec), "partial", "", true, 0))
  end
end

--- Raises for an answer that is not what the Box API answers.
function Client:nonsense(spec, status)
  raise(spec, failure.nonsense(self:describe(spec), status))
end

--- Sends a request that is answered once and decodes the answer. One without a body may be one that was cut.
---@param spec lbox.client.Spec
---@return table answer
---@return integer status
function Client:request(spec)
  local transfer = self:send(spec)
  local body, status = transfer.req:body(), transfer.req:status()
  if spec.may_be_empty and not body:find("%S") then
    return {}, status
  end
  local value = json.decode(body)
  if value == json.null then
    value = {}
  elseif type(value) ~= "table" then
    self:nonsense(spec, status)
  end
  return value, status
end

--- The same for answers whose fields are not free JSON: null in them is nil.
---@param spec lbox.client.Spec
---@return table answer
function Client:ask(spec)
  return json.strip_nulls((self:request(spec)))
end

--- What a field of an answer has as a list of tables, or of another type. Empty when the server says nothing.
---@param spec lbox.client.Spec  that was answered
---@param list any
---@param of string|nil  the type of its items: "table"
---@return any[]
function Client:list_of(spec, list, of)
  if list == nil then
    return {}
  elseif type(list) ~= "table" or (#list == 0 and next(list) ~= nil) then
    self:nonsense(spec, 200)
  end
  for _, item in ipairs(list) do
    if type(item) ~= (of or "table") then
      self:nonsense(spec, 200)
    end
  end
  return list
end

--- Asks for a list; in the answer it is the field `name`, or all of it.
---@param spec lbox.client.Spec  without its method
---@param name string|nil
---@param of string|nil  the type of its items: "table"
---@return any[]
function Client:list(spec, name, of)
  spec.method = "GET"
  local answer = self:ask(spec)
  if name then
    answer = answer[name]
  end
  return self:list_of(spec, answer, of)
end

return M
