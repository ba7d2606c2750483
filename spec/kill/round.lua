-- One round: clients at work, a kill, a start, the invariants.
local async = require "lbox.async"
local errors = require "lbox.errors"
local invariants = require "spec.kill.invariants"
local ledger = require "spec.kill.ledger"
local random = require "spec.support.random"
local servers = require "spec.kill.server"
local sqlite = require "lbox.server.sqlite"
local workload = require "spec.kill.workload"

local CLIENTS = 3
local LONGEST_MS, STARTING_MS = 350, 120

local M = {}
M.__index = M

--- Calls `fn(game)` with rounds on one new data directory.
---@param script string[]|nil  see server.lua
---@param fn fun(game: table)
function M.with(script, fn)
  local self = setmetatable({ server = servers.new(script), book = ledger.new(), compared = 0, under_way = 0,
    requests = 0, starts_killed = 0 }, M)
  local ok, err = pcall(function()
    self.server:start()
    fn(self)
  end)
  self.server:remove()
  if not ok then
    error(err, 0)
  end
end

--- A schedule becomes due at this moment, or was while the server is down.
local function make_due(self, how_many)
  local db = sqlite.open(self.server.data .. "/lbox.db")
  for _, row in ipairs(db:rows("SELECT id FROM schedules WHERE status = 'active' ORDER BY number LIMIT ?", how_many)) do
    db:run("UPDATE schedules SET next_at = ? WHERE id = ?", os.time(), row.id)
    self.server.due[row.id] = (self.server.due[row.id] or 0) + 1
  end
  db:close()
end

--- Starts the server, by lot after a start that is killed in the midst of it.
local function start_again(self, lot)
  if lot(4) == 1 then
    self.server:launch()
    async.sleep(lot(STARTING_MS))
    self.server:kill()
    self.starts_killed = self.starts_killed + 1
    for process, what in pairs(self.server:processes()) do
      self.server.left[process] = what
    end
  end
  if lot(4) == 1 then
    make_due(self, lot(3))
  end
  self.server:start()
end

--- Plays the round of `seed`.
---@param seed integer
---@return string[] wrong    invariants that do not hold
---@return string[] refused  what was refused to clients, who only ask for what can be
function M:play(seed)
  local lot = random.new(seed)
  local clients, tasks, refused = {}, {}, {}
  for number = 1, CLIENTS do
    clients[number] = workload.new(self.server, self.book, number, random.new(seed * CLIENTS + number))
    tasks[number] = async.spawn(function()
      local ok, err = pcall(clients[number].go_on, clients[number])
      if not ok and not self.killed and not errors.is(err, "cancelled") then
        refused[#refused + 1] = ("%s was refused: %s"):format(clients[number].doing, async.describe(err))
      end
    end)
  end
  async.sleep(lot(LONGEST_MS))
  if lot(6) == 1 then
    make_due(self, 3)
    async.sleep(lot(20))
  end
  self.killed = true
  self.server:kill()
  for number, task in ipairs(tasks) do
    task:cancel("the server was killed")
    pcall(task.await, task)
    self.requests = self.requests + clients[number].count
  end
  self.killed = nil
  self.server.left = self.server:processes()
  start_again(self, lot)
  local wrong, compared, under_way = invariants.look(self.server, self.book)
  self.compared, self.under_way = self.compared + compared, self.under_way + under_way
  return wrong, refused
end

return M
