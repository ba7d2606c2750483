--- The pace of a fan-out. A server that answers "too many requests" to one request of `lbox.map` means
--- all of them: the whole fan-out waits as long as the server asks, goes on at half the rate it had, and
--- becomes faster with each request that gets through.
local async = require "lbox.async"
local waiters = require "lbox.async.waiters"

local M = {}

-- The window in which requests are counted before there is a rate.
local WINDOW_MS = 1000
-- Requests a second. Beyond the highest there is none.
local LOWEST, HIGHEST = 0.5, 500
-- Taken for the rate when the very first requests are refused.
local FIRST = 20
-- How long it takes until the rate is again what it was when a request was refused.
local RECOVERY_S = 2

--- One server, under one key, as one fan-out uses it.
---@class lbox.pace.Gate
---@field rate number|false     requests a second; false: as they come
---@field step number          by how much the rate grows in a second
---@field passed integer        requests that were not refused
---@field window_at number      since when `count` requests passed
---@field count integer
---@field slowed_at number      when the rate was last taken down
---@field opens_at number       nothing is sent before: the server asked to wait
---@field next_at number        when the next one may be sent
---@field waiting lbox.async.Waiters
---@field timer { cancel: fun(self) }|false  while somebody waits
local Gate = { shared = true }
Gate.__index = Gate

--- Lets through who may go by now, and sets the timer for the next.
function Gate:pump()
  if self.timer then
    self.timer:cancel()
    self.timer = false
  end
  while self.waiting.first do
    local now = async.now()
    local at = math.max(self.next_at, self.opens_at)
    if at > now then
      self.timer = async.at(at, function() self:pump() end)
      return
    end
    self.next_at = self.rate and now + 1000 / self.rate or now
    self.waiting:pop():resolve(true)
  end
end

--- Waits until a request may be sent, at most until `limit`. Returns its place among the others.
---@param limit number|nil
---@return { sent_at: number }
function Gate:enter(limit)
  if self.rate or self.opens_at > async.now() or self.waiting.first then
    local op = self.waiting:join()
    local timer = limit and async.at(limit, function()
      self.waiting:drop(op)
      op:resolve(false)
    end)
    self:pump()
    local ok, err = pcall(async.wait, op)
    if timer then
      timer:cancel()
    end
    self:pump()
    if not ok then
      error(err, 0)
    end
  end
  return { sent_at = async.now() }
end

--- A request got through.
function Gate:pass()
  local now = async.now()
  self.passed = self.passed + 1
  if now - self.window_at > WINDOW_MS then
    self.window_at, self.count = now, 0
  end
  self.count = self.count + 1
  if self.rate then
    local rate = self.rate + self.step / math.max(1, self.rate)
    self.rate = rate < HIGHEST and rate
    self:pump()
  end
end

--- A request was refused for now. Only the first of those sent at the same rate takes it down.
---@param place { sent_at: number }
---@param pause number|nil  ms to wait; nil: it is not sent again
function Gate:refuse(place, pause)
  local now = async.now()
  self.opens_at = math.max(self.opens_at, now + (pause or 0))
  if place.sent_at >= self.slowed_at then
    local rate = self.rate or (self.count == 0 and FIRST)
      or math.min(HIGHEST, self.count * 1000 / math.max(now - self.window_at, 100))
    self.rate, self.step = math.max(LOWEST, rate / 2), math.max(1, rate / RECOVERY_S / 2)
    self.slowed_at, self.next_at = now, self.opens_at
  end
end

-- Outside of a fan-out nobody waits for others.
local Alone = { shared = false, passed = 0 }

function Alone.enter() end
function Alone.pass() end
function Alone.refuse() end
local function new_gate()
  return setmetatable({
    rate = false, step = 1, passed = 0, window_at = async.now(), count = 0, slowed_at = 0, opens_at = 0, next_at = 0,
    waiting = waiters.new(), timer = false,
  }, Gate)
end

--- The gate that requests from here to this server go through. Clean-up, which is shielded, does not
--- wait its turn; of a fan-out inside another the outer counts.
---@param settings lbox.Settings
---@return lbox.pace.Gate
function M.gate(settings)
  local around = async.carried("fan_out", true)
  local fan_out = around[#around]
  if not fan_out then
    return Alone
  end
  local server = settings.base_url .. "\n" .. (settings.api_key or "")
  fan_out[server] = fan_out[server] or new_gate()
  return fan_out[server]
end

return M
