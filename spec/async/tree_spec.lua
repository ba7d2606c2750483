-- Random trees of tasks with random sleeps, errors, cancels and time limits. Whatever happens: no
-- task outlives its scope, a cancelled scope raises one object at every wait, results come in the
-- promised order, and nothing stays.
local async = require "lbox.async"
local errors = require "lbox.errors"
local left = require "spec.support.left"
local randoms = require "spec.support.random"

local CASES, BATCH = 3000, 100

local random

-- Known tasks of the case; a random one of them is cancelled now and then.
local all, problems
-- Every task and coroutine there was, as long as somebody holds it.
local alive = setmetatable({}, { __mode = "k" })

local function problem(text)
  problems[#problems + 1] = text
end

local function known(task)
  all[#all + 1] = task
  alive[task], alive[task.co] = true, true
  return task
end

-- Everything a task can wait for; nothing of it comes.
local waits = {
  function() async.sleep(0) end,
  function() async.channel(0):receive() end,
  function() async.channel(0):send(1) end,
  function() async.event():wait() end,
  function()
    local semaphore = async.semaphore(1)
    semaphore:acquire()
    semaphore:acquire()
  end,
  function() async.wait(async.op()) end,
  function() async.spawn(async.sleep, 1):await() end,
  function() async.gather(function() async.sleep(0) end) end,
  function() async.race(function() async.sleep(0) end) end,
  function() async.map({ 1 }, function() async.sleep(0) end) end,
  function() async.timeout(5, async.sleep, 1) end,
}

--- A wait that sometimes swallows its error, and then must meet it again, whatever it waits for.
local function wait()
  local ok, err = pcall(async.sleep, random(3) - 1)
  if ok then
    return
  end
  for _ = 1, 3 do
    local again, same = pcall(waits[random(#waits)])
    if again or same ~= err or async.cancelled() ~= err then
      problem("a wait after a cancel did not raise the same object")
    end
  end
  if random(3) > 1 then
    error(err, 0)
  end
end

local node

local function body(depth)
  for _ = 1, random(3) do
    node(depth)
  end
  return "result"
end

--- A function for gather and race: its number, after some time.
local function numbered(depth, i)
  return function()
    body(depth + 1)
    return i, -i
  end
end

local kinds = {
  wait, wait, wait,
  function(depth) -- a scope whose tasks have all ended when it is left
    local mine = {}
    pcall(async.scope, function(scope)
      for i = 1, random(3) do
        mine[i] = known(scope:spawn(body, depth + 1))
      end
      body(depth + 1)
    end, { on_error = random(2) == 1 and "wait" or "cancel" })
    for _, task in ipairs(mine) do
      if task.status == "running" then
        problem("a task outlived its scope")
      end
    end
  end,
  function(depth)
    local ok, err = pcall(async.timeout, random(4), body, depth + 1)
    if not ok and errors.is(err, "timeout") and async.cancelled() then
      return -- both at once
    end
  end,
  function(depth)
    local ok, first, second = pcall(async.gather, numbered(depth, 1), numbered(depth, 2))
    if ok and (first ~= 1 or second ~= 2) then
      problem("gather returned without its results")
    end
  end,
  function(depth)
    local ok, index, value, other = pcall(async.race, numbered(depth, 1), numbered(depth, 2))
    if ok and (value ~= index or other ~= -index) then
      problem("race returned what is not the winner's")
    end
  end,
  function(depth)
    local begun, limit, under_way, most = 0, random(3), 0, 0
    local ok, results, failures = pcall(async.map, { 1, 2, 3, 4 }, function(item, i)
      begun, under_way = begun + 1, under_way + 1
      most = math.max(most, under_way)
      if item ~= i or begun ~= i then
        problem("map did not begin its items in order")
      end
      local fine, err = pcall(body, depth + 1)
      under_way = under_way - 1
      if not fine then
        error(err, 0)
      end
      return item
    end, { concurrency = limit, on_error = random(2) == 1 and "collect" or "cancel" })
    for i = 1, ok and 4 or 0 do
      if results[i] ~= i and not (failures and failures[i]) then
        problem("map returned without a result")
      end
    end
    if most > limit or under_way ~= 0 then
      problem("map had more under way than it may, or left some")
    end
  end,
  function(depth) -- what is sent arrives in order, as far as it arrives
    local channel, last = async.channel(random(3) - 1), 0
    local ok = pcall(async.gather, function()
      for i = 1, 4 do
        channel:send(i)
      end
      body(depth + 1)
      channel:close()
    end, function()
      for value in channel:values() do
        if value ~= last + 1 then
          problem("a value of a channel was lost or overtaken")
        end
        last = value
      end
    end)
    if ok and last ~= 4 then
      problem("not everything that was sent arrived")
    end
  end,
  function(depth)
    local semaphore, inside = async.semaphore(2), 0
    pcall(async.map, { 1, 2, 3 }, function()
      semaphore:with(function()
        inside = inside + 1
        if inside > 2 then
          problem("more inside than permits")
        end
        pcall(body, depth + 1)
        inside = inside - 1
      end)
    end)
    if semaphore.free ~= 2 then
      problem("a permit was lost")
    end
  end,
  function(depth)
    local event = async.event()
    pcall(async.gather, function() event:wait() end, function()
      body(depth + 1)
      event:set()
    end)
  end,
  function(depth)
    pcall(async.shield, function() body(depth + 1) end, random(5))
  end,
  function(depth) -- a task of the current one that nobody awaits
    known(async.spawn(body, depth + 1))
  end,
  function() error("random error", 0) end,
  function() all[random(#all)]:cancel("random cancel") end,
  function(depth) string.gsub("x", "x", function() node(depth + 1) end) end,
  function(depth) coroutine.wrap(function() node(depth + 1) end)() end,
}

function node(depth)
  if depth > 4 or #all > 40 then
    return wait()
  end
  kinds[random(#kinds)](depth)
end

local function one_case(case)
  random, all, problems = randoms.new(case * 7919), {}, {}
  local closed = 0
  pcall(async.run, function()
    known(async.current())
    async.on_close(function() closed = closed + 1 end)
    body(1)
  end)
  for i, task in ipairs(all) do
    if task.status == "running" then
      problem("task " .. i .. " is still running at the end")
    end
  end
  if closed ~= 1 then
    problem("closed " .. closed .. " times")
  end
  assert.are.equal(0, async.pending())
  assert.is_true(async.idle(), "case " .. case .. " left a timer or something queued")
  assert.are.same({}, problems, "case " .. case)
end

describe("a random tree of tasks", function()
  it(("keeps the rules in %d cases and leaves nothing"):format(CASES), function()
    one_case(0)
    local references, descriptors = left.references(), left.descriptors()
    for case = 1, CASES do
      one_case(case)
      if case % BATCH == 0 then
        all = {}
        collectgarbage()
        collectgarbage()
        assert.is_nil(next(alive), "case " .. case .. ": a task or its coroutine is still held")
      end
    end
    assert.are.equal(references, left.references())
    assert.are.equal(descriptors, left.descriptors())
    async.close()
  end)
end)
