--- `lbox.scope` and `lbox.map`: those of tasks, and what the boxes and runs in them share, a budget and the
--- pace of a map.
local async = require "lbox.async"
local options = require "lbox.options"

local M = {}

local SCOPE_OPTIONS = { on_error = { "cancel", "wait" }, budget = "lbox.budget" }
local MAP_OPTIONS = { concurrency = "number", on_error = { "cancel", "collect" }, budget = "lbox.budget" }

--- Runs `fn(scope)` and waits for every task of the scope. The first error cancels the rest and is
--- raised; with `on_error = "wait"` the others finish first. `scope:spawn(fn, ...)` and
--- `scope:cancel(reason)` work for whoever has the scope, until it is left. Agent runs in it carry the
--- budget.
---@param fn fun(scope: lbox.async.Scope): ...
---@param opts { on_error: "cancel"|"wait"|nil, budget: lbox.Budget|nil }|nil
---@return any ...  what `fn` returned
function M.scope(fn, opts)
  options.check(opts, SCOPE_OPTIONS, "scope")
  opts = opts or {}
  return async.scope(fn, { on_error = opts.on_error, carries = { budget = opts.budget } })
end

--- Calls `fn(item, index)` for every item, at most `concurrency` (16) at a time. The first error cancels
--- the rest and is raised, unless errors are collected. Agent runs in it carry the budget, and once that
--- is spent no item begins: its error is that of the budget.
---@param list any[]
---@param fn fun(item: any, index: integer): any
---@param opts { concurrency: integer|nil, on_error: "cancel"|"collect"|nil, budget: lbox.Budget|nil }|nil
---@return table results  indexed like `list`, with n = #list
---@return table|nil errors  with "collect": what failing items raised, indexed like `list`
function M.map(list, fn, opts)
  options.check(opts, MAP_OPTIONS, "map")
  opts = opts or {}
  local budget = opts.budget
  return async.map(list, fn, {
    concurrency = opts.concurrency,
    on_error = opts.on_error,
    before = budget and function() budget:check() end,
    carries = { budget = budget, fan_out = {} }, -- of the latter lbox.pace keeps how fast it may go
  })
end

return M
