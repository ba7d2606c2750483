--- Names of boxes, snapshots and runs.
local core = require "lbox.core"

local M = {}

local ADJECTIVES = { "amber", "brave", "bright", "calm", "clever", "cosmic", "crisp", "curious", "eager",
  "early", "fair", "gentle", "golden", "grand", "happy", "hidden", "honest", "icy", "jolly", "keen",
  "kind", "lively", "lucky", "mellow", "misty", "noble", "patient", "polite", "proud", "quick", "quiet",
  "rapid", "ready", "rustic", "sharp", "silent", "silver", "smart", "snowy", "steady", "sunny", "sweet",
  "swift", "tidy", "vivid", "warm", "wild", "wise", "witty", "young" }
local ANIMALS = { "badger", "bat", "bear", "beaver", "bison", "camel", "cat", "cobra", "crab", "crane",
  "crow", "deer", "dolphin", "dove", "eagle", "falcon", "ferret", "finch", "fox", "frog", "gecko", "goat",
  "goose", "hare", "hawk", "heron", "horse", "ibex", "jay", "koala", "lark", "lemur", "lion", "llama",
  "lynx", "mole", "moose", "newt", "otter", "owl", "panda", "puma", "raven", "robin", "seal", "shark",
  "swan", "tiger", "wasp", "wolf" }

local function number()
  return string.unpack("=I4", core.random(4))
end

--- A new box id: `swift-otter-04217`.
function M.box()
  return ("%s-%s-%05d"):format(ADJECTIVES[number() % #ADJECTIVES + 1], ANIMALS[number() % #ANIMALS + 1],
    number() % 100000)
end

function M.snapshot()
  return "snap_" .. core.uuid():gsub("-", "")
end

function M.run()
  return "run_" .. core.uuid():gsub("-", "")
end

function M.schedule()
  return "sched_" .. core.uuid():gsub("-", "")
end

return M
