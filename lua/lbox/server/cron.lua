--- Times of cron expressions, in UTC: minute, hour, day of the month, month, day of the week. In each `*`,
--- values, ranges, steps and lists of them; months and days of the week also by name. When neither day is
--- `*` (with or without a step), one of the two is enough.
local M = {}

local MINUTE, HOUR, DAY = 60, 3600, 86400
-- The 29th of February comes again after eight years at the latest.
local MAX_DAYS = 8 * 366 + 1
local MAX_TEXT = 500

local function numbered(first, names)
  local numbers = {}
  for i, name in ipairs(names) do
    numbers[name] = first + i - 1
  end
  return numbers
end

local FIELDS = {
  { name = "minute", first = 0, last = 59 },
  { name = "hour", first = 0, last = 23 },
  { name = "day of the month", first = 1, last = 31 },
  { name = "month", first = 1, last = 12, names = numbered(1, { "jan", "feb", "mar", "apr", "may", "jun", "jul",
    "aug", "sep", "oct", "nov", "dec" }) },
  -- Sunday is 0 and 7.
  { name = "day of the week", first = 0, last = 7,
    names = numbered(0, { "sun", "mon", "tue", "wed", "thu", "fri", "sat" }) },
}

-- ------------------------------------------------------------------------------------- reading

--- Raises a string: what is wrong with a field.
local function wrong(field, text, why)
  error(("the %s %q: %s"):format(field.name, text, why), 0)
end

local function value_of(field, word, text)
  local value = word:match("^%d+$") and #word <= 4 and math.tointeger(tonumber(word))
    or field.names and field.names[word:lower()]
  if not value then
    wrong(field, text, ("%q is no number%s"):format(word, field.names and " and no name" or ""))
  elseif value < field.first or value > field.last then
    wrong(field, text, ("%d is not within %d-%d"):format(value, field.first, field.last))
  end
  return value
end

--- First, last and step of one item of a list.
local function range_of(field, item, text)
  local range, step = item:match("^([^/]+)/(%d+)$")
  range = range or item
  local from, to = range:match("^([^-]+)-([^-]+)$")
  if range == "*" then
    from, to = field.first, field.last
  elseif from then
    from, to = value_of(field, from, text), value_of(field, to, text)
    if to == 0 and from > 0 and field.last == 7 then
      to = 7 -- fri-sun
    end
  else
    from = value_of(field, range, text)
    to = step and field.last or from
  end
  step = math.tointeger(tonumber(step or "1"))
  if from > to then
    wrong(field, text, ("the range %s goes backwards"):format(range))
  elseif not step or step < 1 then
    wrong(field, text, "a step is at least 1")
  end
  return from, to, step
end

--- The set of a field's values.
local function read_field(field, text)
  local set = { any = text:sub(1, 1) == "*" }
  for item in (text .. ","):gmatch("([^,]*),") do
    if item == "" then
      wrong(field, text, "an item of the list is empty")
    end
    local from, to, step = range_of(field, item, text)
    for value = from, to, step do
      set[value] = true
    end
  end
  if field.last == 7 and set[7] then
    set[0] = true
  end
  return set
end

local function read(text)
  if #text > MAX_TEXT then
    error(("it has more than %d characters"):format(MAX_TEXT), 0)
  end
  local words = {}
  for word in text:gmatch("%S+") do
    words[#words + 1] = word
  end
  if #words ~= #FIELDS then
    error(("five fields are needed (minute, hour, day of the month, month, day of the week), got %d"):format(#words), 0)
  end
  local cron = {}
  for i, field in ipairs(FIELDS) do
    cron[i] = read_field(field, words[i])
  end
  return cron
end

--- A cron expression, read: nil and what is wrong with it when it is none.
---@param text string
---@return table|nil cron
---@return string|nil why
function M.parse(text)
  local ok, result = pcall(read, text)
  if not ok then
    return nil, ("cron %q: %s"):format(#text > MAX_TEXT and text:sub(1, MAX_TEXT) or text, result)
  elseif not M.next(result, 0) then
    return nil, ("cron %q: there is no such day"):format(text)
  end
  return result
end

-- --------------------------------------------------------------------------------------- times

--- Month and day of a day counted from 1970-01-01. The year begins in March here, so that the day that only
--- leap years have is the last.
local function date_of(day)
  local since = day + 719468 -- from 0000-03-01 on
  local in_era = since % 146097
  local year = (in_era - in_era // 1460 + in_era // 36524 - in_era // 146096) // 365
  local in_year = in_era - (365 * year + year // 4 - year // 100)
  local month = (5 * in_year + 2) // 153
  return month < 10 and month + 3 or month - 9, in_year - (153 * month + 2) // 5 + 1
end

local function is_day(cron, day)
  local month, date = date_of(day)
  if not cron[4][month] then
    return false
  end
  local by_date, by_weekday = cron[3][date], cron[5][(day + 4) % 7]
  if cron[3].any or cron[5].any then
    return by_date and by_weekday
  end
  return by_date or by_weekday
end

--- The first time after `after` (both Unix seconds); nil when there is none.
---@param cron table     of `parse`
---@param after integer
---@return integer|nil
function M.next(cron, after)
  local start = (after // MINUTE + 1) * MINUTE
  local first = start // DAY
  for day = first, first + MAX_DAYS do
    if is_day(cron, day) then
      local from = day == first and start % DAY or 0
      for hour = from // HOUR, 23 do
        local minute = hour == from // HOUR and from % HOUR // MINUTE or 0
        while cron[2][hour] and minute < 60 do
          if cron[1][minute] then
            return day * DAY + hour * HOUR + minute * MINUTE
          end
          minute = minute + 1
        end
      end
    end
  end
end

return M
