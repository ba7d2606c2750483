--- The one kind of object that everything raises: a table with `kind`, `message` and what is known of
--- what broke. See doc/manual.md, Errors.
local M = {}

---@class lbox.Error
---@field kind "usage"|"api"|"network"|"timeout"|"cancelled"|"stream"|"schema"|"run"|"budget"|"local"
---@field message string       one sentence, no secrets, no traceback
---@field status_code integer|nil  of an `api` error
---@field code string|nil
---@field request_id string|nil
---@field retryable boolean    whether trying again can help
---@field run_id string|nil
---@field box_id string|nil
---@field partial string|nil   text received before it broke off
---@field cost table|nil
---@field cause any            the error below
---@field traceback string|nil
local Error_mt = { __name = "lbox.Error" }

local KINDS = {
  usage = true, api = true, network = true, timeout = true, cancelled = true, stream = true,
  schema = true, run = true, budget = true, ["local"] = true,
}

function Error_mt.__tostring(err)
  return ("lbox: %s: %s"):format(err.kind, err.message)
end

function Error_mt.__concat(a, b)
  return tostring(a) .. tostring(b)
end

--- Makes an error object; it is not raised. Its message is one line of text, also when the words of a server in
--- it are not: they must move no cursor and forge no line of a log.
---@param kind string
---@param message string
---@param fields table|nil  copied into the object
---@return lbox.Error
function M.new(kind, message, fields)
  assert(KINDS[kind], "no such kind of error: " .. tostring(kind))
  local err = { retryable = false }
  for name, value in pairs(fields or {}) do
    err[name] = value
  end
  err.kind, err.message = kind, (message:gsub("%c+", " "):gsub("\194[\128-\159]", " "))
  return setmetatable(err, Error_mt)
end

--- Makes and raises an error.
function M.raise(kind, message, fields)
  error(M.new(kind, message, fields), 0)
end

--- Whether `value` is one of our errors, of `kind` when that is given.
---@param value any
---@param kind string|nil
---@return boolean
function M.is(value, kind)
  return getmetatable(value) == Error_mt and (kind == nil or value.kind == kind)
end

--- Adds a traceback to an error object that has none. Other values stay as they are.
function M.trace(value, traceback)
  if M.is(value) and value.traceback == nil then
    value.traceback = traceback
  end
  return value
end

--- Number of single-character edits (insert, delete, replace, swap) between two words.
local function distance(a, b)
  local before, previous = {}, {}
  for j = 0, #b do
    previous[j] = j
  end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      row[j] = math.min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], before[j - 2] + 1)
      end
    end
    before, previous = previous, row
  end
  return previous[#b]
end

--- The word of `list` that `word` was probably meant to be, or nil when none is near.
---@param word string
---@param list string[]
---@return string|nil
function M.nearest(word, list)
  local best, best_distance
  for _, candidate in ipairs(list) do
    local d = distance(word:lower(), candidate:lower())
    if not best_distance or d < best_distance then
      best, best_distance = candidate, d
    end
  end
  if best and best_distance <= math.max(1, math.floor(math.max(#word, #best) / 3)) then
    return best
  end
end

return M
