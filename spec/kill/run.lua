-- Kills a local server with -9 in a hundred rounds, at random points of random work, and looks after each start whether
-- the invariants hold; then does so with bugs planted in the server, each of which has to be found. Prints what
-- was wrong and the seed of the round, and ends with `N passed, N failed`.
--
--     build/lbox spec/kill/run.lua [rounds [first seed [bugs]]]
local async = require "lbox.async"
local invariants = require "spec.kill.invariants"
local lbox = require "lbox"
local planted = require "spec.kill.planted"
local rounds = require "spec.kill.round"

local count, first, bugs = tonumber(arg[1] or 100), tonumber(arg[2] or 1), tonumber(arg[3] or #planted)
-- Within so many rounds a bug has to be found.
local TO_FIND = 40

local passed, failed = 0, 0

local function result(ok, ...)
  passed, failed = passed + (ok and 1 or 0), failed + (ok and 0 or 1)
  print((...):format(select(2, ...)))
end

local function play_all(game)
  for seed = first, first + count - 1 do
    local wrong, refused = game:play(seed)
    table.move(refused, 1, #refused, #wrong + 1, wrong)
    for i = 1, math.min(#wrong, 20) do
      print("  " .. wrong[i])
    end
    if #wrong > 0 then
      result(false, "round %d: %d things are wrong; again: build/lbox spec/kill/run.lua 1 %d 0", seed, #wrong, seed)
    else
      passed = passed + 1
    end
  end
  print(("%d rounds: %d requests, %d of them under way at a kill, %d starts killed; compared: %d things"):format(count,
    game.requests, game.under_way, game.starts_killed, game.compared))
  for _, name in ipairs(invariants.names) do
    print("  " .. name)
  end
end

local function find(game, bug)
  for round = 1, TO_FIND do
    local wrong = game:play(first + round)
    if wrong[1] then
      return result(true, "planted: %s; found in round %d: %s", bug.name, round, wrong[1])
    end
  end
  result(false, "planted: %s; NOT FOUND in %d rounds", bug.name, TO_FIND)
end

local started = lbox.now()
-- What the client says of runs that it cannot cancel any more.
async.on_error(function() end)
rounds.with(nil, play_all)
for i = 1, bugs do
  rounds.with({ "spec/kill/planted.lua", planted[i].name }, function(game) find(game, planted[i]) end)
end
print(("%.0f s"):format((lbox.now() - started) / 1000))
print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0)
