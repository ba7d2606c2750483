--- Turns what went wrong with a request into one error object: one sentence, no secrets.
local core = require "lbox.core"
local errors = require "lbox.errors"
local json = require "lbox.json"
local url = require "lbox.url"

local M = {}

local MAX_MESSAGE = 500
local MAX_EXCERPT = 200

-- A shorter secret would tear ordinary words apart.
local MIN_SECRET = 6

-- How keys of the services that boxes meet begin, as patterns; a word as short as box_ids is none.
local KEY_PREFIXES = { "box_", "abx_", "sk%-", "ghp_", "github_pat_" }
local LONG_KEY = 16

-- Codes of libcurl for certificates: trying again changes nothing.
local BAD_CERTIFICATE = { [51] = true, [58] = true, [60] = true, [77] = true, [83] = true }

--- Takes known secrets, and what looks like one, out of a text: also as they are within JSON, and on one line. Before
--- anything is cut or folded, or a part of one would stay.
---@param text string
---@param secrets string[]|nil
---@return string
function M.redact(text, secrets)
  for _, secret in ipairs(secrets or {}) do
    if #secret >= MIN_SECRET then
      local quoted = core.json_quote(secret):sub(2, -2)
      local on_one_line = secret:gsub("[%c%s]+", " ")
      for _, form in ipairs { secret, quoted, (quoted:gsub("\\/", "/")), on_one_line } do
        text = text:gsub(form:gsub("[%p%z]", function(c) return c == "\0" and "%z" or "%" .. c end), "[redacted]")
      end
    end
  end
  text = text:gsub("([Bb]earer%s+)[%w%-._~+/=]+", "%1[redacted]")
  for _, prefix in ipairs(KEY_PREFIXES) do
    text = text:gsub("%f[%w]" .. prefix .. "[%w_-]+", function(key)
      return #key >= LONG_KEY and "[redacted]" or nil
    end)
  end
  return text
end

--- One line of printable text, cut to `max` bytes at a character's start.
local function tidy(text, max)
  text = text:gsub("[%c%s]+", " "):gsub("^ ", ""):gsub(" $", "")
  if #text <= max then
    return text
  end
  local cut = max
  while cut > 0 and text:byte(cut + 1) >= 128 and text:byte(cut + 1) < 192 do
    cut = cut - 1
  end
  return text:sub(1, cut) .. "…"
end

--- What a server or an agent said, fit for a message.
---@param text string
---@param secrets string[]|nil
---@param max integer|nil  bytes
---@return string
function M.said(text, secrets, max)
  return tidy(M.redact(text, secrets), max or MAX_MESSAGE)
end

local function is_permanent(kind, curl_code)
  return kind == "too_large" or kind == "other"
    or (kind == "tls" and BAD_CERTIFICATE[curl_code] or false)
end

--- What a sentence about a broken transfer says. `call` is "GET /v2/box", `origin` the server.
local SENTENCES = {
  resolve = function(call)
    return ("the host name %q cannot be resolved: check base_url and the network"):format(call.host)
  end,
  connect = function(call, text)
    return ("cannot connect to %s: %s"):format(call.origin, text)
  end,
  tls = function(call, text)
    return ("no secure connection to %s: %s"):format(call.origin, text)
  end,
  proxy = function(_, text)
    return "the proxy did not let the request through: " .. text
  end,
  partial = function(call)
    return ("the answer to %s was cut off"):format(call.what)
  end,
  too_large = function(call, text)
    return ("the answer to %s cannot be taken: %s"):format(call.what, text)
  end,
  other = function(call, text)
    return ("%s failed: %s"):format(call.what, text)
  end,
}

local function broke(call)
  return ("the connection to %s broke before %s was answered"):format(call.origin, call.what)
end
SENTENCES.send, SENTENCES.recv, SENTENCES.rewind, SENTENCES.cancelled = broke, broke, broke, broke

---@class lbox.failure.Call  what a message may say of a request
---@field what string  "POST /v2/box"
---@field subject string|nil  "/workspace/home/a": what of many things the request is about
---@field url string
---@field secrets string[]|nil
---@field lost string|nil  what may have happened when no answer came: "a box may have been created"

--- The error of a transfer that broke, and whether trying again may help at all.
---@param call lbox.failure.Call
---@param kind string  as request:failure() of lbox.core names it
---@param text string
---@param sent boolean
---@param curl_code integer
function M.network(call, kind, text, sent, curl_code)
  if kind == "file" then -- the fault is on this side, and no server has the whole request
    return errors.new("usage", M.said(text, call.secrets), { not_sent = not sent or nil })
  end
  local facts = {
    what = call.what,
    origin = call.unix_socket and "the local server" or url.origin(call.url),
    host = url.host(call.url),
  }
  local message = SENTENCES[kind](facts, M.said(text, call.secrets, MAX_EXCERPT))
  if sent and call.lost then
    message = message .. "; " .. call.lost
  end
  return errors.new("network", M.redact(message, call.secrets), {
    retryable = not is_permanent(kind, curl_code), not_sent = not sent or nil,
  })
end

--- The error for a deadline that passed.
---@param call lbox.failure.Call
---@param ms number
---@param sent boolean
function M.timeout(call, ms, sent)
  local message = ("no answer to %s within %.14g ms"):format(call.what, ms)
  if sent and call.lost then
    message = message .. "; " .. call.lost
  end
  return errors.new("timeout", message, { retryable = true, not_sent = not sent or nil })
end

--- The server's own words about an error, from the body of its answer.
local function server_message(body)
  local value = json.decode(body)
  if type(value) ~= "table" then
    return nil
  end
  local message, code = value.error, value.code
  if type(message) == "table" then
    message, code = message.message, message.code or code
  elseif type(message) ~= "string" or message == "" then
    message = value.message
  end
  message = type(message) == "string" and message:find("%S") and message or nil
  return message, type(code) == "string" and code or nil, true
end

local RETRYABLE_STATUS = { [408] = true, [429] = true, [500] = true, [502] = true, [503] = true,
  [504] = true }

--- The error for an answer with a status that is not 2xx.
---@param call lbox.failure.Call
---@param answer { status: integer, body: string, request_id: string|nil, location: string|nil }
function M.api(call, answer)
  local status = answer.status
  local said, code, is_json = server_message(answer.body)
  local message
  if said then
    message = ("%s (%d)"):format(M.said(said, call.secrets), status)
    if call.subject then
      message = call.subject .. ": " .. message
    end
  elseif status < 400 and answer.location then
    message = ("the server redirects %s to %s (%d): set base_url to the address of the Box API")
      :format(call.what, url.origin(answer.location), status)
  else
    message = ("request failed with status %d (%s)"):format(status, call.what)
    local excerpt = M.said(answer.body, call.secrets, MAX_EXCERPT)
    if not is_json and excerpt ~= "" then
      message = message .. ": " .. excerpt
    end
  end
  if status == 401 then
    message = "the server refused the API key: " .. message
  end
  return errors.new("api", M.redact(message, call.secrets), {
    status_code = status,
    code = code and M.said(code, call.secrets, MAX_EXCERPT),
    request_id = answer.request_id and M.said(answer.request_id, call.secrets, MAX_EXCERPT),
    retryable = RETRYABLE_STATUS[status] or false,
  })
end

--- The error for an answer with a good status that is not what the Box API answers.
---@param call lbox.failure.Call
---@param status integer
function M.nonsense(call, status)
  local message = ("the answer to %s is not what a Box API answers: check base_url (%s)"):format(
    call.what, url.origin(call.url))
  return errors.new("api", message, { status_code = status })
end

-- The hosted service gives up a command that it answers at once after some five minutes; the command goes on.
local LONG_MS = 240000

--- The error of a command that was to be answered at once, which says so when it may only have been too long for
--- that.
---@param err any
---@param ms number  how long the answer took
---@return any
function M.of_command(err, ms)
  if errors.is(err, "api") and err.status_code == 500 and ms >= LONG_MS then
    err.message = err.message .. "; the command may go on in the box: box.exec:stream and box.exec:session are for "
      .. "commands that take so long"
  end
  return err
end

return M
