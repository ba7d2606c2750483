-- Random trees of tasks with random sleeps, errors, cancels and time limits. Whatever happens: no
-- task outlives its scope, a cancelled scope raises one object at every wait, and nothing stays.
local async = require "lbox.async"
local errors = require "lbox.errors"

local CASES = 400

local seed

local function random(n)
  seed = (seed * 1103515245 + 12345) % 2147483648
  return math.floor(seed / 65536) % n + 1
end

-- Known tasks of the case; a random one of them is cancelled now and then.
local all, problems

local function problem(text)
  problems[#problems + 1] = text
end

local function spawn(scope, fn)
  local task = scope:spawn(fn)
  all[#all + 1] = task
  return task
end

--- A wait that sometimes swallows its error, and then must meet it again.
local function wait()
  local ok, err = pcall(async.sleep, random(3) - 1)
  if ok then
    return
  end
  local again, same = pcall(async.sleep, 0)
  if again or same ~= err or async.cancelled() ~= err then
    problem("a wait after a cancel did not raise the same object")
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

local kinds = {
  wait, wait, wait,
  function(depth) -- a scope whose tasks have all ended when it is left
    local mine = {}
    pcall(async.scope, function(scope)
      for i = 1, random(3) do
        mine[i] = spawn(scope, function() return body(depth + 1) end)
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
    local order = {}
    local ok = pcall(function()
      order = { async.gather(
        function()
          body(depth + 1)
          return 1
        end,
        function()
          body(depth + 1)
          return 2
        end) }
    end)
    if ok and (order[1] ~= 1 or order[2] ~= 2) then
      problem("gather returned without its results")
    end
  end,
  function(depth)
    local ok, results, failures = pcall(async.map, { 1, 2, 3 }, function(item)
      body(depth + 1)
      return item
    end, { concurrency = random(3), on_error = random(2) == 1 and "collect" or "cancel" })
    for i = 1, ok and 3 or 0 do
      if results[i] ~= i and not (failures and failures[i]) then
        problem("map returned without a result")
      end
    end
  end,
  function(depth)
    pcall(async.shield, function() body(depth + 1) end, random(5))
  end,
  function(depth) -- a task of the current one that nobody awaits
    all[#all + 1] = async.spawn(function() body(depth + 1) end)
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

describe("a random tree of tasks", function()
  it(("keeps the rules in %d cases"):format(CASES), function()
    for case = 1, CASES do
      seed, all, problems = case * 7919, {}, {}
      local closed = 0
      pcall(async.run, function()
        all[1] = async.current()
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
    async.close()
  end)
end)
