--- When a request may be sent again. (a) what provably never left this machine always; (b) what is
--- idempotent also after a broken connection, 429 and 502 to 504; (c) a POST else only when the
--- server itself says when to come back.
local core = require "lbox.core"

local M = {}

local MAX_TRIES = 4
local BASE_MS, CAP_MS = 200, 5000
-- Who asks for more is not waited for.
local LONGEST_MS = 600000
-- A longer Retry-After is none; its date would be looked for from each digit on.
local LONGEST_VALUE = 64

local IDEMPOTENT = { GET = true, PUT = true, DELETE = true }
local BUSY = { [429] = true, [502] = true, [503] = true, [504] = true }
local ASKS_TO_WAIT = { [429] = true, [503] = true }

local MONTHS = { Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9,
  Oct = 10, Nov = 11, Dec = 12 }

--- Unix seconds of an HTTP date, nil when it is none.
local function http_date(text)
  local day, month, year, hour, min, sec =
    text:match("(%d+) (%a%a%a) (%d%d%d%d) (%d+):(%d+):(%d+) GMT")
  month = MONTHS[month]
  if not month then
    return nil
  end
  -- Days since 1970 of a date in the Gregorian calendar, with years that begin in March.
  year, day = tonumber(year), tonumber(day)
  local y = month <= 2 and year - 1 or year
  local m = month <= 2 and month + 9 or month - 3
  local days = 365 * y + math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400)
    + math.floor((153 * m + 2) / 5) + day - 719469
  return days * 86400 + tonumber(hour) * 3600 + tonumber(min) * 60 + tonumber(sec)
end

--- What a Retry-After header asks for, in ms; nil when it is missing or makes no sense.
---@param value string|nil
---@param now number|nil  Unix seconds
---@return number|nil
function M.retry_after(value, now)
  if not value or #value > LONGEST_VALUE then
    return nil
  end
  local seconds = tonumber(value)
  if not seconds then
    local at = http_date(value)
    seconds = at and at - (now or os.time())
  end
  if seconds and seconds == seconds and seconds < math.huge then
    return math.max(0, seconds * 1000)
  end
end

--- Back-off with full jitter: anything from 0 to a bound that doubles with every try.
local function backoff(try)
  local bound = math.min(CAP_MS, BASE_MS * 2 ^ (try - 1))
  local high, low = core.random(2):byte(1, 2)
  return bound * (high * 256 + low) / 65535
end

---@class lbox.retry.Outcome
---@field method string
---@field sent boolean          whether any byte of the request may have left
---@field permanent boolean     whether the same failure is bound to come again
---@field status integer|nil    nil when the connection failed
---@field retry_after number|nil  ms

--- Whether the server did nothing because it was asked too often.
---@param outcome lbox.retry.Outcome|nil
function M.is_refusal(outcome)
  local status = outcome and outcome.status
  return status == 429 or (status == 503 and outcome.retry_after ~= nil)
end

--- How long to wait before the next try, nil when there must be none.
---@param try integer  how many were made
---@param outcome lbox.retry.Outcome
---@return number|nil ms
function M.delay(try, outcome)
  if try >= MAX_TRIES or outcome.permanent or (outcome.retry_after or 0) > LONGEST_MS then
    return nil
  end
  local again
  if outcome.status then
    again = (IDEMPOTENT[outcome.method] and BUSY[outcome.status])
      or (ASKS_TO_WAIT[outcome.status] and outcome.retry_after)
  else
    again = not outcome.sent or IDEMPOTENT[outcome.method]
  end
  return again and math.max(outcome.retry_after or 0, backoff(try)) or nil
end

return M
