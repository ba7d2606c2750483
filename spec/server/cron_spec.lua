-- When cron expressions are due, compared with times worked out by hand and with a plain search.
local cron = require "lbox.server.cron"
local random = require "spec.support.random"

local function at(text)
  local year, month, day, hour, minute = text:match("(%d+)-(%d+)-(%d+) (%d+):(%d+)")
  -- Days since 1970, counted year by year and month by month.
  local days, lengths = 0, { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }
  local function leap(y) return y % 4 == 0 and (y % 100 ~= 0 or y % 400 == 0) end
  for y = 1970, tonumber(year) - 1 do days = days + (leap(y) and 366 or 365) end
  for m = 1, tonumber(month) - 1 do days = days + lengths[m] + (m == 2 and leap(tonumber(year)) and 1 or 0) end
  return ((days + tonumber(day) - 1) * 24 + tonumber(hour)) * 3600 + tonumber(minute) * 60
end

local function shown(time)
  return os.date("!%Y-%m-%d %H:%M", time)
end

--- The next times after a moment.
local function times(expression, after, n)
  local parsed, list, time = assert(cron.parse(expression)), {}, at(after)
  for i = 1, n do
    time = cron.next(parsed, time)
    list[i] = shown(time)
  end
  return list
end

describe("a cron expression", function()
  it("is due at its minutes and hours, after and not at the moment asked about", function()
    assert.are.same({ "2026-11-26 13:06", "2026-11-26 13:07" }, times("* * * * *", "2026-11-26 13:05", 2))
    assert.are.same({ "2026-11-26 13:30", "2026-11-26 14:30" }, times("30 * * * *", "2026-11-26 13:05", 2))
    assert.are.same({ "2026-11-27 09:00" }, times("0 9 * * *", "2026-11-26 09:00", 1))
    assert.are.equal(at "2026-11-26 13:06", cron.next(cron.parse("* * * * *"), at "2026-11-26 13:05" + 59))
    assert.are.same({ "2027-01-01 00:00" }, times("0 0 1 1 *", "2026-12-31 23:59", 1))
  end)

  it("has lists, ranges and steps", function()
    assert.are.same({ "2026-01-01 00:05", "2026-01-01 00:10", "2026-01-01 00:20", "2026-01-01 00:21" },
      times("5,10,20-21 0 * * *", "2026-01-01 00:00", 4))
    assert.are.same({ "2026-01-01 00:20", "2026-01-01 00:40", "2026-01-01 01:00" },
      times("*/20 * * * *", "2026-01-01 00:00", 3))
    assert.are.same({ "2026-01-01 08:00", "2026-01-01 11:00", "2026-01-01 14:00", "2026-01-02 08:00" },
      times("0 8-16/3 * * *", "2026-01-01 00:00", 4))
    assert.are.same({ "2026-01-01 00:10", "2026-01-01 00:35", "2026-01-01 01:10" },
      times("10/25 * * * *", "2026-01-01 00:00", 3))
    assert.are.same({ "2026-01-01 00:59", "2026-01-01 01:59" }, times("59/7 * * * *", "2026-01-01 00:00", 2))
    assert.are.same({ "2026-01-01 00:00", "2026-01-02 00:00" }, times("*/99 */99 * * *", "2025-12-31 23:59", 2))
  end)

  it("has names, in any case", function()
    assert.are.same({ "2026-11-30 09:00", "2026-12-01 09:00" }, times("0 9 * * Mon-FRI", "2026-11-27 09:00", 2))
    assert.are.same({ "2027-02-01 00:00", "2027-04-01 00:00" }, times("0 0 1 feb,apr *", "2026-11-27 09:00", 2))
    assert.are.same({ "2026-11-27 00:00", "2026-11-28 00:00", "2026-11-29 00:00", "2026-12-04 00:00" },
      times("0 0 * * fri-sun", "2026-11-26 00:00", 4))
  end)

  it("knows Sunday as 0, 7 and by name", function()
    for _, day in ipairs { "0", "7", "sun", "6-7", "0-1", "*/7" } do
      local list = times("0 0 * * " .. day, "2026-11-24 00:00", 2)
      assert.is_truthy(list[1] == "2026-11-29 00:00" or list[2] == "2026-11-29 00:00", day)
    end
    assert.are.same({ "2026-11-29 00:00", "2026-12-06 00:00" }, times("0 0 * * 7", "2026-11-24 00:00", 2))
  end)

  it("takes one of two days for enough, unless one of them is any", function()
    -- 2026-11-13 is a Friday.
    assert.are.same({ "2026-11-06 00:00", "2026-11-13 00:00", "2026-11-20 00:00", "2026-11-27 00:00",
      "2026-12-04 00:00", "2026-12-11 00:00", "2026-12-13 00:00" }, times("0 0 13 * fri", "2026-11-01 00:00", 7))
    assert.are.same({ "2026-11-13 00:00", "2026-12-13 00:00" }, times("0 0 13 * *", "2026-11-01 00:00", 2))
    assert.are.same({ "2026-11-06 00:00", "2026-11-13 00:00" }, times("0 0 * * fri", "2026-11-01 00:00", 2))
    -- Every other day, if it is a Friday.
    assert.are.same({ "2026-11-13 00:00", "2026-11-27 00:00", "2026-12-11 00:00" },
      times("0 0 */2 * fri", "2026-11-01 00:00", 3))
  end)

  it("knows how long months and years are", function()
    assert.are.same({ "2027-01-31 00:00", "2027-03-31 00:00", "2027-05-31 00:00", "2027-07-31 00:00",
      "2027-08-31 00:00", "2027-10-31 00:00", "2027-12-31 00:00" }, times("0 0 31 * *", "2026-12-31 00:00", 7))
    assert.are.same({ "2028-02-29 12:00", "2032-02-29 12:00" }, times("0 12 29 2 *", "2026-01-01 00:00", 2))
    assert.are.same({ "2096-02-29 00:00", "2104-02-29 00:00" }, times("0 0 29 2 *", "2095-01-01 00:00", 2))
    assert.are.same({ "2000-02-29 00:00" }, times("0 0 29 2 *", "1999-03-01 00:00", 1))
    assert.are.same({ "2027-03-01 00:00" }, times("0 0 1 3 *", "2027-02-28 23:59", 1))
  end)

  it("is due when a search minute by minute says so, for a day at least", function()
    local draw = random.new(7)
    local function pick(list) return list[draw(#list)] end
    for _ = 1, 60 do
      local fields = { pick { "*", "0", "*/7", "3,50", "10-20/5" }, pick { "*", "0", "23", "*/6", "4-5" },
        pick { "*", "1", "31", "*/10", "29,30", "28-31" }, pick { "*", "2", "*/5", "feb-apr" },
        pick { "*", "0", "mon", "1-5", "*/3", "7" } }
      local text = table.concat(fields, " ")
      local parsed = cron.parse(text)
      local after = at "2027-12-30 00:00" + draw(20000) * 1800 + draw(1800)
      local found = cron.next(parsed, after)
      assert.is_true(found > after and found % 60 == 0, text)
      local function holds(time)
        local d = os.date("!*t", time)
        local function has(i, value)
          local function single(item)
            local range, step = item:match("^(.-)/(%d+)$")
            range, step = range or item, tonumber(step or 1)
            range = range:gsub("%a+", { feb = 2, apr = 4, mon = 1 })
            local low = ({ 0, 0, 1, 1, 0 })[i]
            local from, to = range:match("^(%d+)-(%d+)$")
            from, to = tonumber(from or (range == "*" and low or range)), tonumber(to or (range == "*" and 99 or range))
            return value >= from and value <= to and (value - from) % step == 0
          end
          for item in fields[i]:gmatch("[^,]+") do
            if single(item) or (i == 5 and value == 0 and single(item:gsub("7", "0"))) then return true end
          end
          return false
        end
        local by_date, by_day = has(3, d.day), has(5, d.wday - 1)
        local either = fields[3]:sub(1, 1) ~= "*" and fields[5]:sub(1, 1) ~= "*"
        return has(1, d.min) and has(2, d.hour) and has(4, d.month)
          and (either and (by_date or by_day) or (not either and by_date and by_day))
      end
      assert.is_true(holds(found), text .. " at " .. shown(found))
      for time = (after // 60 + 1) * 60, math.min(found - 60, after + 86400), 60 do
        assert.is_false(holds(time), text .. " at " .. shown(time))
      end
    end
  end)

  it("that is none is refused, with the field that is wrong", function()
    for text, why in pairs {
      [""] = "five fields are needed .*got 0",
      ["* * * *"] = "got 4",
      ["* * * * * *"] = "got 6",
      ["@daily"] = "got 1",
      ["60 * * * *"] = 'the minute "60": 60 is not within 0%-59',
      ["* 24 * * *"] = 'the hour "24": 24 is not within 0%-23',
      ["* * 0 * *"] = 'the day of the month "0": 0 is not within 1%-31',
      ["* * 32 * *"] = "32 is not within 1%-31",
      ["* * * 13 *"] = 'the month "13"',
      ["* * * 0 *"] = "0 is not within 1%-12",
      ["* * * * 8"] = 'the day of the week "8": 8 is not within 0%-7',
      ["* * * foo *"] = '"foo" is no number and no name',
      ["* * * * january"] = 'the day of the week "january"',
      ["mon * * * *"] = 'the minute "mon": "mon" is no number',
      ["*/0 * * * *"] = "a step is at least 1",
      ["1,,2 * * * *"] = "an item of the list is empty",
      [", * * * *"] = "an item of the list is empty",
      ["20-10 * * * *"] = "the range 20%-10 goes backwards",
      ["* * * * fri-mon"] = "goes backwards",
      ["1- * * * *"] = '"1%-" is no number',
      ["-1 * * * *"] = '"%-1" is no number',
      ["*/x * * * *"] = '"%*/x" is no number',
      ["1/2/3 * * * *"] = "is no number",
      ["1.5 * * * *"] = "is no number",
      ["0x10 * * * *"] = "is no number",
      ["* * L * *"] = 'the day of the month "L"',
      ["* * ? * *"] = 'the day of the month "%?"',
      ["0 0 30 2 *"] = "there is no such day",
      ["0 0 31 4,6,9,11 *"] = "there is no such day",
    } do
      local parsed, message = cron.parse(text)
      assert.is_nil(parsed, text)
      assert.matches("^cron \"", message)
      assert.matches(why, message)
    end
    assert.is_truthy(cron.parse("0 0 30 2 mon"))
    assert.matches("more than 500", select(2, cron.parse(("1,"):rep(300) .. "1 * * * *")))
  end)
end)
