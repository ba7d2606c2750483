--- lbox: orchestrate sandboxed AI coding agents.
local async = require "lbox.async"
local config = require "lbox.config"
local core = require "lbox.core"
local enums = require "lbox.enums"
local errors = require "lbox.errors"
local loop = require "lbox.loop"

local M = {
  version = core.version,

  run = async.run,
  spawn = async.spawn,
  scope = async.scope,
  gather = async.gather,
  map = async.map,
  sleep = async.sleep,
  timeout = async.timeout,
  shield = async.shield,
  now = async.now,
  close = async.close,

  loop = loop,
  configure = config.configure,
  is_error = errors.is,
}

for name, value in pairs(enums) do
  M[name] = value
end

-- Loaded when first asked for: a harness has no use for the client, nor a client for the harness.
local LAZY = {
  Box = "lbox.box",
  schema = "lbox.schema",
  harness = "lbox.harness",
}

setmetatable(M, {
  __index = function(_, key)
    local value
    if LAZY[key] then
      value = require(LAZY[key])
    elseif key == "null" or key == "array" then
      value = require("lbox.json")[key]
    else
      return nil
    end
    rawset(M, key, value)
    return value
  end,
})

return M
