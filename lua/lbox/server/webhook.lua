--- Telling somebody by HTTP how a run ended.
local async = require "lbox.async"
local core = require "lbox.core"
local errors = require "lbox.errors"
local http = require "lbox.http"
local json = require "lbox.json"
local url = require "lbox.url"

local M = {}

local TRIES, PAUSE_MS, TIMEOUT_MS = 4, 1000, 10000
local MAX_ANSWER = 64 * 1024
local MAX_URL, MAX_HEADERS, MAX_PORT = 2048, 8192, 65535

-- They say where a request goes and where it ends, which whoever sends it has to know better.
local RESERVED = { connection = true, ["content-length"] = true, expect = true, host = true, ["keep-alive"] = true,
  ["proxy-connection"] = true, te = true, trailer = true, ["transfer-encoding"] = true, upgrade = true }

local function refuse(message)
  errors.raise("api", message, { status_code = 400 })
end

--- Whether it is a URL of http or https, of a port that can be.
local function is_url(text)
  local authority = text:match("^[Hh][Tt][Tt][Pp][Ss]?://([^%s%c/?#]+)[^%s%c]*$")
  local port = authority and authority:gsub("^.*@", ""):gsub("^%[.*%]", ""):match(":(.*)$") or ""
  return authority ~= nil and (port == "" or port:match("^%d+$") and tonumber(port) >= 1 and tonumber(port) <= MAX_PORT)
end

--- Raises 400 unless a webhook can be told there.
---@param to string|nil
---@param headers table<string, string>|nil
---@param named string|nil  what comes before the names of the two fields
function M.check(to, headers, named)
  named = named or "webhook_"
  if to and (#to > MAX_URL or not is_url(to)) then
    refuse(("%surl %q: an http or https URL of at most %d characters and a port up to %d"):format(named,
      to:sub(1, 200), MAX_URL, MAX_PORT))
  end
  local size = 0
  for name, value in pairs(headers or {}) do
    if type(name) ~= "string" or not name:match("^[%w!#$%%&'*+.^_`|~-]+$") then
      refuse(("%sheaders: %q is no name of a header"):format(named, tostring(name)))
    elseif RESERVED[name:lower()] then
      refuse(("%sheaders: %s is set by who sends the request"):format(named, name))
    elseif type(value) ~= "string" or value:find("[%c]") then
      refuse(("%sheaders: the value of %s must be a string without control characters"):format(named, name))
    end
    size = size + #name + #value
  end
  if size > MAX_HEADERS then
    refuse(("%sheaders: at most %d bytes of them"):format(named, MAX_HEADERS))
  end
end

local function header_lines(headers)
  local lines, taken = {}, {}
  for name, value in pairs(headers or {}) do
    lines[#lines + 1] = name .. ": " .. value
    taken[name:lower()] = true
  end
  for name, value in pairs { ["Content-Type"] = "application/json", ["User-Agent"] = "lbox/" .. core.version } do
    if not taken[name:lower()] then
      lines[#lines + 1] = name .. ": " .. value
    end
  end
  return lines
end

--- Sends once: nil when it arrived, or why not and whether trying again can help.
local function send(to, lines, body)
  local transfer = http.send { method = "POST", url = to, headers = lines, body = body, mode = "buffer",
    max_body = MAX_ANSWER }
  local in_time = transfer:wait(function(req) return req:done() end, async.now() + TIMEOUT_MS)
  local status = transfer.req:status()
  transfer:close()
  if not in_time then
    return ("no answer within %d ms"):format(TIMEOUT_MS), true
  elseif not status then
    return "it cannot be reached", true
  elseif status >= 300 then
    return "status " .. status, status >= 500 or status == 429 or status == 408
  end
end

--- Posts `payload`, again when that fails and may yet succeed. Returns why it was given up, or nil.
---@param to string
---@param headers table<string, string>|nil
---@param payload table
---@return string|nil why
function M.post(to, headers, payload)
  local lines, body = header_lines(headers), json.encode(payload)
  for try = 1, TRIES do
    local why, again = send(to, lines, body)
    if not why then
      return nil
    elseif not again or try == TRIES then
      return ("the webhook at %s was not told: %s"):format(url.origin(to), why)
    end
    async.sleep(PAUSE_MS * 4 ^ (try - 1))
  end
end

return M
