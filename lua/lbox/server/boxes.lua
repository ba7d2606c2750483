--- Boxes: their rows, their directories and, while something works in them, their sandboxes.
local agent_programs = require "lbox.server.agent_programs"
local async = require "lbox.async"
local egress = require "lbox.server.egress"
local errors = require "lbox.errors"
local host_ports = require "lbox.server.host_ports"
local ids = require "lbox.server.ids"
local json = require "lbox.json"
local Job = require "lbox.server.job"
local lifecycle = require "lbox.server.lifecycle"
local posix = require "lbox.server.posix"
local run_webhooks = require "lbox.server.run_webhooks"
local sandbox = require "lbox.server.sandbox"
local settings = require "lbox.server.settings"
local Trees = require "lbox.server.trees"

local WORKSPACE = "/workspace/home"
-- How long until one tries again to note what the database did not take.
local NOTE_MS = 500

---@class lbox.server.Boxes
---@field expiring table<string, integer>  boxes that end by themselves, and when (Unix seconds)
local Boxes = {}
Boxes.__index = Boxes

--- The boxes of a server.
---@param server table  data, store, scope, log
function Boxes.new(server)
  return setmetatable({ server = server, store = server.store, data = server.data, live = {}, expiring = {},
    trees = Trees.new(server, server.data.boxes, "box") }, Boxes)
end

--- What is known of a box while the server runs: its sandbox, what is active in it.
function Boxes:live_state(id)
  local live = self.live[id]
  if not live then
    live = { active = 0 }
    self.live[id] = live
  end
  return live
end

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

-- ---------------------------------------------------------------------------------------- holding

-- Who starts a box's sandbox, fills its directory or copies it holds the box: others wait.

local function wait_until_free(live)
  while live.held do
    local op = async.op()
    table.insert(live.held, op)
    async.wait(op) -- and look again: somebody else may have been quicker
  end
end

local function hold(live)
  live.held = {}
end

local function release(live)
  local waiting = live.held
  live.held = nil
  for _, op in ipairs(waiting) do
    op:resolve()
  end
end

--- Runs `fn` as a job that holds the box, and is cancelled when the box is deleted.
local function hold_for(self, live, fn)
  hold(live)
  live.holder = Job.start(self.server, fn, function()
    live.holder = nil
    release(live)
  end)
  return live.holder
end

-- --------------------------------------------------------------------------------------- creating

local function free_uid(self)
  local uid = Trees.FIRST_UID - 1
  repeat
    uid = self.store:free_uid(uid + 1)
  until not (self.trees.removing[uid] or self.server.snapshots.trees.removing[uid])
  return uid
end

--- Whether boxes can be, which is looked at once.
local function check_works(self)
  local found = not self.probed and sandbox.probe()
  if found and not found.ok then
    local problem = found.problems[1]
    refuse(503, ("local boxes do not work on this machine: %s; fix: %s"):format(problem.cause, problem.fix))
  end
  self.probed = true
end

--- The sandbox starts beside the answer, so that the first command finds it up.
local function start_early(self, row)
  self.server.scope:spawn(function()
    pcall(self.sandbox, self, row)
  end)
end

--- Fills the directory of a box that is `creating`, beside whatever else goes on.
local function fill_later(self, row, fill, root)
  return hold_for(self, self:live_state(row.id), function()
    local ok, err = pcall(function()
      fill(root, row.uid)
      self.trees:keep(row.id)
      self.store:set_box(row.id, "status", "idle")
    end)
    if ok then
      start_early(self, row)
      return
    end
    self.server.log(("the box %s could not be made: %s"):format(row.id, tostring(err)))
    self.trees:abandon(row.id)
    -- On a disk that is full, not before there is room again.
    while not pcall(self.store.set_box, self.store, row.id, "status", "error") do
      async.sleep(NOTE_MS)
    end
  end)
end

--- Creates a box from a checked create request.
---@param config table
---@param fill fun(root: string, uid: integer|nil)|nil  makes its files, which may take long: it is `creating`
---  meanwhile, and `error` when that failed
---@return table row, lbox.server.Job|nil filling
function Boxes:create(config, fill)
  check_works(self)
  self.server.limits:check_create()
  if config.name and self.store:box(config.name) then
    refuse(409, ("there is a box named %q already"):format(config.name))
  end

  local id
  repeat
    id = ids.box()
  until not self.store:box(id) and not self.trees:has(id)
  local uid = posix.getuid() == 0 and free_uid(self) or nil
  local now = os.time()
  config.expires_at, config.ttl = config.ttl and now + config.ttl, nil
  local row = { id = id, name = config.name, status = fill and "creating" or "idle", uid = uid, config = config,
    created_at = now, updated_at = now }
  local ok, root = pcall(function()
    local root = self.trees:begin(id, uid)
    if not fill then
      sandbox.create_root(root, uid)
    end
    self.store:add_box(row)
    local kept, err = fill ~= nil, nil
    if not fill then
      kept, err = pcall(self.trees.keep, self.trees, id)
    end
    if not kept then
      self.store:remove_box(id)
      error(err, 0)
    end
    return root
  end)
  if not ok then
    self.trees:abandon(id)
    error(root, 0)
  end
  self.expiring[id] = config.expires_at
  if fill then
    return row, fill_later(self, row, fill, root)
  end
  start_early(self, row)
  return row
end

--- The box with this id or name; raises 404.
function Boxes:get(key)
  local row = self.store:box(key)
  if not row or (self.live[row.id] and self.live[row.id].deleting) then
    refuse(404, ("box %q not found"):format(key))
  end
  return row
end

function Boxes:status(row)
  local live = self.live[row.id]
  if live and live.active > 0 and row.status ~= "creating" and row.status ~= "error" then
    return "running"
  end
  return row.status
end

--- The row of a box that others may have changed since it was read; raises when nothing can run in it.
local function usable(self, row)
  local live, now = self:live_state(row.id), self.store:box(row.id)
  if live.deleting or not now then
    refuse(404, ("box %q not found"):format(row.id))
  elseif now.status == "error" then
    refuse(409, ("the box %q could not be made: delete it, and make another"):format(row.id))
  end
  return now
end

local function start(self, row, live)
  row = usable(self, row)
  local network = self.server.networks:start(row)
  local ok, started = pcall(sandbox.start, {
    id = row.id,
    root = self.trees:root(row.id),
    uid = row.uid,
    etc = self.data.etc,
    bin = self.data.bin,
    agent = agent_programs.mounts(self.server, row.config.agent),
    limit = self.server.limits:of(row),
    join = network.join,
  })
  if not ok then
    network:close()
    error(started, 0)
  end
  live.sandbox, live.network = started, network
  if started.ended then
    network:close()
  else
    table.insert(started.on_exit, function() network:close() end)
  end
  if not started.proc and not started.ended then
    self.server.log(("the box %s: its memory and disk cannot be looked at, so they are not limited"):format(row.id))
  end
  local err
  ok, err = pcall(host_ports.open, live.sandbox, self.server.host_ports, self.server.scope, self.server.log)
  if not ok then
    live.sandbox:close()
    error(err, 0)
  end
  live.used_at = async.now()
  self.server.logs:add(row.id, "info", "the box was started")
  self.server.scope:spawn(function() live.sandbox:run() end)
  row = usable(self, row) -- else whoever deletes it ends the sandbox
  network:started(live.sandbox, row.config.network_policy)
  if row.status ~= "idle" then
    self.store:set_box(row.id, "status", "idle")
  end
  lifecycle.started(self, row, live.sandbox)
end

--- The running sandbox of a box; starts it when it is not up.
---@return lbox.server.Sandbox
function Boxes:sandbox(row)
  local live = self:live_state(row.id)
  wait_until_free(live)
  if not live.sandbox or live.sandbox.closed or live.deleting then
    hold(live)
    local ok, err = pcall(start, self, row, live)
    release(live)
    if not ok then
      error(err, 0)
    end
  end
  return live.sandbox
end

--- Counts work in a box: it is `running` meanwhile.
function Boxes:working(row, fn)
  local live = self:live_state(row.id)
  live.active = live.active + 1
  local results = table.pack(pcall(fn, self:sandbox(row)))
  live.active = live.active - 1
  live.used_at = async.now()
  if not results[1] then
    error(results[2], 0)
  end
  return table.unpack(results, 2, results.n)
end

--- Ends the sandbox of a box and waits until its last process is gone.
local function end_sandbox(live)
  local box = live.sandbox
  if box and not box.ended then
    local ended = async.op()
    box.on_exit[#box.on_exit + 1] = function() ended:resolve() end
    box:close()
    async.shield(function() async.wait(ended) end, 10000)
  end
end

--- Ends everything that runs in a box. Whatever is asked of it next starts it again.
---@param row table
---@param idle boolean|nil  only if nothing is being done in it
function Boxes:pause(row, idle)
  local live = self:live_state(row.id)
  wait_until_free(live)
  if idle and live.active > 0 then
    return
  elseif usable(self, row).status ~= "paused" then
    self.store:set_box(row.id, "status", "paused")
    self.server.logs:add(row.id, "info", "the box was paused")
  end
  end_sandbox(live)
end

--- Calls `fn(root)` while nothing in the box changes its files: what runs in it is stopped as long, and how long
--- that was is in the log.
---@param row table
---@param fn fun(root: string): ...
---@return lbox.server.Job
function Boxes:still(row, fn)
  local live, root = self:live_state(row.id), self.trees:root(row.id)
  wait_until_free(live)
  usable(self, row)
  return hold_for(self, live, function()
    local box, since = live.sandbox, async.now()
    local frozen = box and not box.closed and pcall(box.freeze, box)
    local ok, result = pcall(function()
      if frozen then
        return fn(root)
      elseif box and not box.closed then
        box:freeze() -- once more, for what is wrong
      end
      end_sandbox(live)
      return sandbox.alone(root, function() return fn(root) end)
    end)
    if box then
      box:thaw()
      self.server.log(("the box %s was stopped for %.0f ms"):format(row.id, async.now() - since))
    end
    if not ok then
      error(result, 0)
    end
    return result
  end)
end

--- Deletes a box for good: its processes, its row and its files.
function Boxes:delete(row)
  local live = self:live_state(row.id)
  if live.deleting then
    return
  end
  live.deleting = true
  for _, run in pairs(live.runs or {}) do
    run:cancel()
  end
  local id = row.id
  local ok, err = pcall(function()
    if live.holder then
      live.holder:cancel("the box is deleted")
    end
    wait_until_free(live)
    end_sandbox(live)
    self.trees:discard(id)
    local removed, failure = pcall(self.store.remove_box, self.store, id)
    if not removed then
      -- Its files may be what fills the disk.
      self.trees:remove_files(id)
      self.store:remove_box(id)
      self.server.log(("the box %s is deleted, though at first: %s"):format(id, tostring(failure)))
    end
  end)
  if not ok then
    live.deleting = nil
    error(err, 0)
  end
  self.live[id], self.expiring[id] = nil, nil
  self.server.limits:forget(id)
  self.server.logs:forget(id)
  self.server.public_urls:forget(id)
  self.trees:remove(id)
end

--- Puts in order what a killed server left behind: boxes half made or half deleted.
function Boxes:sweep()
  for _, row in ipairs(self.store:boxes()) do
    local there = self.trees:has(row.id)
    self.expiring[row.id] = row.config.expires_at
    if row.status == "creating" then
      self.store:set_box(row.id, "status", there and "paused" or "error")
    elseif not there and self.trees:has_rest(row.id) then
      self.store:remove_box(row.id)
    elseif not there and row.status ~= "error" then
      self.server.log(("the files of the box %s are not there"):format(row.id))
    end
  end
  self.trees:sweep(function(name) return self.store:box(name) end)
end

--- Whether anything is going on in any box: work of ours, or processes a command left behind. Who has a
--- public URL may be asked at any time, who has a schedule needs its time kept, and a webhook waits to be told.
function Boxes:busy()
  if self.server.public_urls:busy() or self.server.schedules:busy() or run_webhooks.busy(self.server) then
    return true
  end
  for id, live in pairs(self.live) do
    local row = self.store:box(id)
    if live.active > 0 or live.deleting or live.holder or (live.sandbox and not live.sandbox.closed
      and (live.sandbox:has_processes() or (row and row.config.keep_alive))) then
      return true
    end
  end
  return false
end

--- Ends all sandboxes, at once, and waits for the last.
function Boxes:close()
  for _, live in pairs(self.live) do
    if live.sandbox then
      live.sandbox:close()
    end
  end
  for _, live in pairs(self.live) do
    end_sandbox(live)
  end
end

--- Changes what a box was given, at once.
---@param row table  the box
---@param change fun(config: table)  does not wait
---@return table config
function Boxes:configure(row, change)
  local config = self:get(row.id).config
  change(config)
  self.store:set_config(row.id, config)
  return config
end

--- Gives a box another network policy: also what runs in it has no more than that from now on.
---@param row table
---@param policy table
function Boxes:set_network_policy(row, policy)
  self.server.networks:check(policy)
  self:configure(row, function(config)
    config.network_policy = policy
  end)
  local live = self:live_state(row.id)
  if live.network and not live.network.closed then
    live.network:apply(policy)
  end
end

--- The environment of a command, as a list.
function Boxes.environment(row, extra)
  local vars = { HOME = "/home/boxuser", USER = "boxuser", LOGNAME = "boxuser", SHELL = "/bin/bash",
    PATH = sandbox.PATH, LANG = "C.UTF-8", TERM = "dumb", LBOX_BOX_ID = row.id }
  if (row.config.network_policy or {}).mode == "custom" then
    for name, value in pairs(egress.ENV) do
      vars[name] = value
    end
  end
  for name, value in pairs(row.config.env_vars or {}) do
    if not settings.BLOCKED_ENV[name] and type(value) == "string" then
      vars[name] = value
    end
  end
  for name, value in pairs(extra or {}) do
    vars[name] = value
  end
  local list = {}
  for name, value in pairs(vars) do
    list[#list + 1] = name .. "=" .. value
  end
  return list
end

--- An absolute directory for the wire's `folder`.
function Boxes.folder(folder)
  if folder == nil or folder == "" then
    return WORKSPACE
  elseif folder:sub(1, 1) == "/" then
    return folder
  end
  return WORKSPACE .. "/" .. folder
end

--- A box as the wire has it (box-api.md §1.1).
function Boxes:describe(row)
  local config = row.config
  local out = self.store:totals(row.id)
  for name, value in pairs {
    id = row.id,
    customer_id = "local",
    total_compute_cost_usd = 0,
    name = row.name,
    labels = json.array(config.labels or {}),
    size = config.size or "small",
    keep_alive = config.keep_alive or false,
    model = config.model,
    agent = config.agent,
    enabled_skills = json.array(config.skills or {}),
    runtime = config.runtime,
    status = self:status(row),
    network_policy = config.network_policy or { mode = "deny-all" }, -- those of an older lbox have none
    session_id = row.session_id,
    ephemeral = config.ephemeral,
    expires_at = config.expires_at,
    created_at = row.created_at,
    updated_at = row.updated_at,
  } do
    out[name] = value
  end
  return out
end

return Boxes
