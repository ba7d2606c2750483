--- Networks of boxes: what a box reaches, according to its policy. A box begins with nothing, and whatever
--- fails leaves it with less than the policy says, never with more.
local addresses = require "lbox.server.addresses"
local async = require "lbox.async"
local egress = require "lbox.server.egress"
local errors = require "lbox.errors"
local holders = require "lbox.server.holder"
local posix = require "lbox.server.posix"

local M = {}

-- As whom the probe holds a network, when the server is root.
local PROBE_UID = 524288
-- slirp4netns that ends by itself is started again after so long, so often in a row.
local RESTART_MS, MAX_RESTARTS, WELL_MS = 1000, 5, 60000

local DENY_ALL = { mode = "deny-all" }

-- ------------------------------------------------------------------------------------------- probe

local function explain(err)
  local text = errors.is(err) and err.message or tostring(err)
  local st = posix.lstat("/dev/net/tun")
  if not st then
    return "there is no /dev/net/tun", "sudo modprobe tun"
  end
  local fd, _, name = posix.open("/dev/net/tun", "rw")
  if fd then
    posix.close(fd)
  elseif name == "EACCES" or name == "EPERM" then
    return "/dev/net/tun cannot be opened by this user", "sudo chmod 666 /dev/net/tun"
  end
  return text, "run `lbox doctor` outside of a container, and look whether user namespaces are allowed there"
end

--- Whether boxes of this machine can have the internet, and if not, why and what to do.
---@param bin string  the directory of lbox-init
---@return { ok: boolean, cause: string|nil, fix: string|nil }
function M.probe(bin)
  if not holders.slirp() then
    return { ok = false, cause = "the program slirp4netns is not on PATH", fix = "apt-get install slirp4netns" }
  end
  local holder
  local ok, err = pcall(function()
    holder = holders.start { bin = bin, uid = posix.getuid() == 0 and PROBE_UID or nil }
    holder:join(addresses.SPECIAL)
  end)
  if holder then
    holder:close()
  end
  if ok then
    return { ok = true }
  end
  local cause, fix = explain(err)
  return { ok = false, cause = cause, fix = fix }
end

-- --------------------------------------------------------------------------------------- of a server

---@class lbox.server.Networks
---@field own table<string, true>  addresses of this machine
---@field open table<lbox.server.Network, true>
local Networks = {}
Networks.__index = Networks

---@class lbox.server.Network
---@field policy table
---@field holder lbox.server.Holder|nil  nil: it is a loopback and nothing else, for good
---@field join integer[]|nil   namespaces of the holder's that the sandbox is to be in
---@field joined boolean        to the internet
---@field proxy lbox.server.Egress|nil
local Network = {}
Network.__index = Network

--- Networks of the boxes of a server.
---@param server table  data, scope, log, logs
---@return lbox.server.Networks
function M.new(server)
  return setmetatable({ server = server, own = addresses.own(), open = {} }, Networks)
end

--- Looks from now on whether the addresses of this machine change.
function Networks:watch()
  addresses.watch(self.server.scope, function()
    self.own = addresses.own()
    for network in pairs(self.open) do
      network:own_addresses_changed()
    end
  end)
end

--- Whether the policy allow-all can be kept here, which is looked at once.
---@return { ok: boolean, cause: string|nil, fix: string|nil }
function Networks:support()
  if not self.found then
    self.found = M.probe(self.server.data.bin)
    if not self.found.ok then
      self.server.log(("boxes have no internet here: %s; fix: %s"):format(self.found.cause, self.found.fix))
    end
  end
  return self.found
end

--- What a box gets that was created without a policy: the internet, where that can be.
---@return table policy
function Networks:default_policy()
  return { mode = self:support().ok and "allow-all" or "deny-all" }
end

--- Raises unless the policy can be kept here.
---@param policy table
function Networks:check(policy)
  local found = policy.mode == "allow-all" and self:support() or { ok = true }
  if not found.ok then
    errors.raise("api", ("network_policy \"allow-all\" cannot be kept on this machine: %s; fix: %s"):format(found.cause,
      found.fix), { status_code = 501 })
  end
end

--- What is wrong, for people.
local function reason(err)
  return errors.is(err) and err.message or async.describe(err)
end

--- Makes the network of a box that is about to start. `join` of what comes back is for sandbox.start.
---@param row table  the box
---@return lbox.server.Network
function Networks:start(row)
  local network = setmetatable({ networks = self, id = row.id, policy = row.config.network_policy or DENY_ALL,
    turn = async.semaphore(1), joined = false, restarts = 0 }, Network)
  if self:support().ok then
    local ok, holder = pcall(holders.start, { bin = self.server.data.bin, uid = row.uid })
    if ok then
      network.holder, network.join = holder, holder.namespaces
      holder.on_slirp_exit = function(why) network:restart(why) end
      holder.on_exit = function() network:lost() end
    else
      network:tell("error", "there will be only loopback: " .. reason(holder))
    end
  end
  self.open[network] = true
  if network.policy.mode == "allow-all" then
    self.server.scope:spawn(function() pcall(network.apply, network) end) -- while the sandbox starts
  end
  return network
end

-- ------------------------------------------------------------------------------------------ of a box

--- Says something in the log of the box and, what is wrong, also in that of the server.
function Network:tell(level, message)
  local server = self.networks.server
  server.logs:add(self.id, level, "network: " .. message)
  if level == "error" then
    server.log(("box %s: network: %s"):format(self.id, message))
  end
end

--- What of IPv4 is refused: what is special, and this machine where it has other addresses.
local function refused(self)
  local list = table.move(addresses.SPECIAL, 1, #addresses.SPECIAL, 1, {})
  for address in pairs(self.networks.own) do
    if #address == 4 and not addresses.is_special(address) then
      list[#list + 1] = { address = address, prefix = 32 }
    end
  end
  return list
end

local function join(self)
  if not self.holder then
    errors.raise("local", "there is no internet for the box until it is paused and starts again")
  end
  self.holder:join(refused(self))
  self.joined, self.joined_at = true, async.now()
end

local function open_proxy(self)
  self.proxy = egress.open(self.box, self.policy, {
    scope = self.networks.server.scope,
    log = function(level, message) self.networks.server.logs:add(self.id, level, message) end,
    complain = function(why)
      self.networks.server.log(("error: box %s: a connection by its proxy: %s"):format(self.id, why))
    end,
    own = function() return self.networks.own end,
    failed = function(why)
      self.proxy = nil
      self:tell("error", "the proxy has ended: " .. why)
    end,
  })
end

--- Takes away what the policy does not give, then gives what it gives.
local function switch(self)
  local mode = self.policy.mode
  if self.joined and mode ~= "allow-all" then
    self.joined = false
    self.holder:part()
  end
  if self.proxy and mode ~= "custom" then
    self.proxy:close()
    self.proxy = nil
  end
  if self.closed then
    return
  elseif mode == "allow-all" and not self.joined then
    join(self)
  elseif mode == "custom" and self.proxy then
    self.proxy:set_policy(self.policy)
  elseif mode == "custom" and self.box then
    open_proxy(self)
  end
end

--- Makes the network what the policy says, at once. When that fails it is less, and the error is raised, unless the
--- sandbox has ended meanwhile.
---@param policy table|nil  another policy
function Network:apply(policy)
  self.policy = policy or self.policy
  self.turn:with(function()
    local mode = self.policy.mode
    local ok, err = pcall(switch, self)
    if ok and mode ~= self.told then
      self.told = mode
      self:tell("info", "the policy is " .. mode)
    elseif not ok and not self.closed and not errors.is(err, "cancelled") then
      self:tell("error", ("the policy is %s, but it has less: %s"):format(mode, reason(err)))
    end
    if not ok and not (self.closed and errors.is(err, "local")) then
      error(err, 0)
    end
  end)
end

--- The sandbox is up. Waits until the network is what the policy says, or has failed to be.
---@param box lbox.server.Sandbox
---@param policy table|nil  which may have changed meanwhile
function Network:started(box, policy)
  self.box = box
  pcall(self.apply, self, policy)
end

--- slirp4netns has ended, though nobody told it to.
function Network:restart(why)
  self:tell("error", "slirp4netns has ended: " .. why)
  self.networks.server.scope:spawn(function()
    self.restarts = async.now() - self.joined_at > WELL_MS and 1 or self.restarts + 1
    pcall(self.turn.with, self.turn, function()
      self.joined = false
      self.holder:part()
    end)
    if self.restarts > MAX_RESTARTS then
      return self:tell("error", "slirp4netns ends again and again: the box has no network until its next start, or "
        .. "until its policy is set again")
    end
    async.sleep(RESTART_MS)
    if not self.closed and self.policy.mode == "allow-all" then
      pcall(self.apply, self)
    end
  end)
end

--- The process that holds the namespaces has ended, though nobody told it to.
function Network:lost()
  self.holder, self.joined = nil, false
  self:tell("error", "the process that holds it has ended: the box has only loopback until it is paused and starts "
    .. "again")
end

--- This machine has other addresses than before.
function Network:own_addresses_changed()
  if self.joined then
    local ok, err = pcall(self.holder.refuse, self.holder, refused(self))
    if not ok then
      self:tell("error", "an address of this machine cannot be refused: " .. reason(err))
      self.holder:close()
    end
  end
  if self.proxy then
    self.proxy:set_policy(self.policy)
  end
end

--- The sandbox has ended. Does not wait.
function Network:close()
  self.closed = true
  self.networks.open[self] = nil
  if self.holder then
    self.holder:close()
  end
end

return M
