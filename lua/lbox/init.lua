--- lbox: sandboxed computers for AI coding agents, from Lua. This is what `require "lbox"` returns;
--- doc/manual.md describes every call.
local async = require "lbox.async"
local config = require "lbox.config"
local core = require "lbox.core"
local enums = require "lbox.enums"
local errors = require "lbox.errors"
local fan_out = require "lbox.fan_out"

--- What `require "lbox"` returns.
---@class lbox
---@field version string
---@field Box lbox.BoxStatics
---@field EphemeralBox lbox.EphemeralBoxStatics
---@field configure fun(opts: lbox.ConnectionOptions)
---@field is_error fun(err: any, kind: string|nil): boolean
---@field run fun(fn: function, ...: any): ...
---@field spawn fun(fn: function, ...: any): lbox.async.Task
---@field scope fun(fn: function, opts: table|nil): ...
---@field gather fun(...: function): ...
---@field race fun(...: function): integer, ...
---@field map fun(list: any[], fn: function, opts: table|nil): any[], any[]|nil
---@field merge fun(streams: table<any, lbox.Stream>): function
---@field timeout fun(ms: number, fn: function, ...: any): ...
---@field shield fun(fn: function, ms: number|nil): ...
---@field sleep fun(ms: number)
---@field now fun(): number
---@field tasks fun(): lbox.TaskInfo[]
---@field channel fun(capacity: number|nil): lbox.async.Channel
---@field semaphore fun(permits: integer): lbox.async.Semaphore
---@field event fun(): lbox.async.Event
---@field close fun(grace_ms: number|nil)
---@field with_box fun(opts: lbox.WithBoxOptions|nil, fn: fun(box: lbox.Box): ...): ...
---@field budget fun(opts: lbox.BudgetOptions): lbox.Budget
---@field schema table
---@field harness table
---@field loop table
---@field null any
---@field array fun(list: any[]|nil): any[]
---@field infer_default_provider fun(model: string): string
---@field Agent table<string, string>
---@field BoxApiKey table<string, string>
---@field ClaudeCode table<string, string>
---@field OpenAICodex table<string, string>
---@field OpenCodeModel table<string, string>
---@field OpenRouterModel table<string, string>
---@field VercelModel table<string, string>
---@field CursorModel table<string, string>
---@field NeonModel table<string, string>

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

setmetatable(M, {
  __index = function(_, key)
    local load = LATER[key]
    if load then
      local value = load()
      rawset(M, key, value)
      return value
    end
  end,
})

return M
