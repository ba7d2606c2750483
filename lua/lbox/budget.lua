--- Budgets: what agent runs may spend together. A run carries the budget it was given and those of
--- the scopes around it, and has one entry that all of them keep for their reports.
---
--- What a run spent is known only when it ends, so a budget cannot stop a single run at its limit; it
--- stops the others.
local async = require "lbox.async"
local errors = require "lbox.errors"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local runs = require "lbox.run"
local streams = require "lbox.stream"

local M = {}

local DEFAULT_SOFT = 0.8

-- Sums of dollars are not exact.
local EPSILON = 1e-9

-- In the order in which they are named when several are used up.
local LIMITS = { "usd", "tokens", "runs", "ms" }

local function dollars(amount)
  return (amount > 0 and amount < 0.01 and "$%.2g" or "$%.2f"):format(amount)
end

--- "$5.02 of $5.00"
local SAID = {
  usd = function(some, all) return dollars(some) .. " of " .. dollars(all) end,
  tokens = function(some, all) return ("%.0f of %.0f tokens"):format(some, all) end,
  runs = function(some, all) return ("%.0f of %.0f runs"):format(some, all) end,
  ms = function(some, all) return ("%.0f of %.0f ms"):format(some, all) end,
}

---@class lbox.BudgetOptions
---@field usd number|nil      dollars, as the server reports them
---@field tokens number|nil   input and output tokens
---@field runs integer|nil    runs that may be started
---@field ms number|nil       time since the first run was started
---@field soft number|nil     part of any limit at which on_soft is called: 0.8
---@field on_soft fun(report: lbox.BudgetReport)|nil

local OPTIONS = {
  usd = "number", tokens = "number", runs = "number", ms = "number",
  soft = "number", on_soft = "function",
}

---@class lbox.BudgetReport
---@field usd number     spent so far, by the runs whose cost is known; the same with the next three
---@field tokens number
---@field runs integer   started
---@field ms number      since the first of them was started
---@field limits table<string, number>
---@field left table<string, number>   of each limit, 0 at the least
---@field spent "usd"|"tokens"|"runs"|"ms"|nil  the limit that nothing is left of
---@field unknown integer  runs that ended, or were left, before their cost was known
---@field list lbox.BudgetEntry[]  each run, in the order they were started

---@class lbox.BudgetEntry
---@field run_id string|nil
---@field box_id string
---@field status "running"|"completed"|"failed"|"cancelled"|"detached"
---@field usd number
---@field tokens number
---@field ms number     how long it was followed
---@field known boolean  the server told its cost

local function spent(self, name)
  if name == "ms" then
    return self._since and async.now() - self._since or 0
  end
  return self._spent[name]
end

--- The limit that nothing is left of. The number of runs is none for those already started.
local function used_up(self, for_started)
  for _, name in ipairs(LIMITS) do
    local limit = self._limits[name]
    if limit and spent(self, name) + EPSILON >= limit and not (for_started and name == "runs") then
      return name
    end
  end
end

local function is_near(self)
  for name, limit in pairs(self._limits) do
    if spent(self, name) + EPSILON >= limit * self._soft then
      return true
    end
  end
  return false
end

local function said(self, name)
  return SAID[name](spent(self, name), self._limits[name])
end

local function reason(self, name)
  return "the budget is spent: " .. said(self, name)
end

local function check(self, box_id, for_started)
  local name = used_up(self, for_started)
  if name then
    errors.raise("budget", reason(self, name), { box_id = box_id })
  end
end

local function report(self)
  local out = {
    usd = self._spent.usd, tokens = self._spent.tokens, runs = self._spent.runs, ms = spent(self, "ms"),
    limits = {}, left = {}, spent = used_up(self), unknown = 0, list = {},
  }
  for name, limit in pairs(self._limits) do
    out.limits[name], out.left[name] = limit, math.max(0, limit - spent(self, name))
  end
  for i, entry in ipairs(self._entries) do
    local running = entry.status == "running"
    out.list[i] = {
      run_id = entry.run_id, box_id = entry.box_id, status = entry.status, usd = entry.usd,
      tokens = entry.tokens, ms = running and async.now() - entry.started or entry.ms, known = entry.known,
    }
    if not running and not entry.known then
      out.unknown = out.unknown + 1
    end
  end
  return out
end

--- Acts on what was spent: tells of the soft limit, once, and stops the runs of a spent budget.
local function look(self)
  if not self._told and is_near(self) then
    self._told = true
    if self._on_soft then
      async.spawn_in(self._home, self._on_soft, report(self))
    end
  end
  local name = used_up(self, true)
  if name then
    for entry in pairs(self._active) do
      entry:stop(self, reason(self, name))
    end
  end
end

local function is_running(self)
  for entry in pairs(self._active) do
    if entry.status == "running" then
      return true
    end
  end
  return false
end

--- Sets the timer for the next moment at which time alone changes something. Without a run that is
--- followed there is none: nothing would wait for it.
local function arm(self)
  if self._timer then
    self._timer:cancel()
    self._timer = nil
  end
  local ms = self._limits.ms
  if not ms or not is_running(self) then
    return
  end
  local at, soft_at = self._since + ms, self._since + ms * self._soft
  if not self._told and soft_at > async.now() then
    at = soft_at
  elseif at <= async.now() then
    return -- all were told
  end
  self._timer = async.at(at, function()
    look(self)
    arm(self)
  end)
end

-- --------------------------------------------------------------------------------------- entries

---@class lbox.budget.Entry: lbox.BudgetEntry
---@field budgets lbox.Budget[]
---@field started number
---@field weak { stream: lbox.Stream|nil }
---@field link lbox.Link|nil   once the run is open
---@field stopped boolean
---@field opening lbox.async.Scope|nil  while the run is being opened
---@field refusal lbox.Error|nil        why that was interrupted
local Entry = {}
Entry.__index = Entry

--- The least that the budgets have left in dollars, nil when none limits them.
---@return number|nil
function Entry:rest_usd()
  local least
  for _, budget in ipairs(self.budgets) do
    local limit = budget._limits.usd
    if limit and limit < math.huge then
      least = math.min(least or math.huge, limit - budget._spent.usd)
    end
  end
  return least
end

--- Raises `budget` when the run must not be started after all.
function Entry:check()
  for _, budget in ipairs(self.budgets) do
    check(budget, self.box_id, true)
  end
end

--- Opens the run by `fn`, which a budget that is spent meanwhile interrupts.
function Entry:open(fn)
  local opened
  local ok, err = pcall(async.scope, function(scope)
    self.opening = scope
    opened = fn()
  end)
  self.opening = nil
  if opened then
    return opened
  end
  error(not ok and err or self.refusal, 0)
end

--- The run is open. What was spent while it was being opened counts for it too.
---@param stream lbox.Stream
function Entry:opened(stream)
  self.weak.stream, self.link = stream, stream._link
  for _, budget in ipairs(self.budgets) do
    look(budget)
  end
end

--- The run was started, and nobody reads it.
---@param link lbox.Link
---@param run_id string
function Entry:accepted(link, run_id)
  self.link, self.run_id = link, run_id
  self:ended("detached")
end

--- Whether an error of opening a run says that there is none.
local function is_none(err)
  local status = errors.is(err, "api") and err.status_code
  return errors.is(err, "usage") or errors.is(err, "budget") or (errors.is(err) and err.not_sent)
    or (status and status < 500 and status ~= 408)
end

--- The run could not be opened.
function Entry:not_opened(err)
  if not is_none(err) then
    self:ended((errors.is(err, "cancelled") or errors.is(err, "timeout")) and "cancelled" or "failed")
    return
  end
  for _, budget in ipairs(self.budgets) do
    budget._spent.runs = budget._spent.runs - 1
    budget._active[self] = nil
    for i = #budget._entries, 1, -1 do
      if budget._entries[i] == self then
        table.remove(budget._entries, i)
        break
      end
    end
    arm(budget)
  end
end

--- The server told what the run cost.
---@param cost lbox.Cost
function Entry:cost(cost)
  local usd = math.max(0, cost.total_usd)
  local tokens = math.max(0, cost.input_tokens) + math.max(0, cost.output_tokens)
  for _, budget in ipairs(self.budgets) do
    local sum = budget._spent
    sum.usd, sum.tokens = sum.usd + usd - self.usd, sum.tokens + tokens - self.tokens
    budget._active[self] = nil
  end
  self.usd, self.tokens, self.known = usd, tokens, true
  for _, budget in ipairs(self.budgets) do
    look(budget)
  end
end

--- Nobody reads the run any more. A detached one goes on, and is stopped with the others.
---@param status string
function Entry:ended(status)
  self.status, self.ms = status, async.now() - self.started
  for _, budget in ipairs(self.budgets) do
    if status ~= "detached" or not self.run_id then
      budget._active[self] = nil
    end
    arm(budget)
  end
end

--- Cancels the run.
---@param budget lbox.Budget  which one it is that is spent
---@param why string
function Entry:stop(budget, why)
  local stream = self.weak.stream
  if self.opening then
    self.refusal = errors.new("budget", why .. "; the run was not started", { box_id = self.box_id })
    self.opening:cancel(why)
    return
  elseif self.stopped or not self.link then
    return
  end
  self.stopped = true
  if stream and stream._req then
    streams.abort(stream, errors.new("budget", why .. "; the run was cancelled"))
  elseif self.run_id then
    async.clean_up(function()
      if runs.abandon(self.link, self.run_id) then
        self.status = "cancelled"
      end
    end, budget._home)
  end
end

--- The budgets a run has to carry, each once.
local function carried(own)
  local budgets, seen = {}, {}
  local function add(budget)
    if budget and not seen[budget] then
      seen[budget] = true
      budgets[#budgets + 1] = budget
    end
  end
  add(own)
  for _, budget in ipairs(async.carried("budget")) do
    add(budget)
  end
  return budgets
end

--- Counts a run that is about to be started. Raises `budget` when nothing is left for it. Nothing when
--- it carries no budget.
---@param own lbox.Budget|nil  what the run was given
---@param box_id string
---@return lbox.budget.Entry|nil
function M.begin(own, box_id)
  local budgets = carried(own)
  if #budgets == 0 then
    return nil
  end
  for _, budget in ipairs(budgets) do
    check(budget, box_id)
  end
  local entry = setmetatable({
    budgets = budgets, box_id = box_id, status = "running", usd = 0, tokens = 0, ms = 0, known = false,
    started = async.now(), weak = setmetatable({}, { __mode = "v" }), stopped = false,
  }, Entry)
  for _, budget in ipairs(budgets) do
    budget._since = budget._since or entry.started
    budget._spent.runs = budget._spent.runs + 1
    budget._entries[#budget._entries + 1] = entry
    budget._active[entry] = true
    look(budget)
    arm(budget)
  end
  return entry
end

-- --------------------------------------------------------------------------------------- budgets

---@class lbox.Budget
local methods = {}

--- What was spent, by whom, and what is left.
---@return lbox.BudgetReport
function methods:report()
  return report(self)
end

--- Raises `budget` when nothing is left for another run.
function methods:check()
  check(self)
end

local metatable = namespace.metatable("budget", methods)

function metatable.__tostring(self)
  local parts = {}
  for _, name in ipairs(LIMITS) do
    if self._limits[name] then
      parts[#parts + 1] = said(self, name)
    end
  end
  return table.concat(parts, ", ")
end

--- A budget, to be given as `budget` to agent runs, `lbox.map` and `lbox.scope`. When a limit is
--- reached no run that carries it is started any more, and those under way are cancelled (not for the
--- number of runs); all of these raise kind `budget`. `on_soft(report)` is called once, as a task of the
--- scope that made the budget.
---@param opts lbox.BudgetOptions
---@return lbox.Budget
function M.new(opts)
  options.check(opts, OPTIONS, "lbox.budget")
  opts = opts or {}
  local limits = {}
  for _, name in ipairs(LIMITS) do
    local limit = opts[name]
    if limit and (limit ~= limit or limit < 0) then
      errors.raise("usage", ("%s of a budget must be a number from 0 on, got %s"):format(name, tostring(limit)))
    end
    limits[name] = limit
  end
  if next(limits) == nil then
    errors.raise("usage", "a budget needs a limit: usd, tokens, runs or ms")
  elseif limits.runs and limits.runs % 1 ~= 0 and limits.runs ~= math.huge then
    errors.raise("usage", ("runs of a budget must be a whole number, got %s"):format(tostring(limits.runs)))
  end
  local soft = opts.soft or DEFAULT_SOFT
  if not (soft > 0 and soft <= 1) then
    errors.raise("usage", ("soft of a budget must be above 0 and at most 1, got %s"):format(tostring(soft)))
  end
  return setmetatable({
    _limits = limits, _soft = soft, _on_soft = opts.on_soft, _home = async.current_scope(),
    _spent = { usd = 0, tokens = 0, runs = 0 }, _entries = {}, _active = {}, _told = false,
  }, metatable)
end

return M
