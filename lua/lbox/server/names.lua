--- Names of the DNS, resolved by this machine. A child process asks, for that may take long.
local async = require "lbox.async"
local child = require "lbox.server.child"
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"

local M = {}

local PROGRAMS = { "/usr/bin/getent", "/bin/getent" }
local TIMEOUT_MS = 10000
-- So long an answer is used again, and so many are kept.
local KEPT_MS, MAX_KEPT = 5000, 256
-- At once.
local MAX_ASKED = 16

local kept, count = {}, 0
local places = nil

local function ask(name)
  for _, program in ipairs(PROGRAMS) do
    if posix.lstat(program) then
      local status, text = child.run { argv = { program, "ahosts", name }, env = {}, cwd = "/", timeout = TIMEOUT_MS }
      return status.exit_code == 0 and text or ""
    end
  end
  errors.raise("local", "there is no getent on this machine to resolve names with")
end

--- The addresses of a name, in the order they should be tried; none when there is no such name.
---@param name string  as network_policy.name gives it
---@return string[]
function M.resolve(name)
  local known = kept[name]
  if known and async.now() - known.at < KEPT_MS then
    return known.list
  end
  places = places or async.semaphore(MAX_ASKED)
  local ok, text = pcall(places.with, places, ask, name)
  if not ok and errors.is(text, "timeout") then
    text = ""
  elseif not ok then
    error(text, 0)
  end
  local list, seen = {}, {}
  for host in text:gmatch("([%x.:]+)%s+%u[%w]*[^\n]*\n") do
    local address = posix.address(host)
    if address and not seen[address] then
      seen[address] = true
      list[#list + 1] = address
    end
  end
  if count >= MAX_KEPT then
    kept, count = {}, 0
  end
  count = count + (kept[name] and 0 or 1)
  kept[name] = { at = async.now(), list = list }
  return list
end

return M
