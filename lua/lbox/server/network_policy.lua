--- What a box may reach: checks of the policy a client gives, and what one says of a destination.
local addresses = require "lbox.server.addresses"
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local json = require "lbox.json"

local M = {}

local MODES = { ["allow-all"] = true, ["deny-all"] = true, custom = true }
local LISTS = { "allowed_domains", "allowed_cidrs", "denied_cidrs" }
local MAX_ENTRIES, MAX_NAME = 256, 253

local function refuse(message)
  errors.raise("api", message, { status_code = 400 })
end

--- A name of the DNS in the form it is compared in; nil when it is none.
---@param name string
---@return string|nil
function M.name(name)
  name = name:lower():gsub("%.$", "")
  if #name == 0 or #name > MAX_NAME then
    return nil
  end
  for label in (name .. "."):gmatch("([^.]*)%.") do
    if #label > 63 or not label:match("^[%w_][%w_-]*$") then
      return nil
    end
  end
  return name
end

local function domain(text)
  local star, rest = text:match("^(%*%.)(.+)$")
  local name = M.name(rest or text)
  return name and (star or "") .. name
end

local CHECKS = {
  allowed_domains = { domain, "a name, or *. and a name" },
  allowed_cidrs = { addresses.subnet, "an address, or a network like 93.184.216.0/24" },
  denied_cidrs = { addresses.subnet, "an address, or a network like 93.184.216.0/24" },
}

--- The policy that a client gives, as it is kept. Raises 400 when it is none.
---@param given table
---@return table policy
function M.check(given)
  fields.check(given, { mode = "string!", allowed_domains = "strings", allowed_cidrs = "strings",
    denied_cidrs = "strings" })
  if not MODES[given.mode] then
    refuse(("network_policy: the mode %q is none of allow-all, deny-all, custom"):format(given.mode))
  end
  local policy = { mode = given.mode }
  for _, list in ipairs(LISTS) do
    local entries = given[list] or {}
    if #entries > 0 and given.mode ~= "custom" then
      refuse(("network_policy: %s goes with the mode custom, not with %s"):format(list, given.mode))
    elseif #entries > MAX_ENTRIES then
      refuse(("network_policy: %s has %d entries: at most %d"):format(list, #entries, MAX_ENTRIES))
    end
    for _, entry in ipairs(entries) do
      if not CHECKS[list][1](entry) then
        refuse(("network_policy: %s: %q is not %s"):format(list, entry, CHECKS[list][2]))
      end
    end
    policy[list] = #entries > 0 and json.array(entries) or nil
  end
  return policy
end

--- Whether one of the domains is this name, which is in the form of M.name.
local function lists_name(domains, name)
  for _, entry in ipairs(domains or {}) do
    local each = domain(entry)
    if each == name or (each:sub(1, 2) == "*." and #name > #each - 1 and name:sub(1 - #each) == each:sub(2)) then
      return true
    end
  end
  return false
end

local function lists_address(cidrs, address)
  for _, entry in ipairs(cidrs or {}) do
    if addresses.contains(addresses.subnet(entry), address) then
      return true
    end
  end
  return false
end

--- Whether a custom policy names this host itself.
---@param policy table
---@param name string  of the DNS or a numeric address
---@return boolean
function M.names(policy, name)
  return policy.mode == "custom" and lists_name(policy.allowed_domains, name)
end

--- Why a custom policy does not let a box reach an address, by this name or at all; nil when it does.
---@param policy table
---@param name string
---@param address string   what the name stands for
---@param own table<string, true>  the addresses of this machine
---@return string|nil objection
function M.objection(policy, name, address, own)
  if addresses.is_special(address) then
    return "no box reaches private and special addresses"
  elseif own[address] then
    return "no box reaches this machine"
  elseif lists_address(policy.denied_cidrs, address) then
    return "the address is in denied_cidrs"
  elseif not M.names(policy, name) and not lists_address(policy.allowed_cidrs, address) then
    return "neither the name is in allowed_domains nor the address in allowed_cidrs"
  end
end

return M
