--- lbox: sandboxed computers for AI coding agents, from Lua. This is what `require "lbox"` returns;
--- doc/manual.md describes every call.
local async = require "lbox.async"
local config = require "lbox.config"
local core = require "lbox.core"
local enums = require "lbox.enums"
local errors = require "lbox.errors"
local fan_out = require "lbox.fan_out"

local M = {
  version = core.version,
  configure = config.configure,
  is_error = errors.is,

  run = async.run,
  spawn = async.spawn,
  scope = fan_out.scope,
  gather = async.gather,
  race = async.race,
  map = fan_out.map,
  timeout = async.timeout,
  shield = async.shield,
  sleep = async.sleep,
  now = async.now,
  tasks = async.tasks,
  channel = async.channel,
  semaphore = async.semaphore,
  event = async.event,
  close = async.close,
}

for name, value in pairs(enums) do
  M[name] = value
end

-- Loaded when first asked for: a harness has no use for the client, nor the client for a harness, and
-- null is that of the host's JSON library.
local LATER = {
  Box = function() return require "lbox.box" end,
  EphemeralBox = function() return require "lbox.ephemeral" end,
  budget = function() return require("lbox.budget").new end,
  merge = function() return require("lbox.merge").merge end,
  with_box = function() return require("lbox.with_box").with_box end,
  schema = function() return require "lbox.schema" end,
  harness = function() return require "lbox.harness" end,
  loop = function() return require "lbox.loop" end,
  null = function() return require("lbox.json").null end,
  array = function() return require("lbox.json").array end,
}

return setmetatable(M, {
  __index = function(_, key)
    local load = LATER[key]
    if load then
      local value = load()
      rawset(M, key, value)
      return value
    end
  end,
})
