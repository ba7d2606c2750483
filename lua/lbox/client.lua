--- The Box API's side of HTTP: address and key, retries by class, deadlines, and errors for people.
local async = require "lbox.async"
local config = require "lbox.config"
local core = require "lbox.core"
local errors = require "lbox.errors"
local http = require "lbox.http"
local json = require "lbox.json"

local M = {}

local FIRST_DELAY_MS, LONGEST_DELAY_MS = 250, 8000
local MAX_TRIES = 5
local SHOWN_BODY = 300

---@class lbox.Client
---@field settings table
local Client = {}
Client.__index = Client

--- A client with the settings of these options.
---@param opts table|nil
---@return lbox.Client
function M.new(opts)
  return setmetatable({ settings = config.resolve(opts) }, Client)
end

-- ---------------------------------------------------------------------------------- requests

local IDEMPOTENT = { GET = true, PUT = true, DELETE = true, HEAD = true }
local TRY_AGAIN = { [429] = true, [502] = true, [503] = true, [504] = true }

--- Percent-encodes a path segment.
function M.segment(text)
  return (text:gsub("[^%w%-%._~]", function(char)
    return ("%%%02X"):format(char:byte())
  end))
end

local function query_string(query)
  local names = {}
  for name in pairs(query or {}) do
    names[#names + 1] = name
  end
  table.sort(names)
  for i, name in ipairs(names) do
    names[i] = M.segment(name) .. "=" .. M.segment(tostring(query[name]))
  end
  return #names > 0 and "?" .. table.concat(names, "&") or ""
end

local PLATFORMS = { { "UPSTASH_CONSOLE", "console" }, { "VERCEL", "vercel" },
  { "CF_PAGES", "cloudflare" }, { "AWS_LAMBDA_FUNCTION_NAME", "aws" }, { "AWS_REGION", "aws" },
  { "CI", "ci" } }

local function runtime()
  local jit = rawget(_G, "jit")
  if jit then
    return "luajit@" .. jit.version:match("%d+%.%d+")
  end
  return "lua@" .. _VERSION:match("%d+%.%d+")
end

local function telemetry_headers(headers)
  local platform = "unknown"
  for _, rule in ipairs(PLATFORMS) do
    if os.getenv(rule[1]) then
      platform = rule[2]
      break
    end
  end
  headers[#headers + 1] = "Upstash-Telemetry-Sdk: lbox@" .. core.version
  headers[#headers + 1] = "Upstash-Telemetry-Runtime: " .. runtime()
  headers[#headers + 1] = "Upstash-Telemetry-Platform: " .. platform
end

--- Address of the server: base URL and, for a local one, its socket.
function Client:address()
  if self.settings.base_url ~= "local" then
    return self.settings.base_url, nil
  end
  local server = require("lbox.local_server").connect(self)
  return server.base_url, server.socket
end

---@param call { method: string, path: string, query: table|nil, json: any, mode: string|nil,
---  headers: table|nil, max_body: integer|nil }
function Client:build(call)
  local settings = self.settings
  local base, socket = self:address()
  local headers = { "Accept: application/json, text/event-stream, */*" }
  if settings.api_key and not socket then
    headers[#headers + 1] = "X-Box-Api-Key: " .. settings.api_key
  end
  if settings.telemetry then
    telemetry_headers(headers)
  end
  for name, value in pairs(call.headers or {}) do
    local line = tostring(name) .. ": " .. tostring(value)
    if line:find("[%c]") then
      errors.raise("usage", ("header %q has a control character in it"):format(tostring(name)))
    end
    headers[#headers + 1] = line
  end
  local body
  if call.json ~= nil then
    headers[#headers + 1] = "Content-Type: application/json"
    local ok, text = pcall(json.encode, call.json)
    if not ok then
      errors.raise("usage", "the request cannot be written as JSON: " .. tostring(text))
    end
    body = text
  end
  if settings.debug then
    io.stderr:write(("[lbox] %s %s%s\n"):format(call.method, base, call.path))
  end
  return {
    method = call.method,
    url = base .. call.path .. query_string(call.query),
    headers = headers,
    body = body,
    mode = call.mode,
    max_body = call.max_body,
    unix_socket = socket,
    proxy = settings.proxy,
    no_proxy = settings.no_proxy,
    ca_file = settings.ca_file,
  }
end

-- ------------------------------------------------------------------------------------ errors

--- Text of a server for an error message: one line, bounded, with no key in it.
function Client:excerpt(text)
  text = text:gsub("%c+", " "):gsub("^%s+", "")
  local key = self.settings.api_key
  if key and #key > 3 then
    local at, last = text:find(key, 1, true)
    while at do
      text = text:sub(1, at - 1) .. "…" .. text:sub(last + 1)
      at, last = text:find(key, at + 1, true)
    end
  end
  text = text:gsub("box_[%w_%-]+", "box_…")
  if #text > SHOWN_BODY then
    text = text:sub(1, SHOWN_BODY) .. "…"
  end
  return text
end

local function host_of(url)
  local host = (url:match("^%a+://([^/?#]+)") or url):gsub("^.*@", "")
  return host
end

--- What a failed transfer means.
function Client:network_error(failure, url)
  local where = self.settings.base_url == "local" and "the local server" or host_of(url)
  local sentences = {
    resolve = "the name of %s was not found",
    connect = "cannot connect to %s",
    tls = "no secure connection to %s",
    proxy = "the proxy on the way to %s failed",
    send = "the connection to %s broke while sending",
    recv = "%s closed the connection before it answered",
    rewind = "%s closed the connection before it answered; the request may have been carried out, "
      .. "so it is not sent again",
    partial = "the answer of %s was cut off",
    too_large = "the answer of %s is too large",
    other = "the transfer with %s failed",
  }
  local text = (sentences[failure.kind] or sentences.other):format(where)
  if failure.text ~= "" then
    text = ("%s (%s)"):format(text, self:excerpt(failure.text))
  end
  return errors.new("network", text, {
    code = failure.kind, sent = failure.sent,
    retryable = not failure.sent or failure.kind == "recv" or failure.kind == "partial",
  })
end

--- What an answer that is not 2xx means (box-api.md §1.0).
function Client:api_error(status, body, header)
  local decoded = json.decode(body)
  local message = type(decoded) == "table" and type(decoded.error) == "string" and decoded.error ~= ""
    and decoded.error
  if not message then
    message = ("Request failed with status %d"):format(status)
    if type(decoded) ~= "table" and body:find("%S") then
      message = message .. ": " .. self:excerpt(body)
    end
  end
  return errors.new("api", self:excerpt(message), {
    status_code = status,
    code = type(decoded) == "table" and type(decoded.code) == "string" and decoded.code or nil,
    request_id = header and header("x-request-id") or nil,
    retry_after = header and tonumber(header("retry-after")) or nil,
    retryable = TRY_AGAIN[status] or status == 408 or status >= 500,
  })
end

-- ----------------------------------------------------------------------------------- sending

--- Whether a request that ended so may be sent again (doc/design.md, Retries).
local function may_retry(method, err)
  if err.kind == "network" then
    if err.sent == false then
      return err.code ~= "tls" and err.code ~= "proxy"
    end
    return IDEMPOTENT[method] and (err.code == "recv" or err.code == "partial" or err.code == "send")
  elseif err.kind == "api" then
    if IDEMPOTENT[method] then
      return TRY_AGAIN[err.status_code]
    end
    return (err.status_code == 429 or err.status_code == 503) and err.retry_after ~= nil
  end
  return false
end

local function retry_delay(try, err)
  if err.retry_after then
    return err.retry_after * 1000
  end
  local most = math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ^ (try - 1))
  return math.random() * most
end

--- Runs `once(try)` again as its errors allow, within `deadline`.
local function with_retries(method, deadline, once)
  local try = 1
  while true do
    local ok, result = pcall(once, try)
    if ok then
      return result
    end
    if not errors.is(result) or try >= MAX_TRIES or not may_retry(method, result) then
      error(result, 0)
    end
    local delay = retry_delay(try, result)
    if deadline and async.now() + delay >= deadline then
      error(result, 0)
    end
    async.sleep(delay)
    try = try + 1
  end
end

--- Absolute end of a call that begins now; nil for none. `timeout` 0 means none.
function Client:deadline(timeout)
  if timeout == nil then
    timeout = self.settings.timeout
  end
  return timeout > 0 and async.now() + timeout or nil
end

function Client.late(what)
  return errors.new("timeout", what .. " was not answered in time", { retryable = true })
end

--- Waits for the header block. Raises for a failed transfer and for the deadline.
function Client:wait_headers(exchange, url, deadline)
  local req = exchange.req
  while not req:status() do
    local failure = exchange:failure()
    if failure then
      error(self:network_error(failure, url), 0)
    elseif req:done() then
      error(self:network_error({ kind = "recv", text = "", sent = true }, url), 0)
    end
    if not exchange:wait_change(deadline) then
      error(self.late("the request"), 0)
    end
  end
end

--- Reads a whole body that is collected, and closes the exchange.
function Client:wait_body(exchange, url, deadline)
  local req = exchange.req
  while not req:done() do
    if not exchange:wait_change(deadline) then
      error(self.late("the request"), 0)
    end
  end
  local failure = exchange:failure()
  if failure then
    error(self:network_error(failure, url), 0)
  end
  return req:body()
end

--- Ends an exchange on every way out of `fn`.
local function closing(exchange, ok, ...)
  exchange:close()
  if not ok then
    error((...), 0)
  end
  return ...
end

--- Sends a call once and returns the whole answer; raises for anything but 2xx.
function Client:once(call, deadline)
  local request = self:build(call)
  local exchange = http.send(request)
  return closing(exchange, pcall(function()
    self:wait_headers(exchange, request.url, deadline)
    local body = self:wait_body(exchange, request.url, deadline)
    local status = exchange.req:status()
    if status < 200 or status > 299 then
      error(self:api_error(status, body, function(name) return exchange.req:header(name) end), 0)
    end
    return body
  end))
end

--- Makes a call and returns the decoded answer ({} for an empty one).
---@param call table  method, path, query, json, headers, timeout (ms, 0 none), what = the call's name
---@return any
function Client:request(call)
  local deadline = self:deadline(call.timeout)
  local body = with_retries(call.method, deadline, function(try)
    local ok, result = pcall(self.once, self, call, deadline)
    if not ok and try > 1 and call.method == "DELETE" and errors.is(result, "api")
      and result.status_code == 404 then
      return "" -- the try before this one did it
    end
    if not ok then
      error(result, 0)
    end
    return result
  end)
  if not body:find("%S") then
    return {}
  end
  local value, why = json.decode(body)
  if value == nil then
    errors.raise("api", ("the answer is not JSON (%s): %s"):format(why, self:excerpt(body)))
  end
  return value
end

--- Opens a streaming answer: returns the exchange once its status is known to be 2xx.
---@param call table  as for request, with `mode`
---@param deadline number|nil  absolute ms
---@param idle_ms number|nil  bounds the wait for the headers when there is no deadline
function Client:open_stream(call, deadline, idle_ms)
  return with_retries(call.method, deadline, function()
    local request = self:build(call)
    local exchange = http.send(request)
    local ok, err = pcall(function()
      local headers_by = deadline or (idle_ms and idle_ms > 0 and async.now() + idle_ms) or nil
      self:wait_headers(exchange, request.url, headers_by)
      local status = exchange.req:status()
      if status < 200 or status > 299 then
        local body = self:wait_body(exchange, request.url, headers_by)
        error(self:api_error(status, body, function(name) return exchange.req:header(name) end), 0)
      end
    end)
    if not ok then
      exchange:close()
      error(err, 0)
    end
    exchange.url = request.url
    return exchange
  end)
end

return M
