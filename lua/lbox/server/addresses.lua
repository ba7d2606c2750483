--- Addresses and networks: which of them no box may reach, whatever its policy says. An address is a string
--- of 4 or 16 bytes.
local async = require "lbox.async"
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"

local M = {}

-- Several changes at once are one.
local CHANGE_MS = 50

---@class lbox.server.Subnet
---@field address string
---@field prefix integer

--- The network that a text names, an address being one of itself. Nil when it names none.
---@param text string
---@return lbox.server.Subnet|nil
function M.subnet(text)
  local host, prefix = text:match("^([%x.:]+)/(%d%d?%d?)$")
  local address = posix.address(host or text)
  local bits = address and #address * 8
  prefix = host and tonumber(prefix) or bits
  if not address or prefix > bits then
    return nil
  end
  return { address = address, prefix = math.tointeger(prefix) }
end

--- Whether a network has an address in it.
---@param subnet lbox.server.Subnet
---@param address string
---@return boolean
function M.contains(subnet, address)
  local whole, rest = subnet.prefix // 8, subnet.prefix % 8
  if #subnet.address ~= #address or subnet.address:sub(1, whole) ~= address:sub(1, whole) then
    return false
  end
  return rest == 0 or (subnet.address:byte(whole + 1) ~ address:byte(whole + 1)) >> (8 - rest) == 0
end

local function subnets(texts)
  local list = {}
  for i, text in ipairs(texts) do
    list[i] = assert(M.subnet(text), text)
  end
  return list
end

--- What is set apart for special purposes in IPv4 (IANA's registry): private networks, the metadata of clouds,
--- multicast and the like.
M.SPECIAL = subnets { "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
  "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
  "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4" }
-- Of IPv6 only this is the internet, but for what is set apart in it, with IPv4 addresses inside among that.
local GLOBAL = M.subnet("2000::/3")
local SPECIAL_6 = subnets { "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20" }

local function within(list, address)
  for _, subnet in ipairs(list) do
    if M.contains(subnet, address) then
      return true
    end
  end
  return false
end

--- Whether it is no address of the internet.
---@param address string
---@return boolean
function M.is_special(address)
  if #address == 4 then
    return within(M.SPECIAL, address)
  end
  return not M.contains(GLOBAL, address) or within(SPECIAL_6, address)
end

--- This machine's own addresses.
---@return table<string, true>
function M.own()
  local list, why = posix.own_addresses()
  if not list then
    errors.raise("local", "the addresses of this machine cannot be told: " .. why)
  end
  local own = {}
  for _, address in ipairs(list) do
    own[address] = true
  end
  return own
end

--- Calls `fn` whenever the addresses of this machine have changed, until the scope is left.
---@param scope lbox.async.Scope
---@param fn fun()
function M.watch(scope, fn)
  local fd, why = posix.watch_addresses()
  if not fd then
    errors.raise("local", "the addresses of this machine cannot be watched: " .. why)
  end
  scope:spawn(function()
    local watched = async.fd(fd)
    local _, err = pcall(function()
      while true do
        watched:wait("r")
        async.sleep(CHANGE_MS)
        repeat until not posix.read(fd, 65536) -- what was missed for want of room is a change too
        fn()
      end
    end)
    watched:close()
    posix.close(fd)
    error(err, 0) -- the scope is left
  end)
end

return M
