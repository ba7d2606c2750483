--- Boxes: their rows, their directories and, while something works in them, their sandboxes.
local async = require "lbox.async"
local errors = require "lbox.errors"
local ids = require "lbox.server.ids"
local json = require "lbox.json"
local posix = require "lbox.server.posix"
local sandbox = require "lbox.server.sandbox"

-- Started as root, every box gets a host uid of its own from here on.
local FIRST_UID = 524288
local WORKSPACE = "/workspace/home"

-- Names that would change what runs rather than what it sees.
local BLOCKED_ENV = { PATH = true, HOME = true, LD_PRELOAD = true, LD_LIBRARY_PATH = true,
  NODE_OPTIONS = true }

---@class lbox.server.Boxes
local Boxes = {}
Boxes.__index = Boxes

--- The boxes of a server.
---@param server table  data, store, scope, log
function Boxes.new(server)
  return setmetatable({ server = server, store = server.store, data = server.data, live = {}, removing = {} },
    Boxes)
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

-- A directory is a box's while it has the box's id for its name. Before and after it has one of these
-- in front, by which it is known for rubbish whenever the server was killed.
local NEW, DELETED = ".new-", ".deleted-"

local function directory(self, id)
  return self.data.boxes .. "/" .. id
end

--- A box's directory holds its lock and its root. The box's own user, when it has one, gets through to
--- the root; nobody else does.
local function make_directory(dir, uid)
  local function check(ok, why, errno)
    if not ok then
      errors.raise("local", ("cannot make %s: %s"):format(dir, why), { errno = errno })
    end
  end
  check(posix.mkdir(dir, 0x1c0))
  if uid then
    check(posix.lchown(dir, 0, uid))
    check(posix.chmod(dir, 0x1c8)) -- 0710
  end
  sandbox.create_root(dir .. "/root", uid)
end

local function remove_dir(path)
  local ok, why = posix.rmdir(path)
  if not ok then
    errors.raise("local", ("%s: %s"):format(path, why))
  end
end

--- Removes the files of a box in which nothing runs any more.
local function remove_files(self, dir)
  local root = dir .. "/root"
  local st = posix.lstat(root)
  if st then
    local uid = posix.getuid() == 0 and st.uid or nil
    if uid and uid < FIRST_UID and not dir:find("/" .. NEW, 1, true) then
      errors.raise("local", ("%s belongs to user %d and to no box"):format(root, uid))
    end
    sandbox.empty_root(root, uid, self.data.bin)
    remove_dir(root)
  end
end

--- The same with its directory.
local function remove_directory(self, dir)
  remove_files(self, dir)
  posix.unlink(dir .. "/lock")
  remove_dir(dir)
end

--- All that beside whatever else goes on; what cannot be removed is removed at the next start. Until it
--- is gone no new box gets its uid.
local function remove_later(self, dir)
  if not posix.lstat(dir) then
    return
  end
  local st = posix.lstat(dir .. "/root")
  local removing = self.removing
  if st then
    removing[st.uid] = (removing[st.uid] or 0) + 1
  end
  self.server.scope:spawn(function()
    local ok, err = pcall(remove_directory, self, dir)
    if not ok then
      self.server.log(("cannot remove %s: %s"):format(dir, tostring(err)))
    elseif st then
      removing[st.uid] = removing[st.uid] > 1 and removing[st.uid] - 1 or nil
    end
  end)
end

local function free_uid(self)
  local uid = FIRST_UID - 1
  repeat
    uid = self.store:free_uid(uid + 1)
  until not self.removing[uid]
  return uid
end

--- Creates a box from a checked create request.
---@param config table
---@return table row
function Boxes:create(config)
  local found = not self.probed and sandbox.probe()
  if found and not found.ok then
    local problem = found.problems[1]
    refuse(503, ("local boxes do not work on this machine: %s; fix: %s"):format(problem.cause, problem.fix))
  end
  self.probed = true
  if config.name and self.store:box(config.name) then
    refuse(409, ("there is a box named %q already"):format(config.name))
  end

  local id
  repeat
    id = ids.box()
  until not self.store:box(id) and not posix.lstat(directory(self, id))
  local uid = posix.getuid() == 0 and free_uid(self) or nil
  local row = { id = id, name = config.name, status = "idle", uid = uid, config = config,
    created_at = os.time(), updated_at = os.time() }
  local dir, new = directory(self, id), directory(self, NEW .. id)
  local ok, err = pcall(function()
    make_directory(new, uid)
    self.store:add_box(row)
    local named, why = posix.rename(new, dir)
    if not named then
      self.store:remove_box(id)
      errors.raise("local", ("cannot make %s: %s"):format(dir, why))
    end
  end)
  if not ok then
    remove_later(self, new)
    error(err, 0)
  end
  -- The sandbox starts beside the answer, so that the first command finds it up.
  self.server.scope:spawn(function()
    pcall(self.sandbox, self, row)
  end)
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
  if live and live.active > 0 then
    return "running"
  end
  return row.status
end

--- The running sandbox of a box; starts it when it is not up.
---@return lbox.server.Sandbox
function Boxes:sandbox(row)
  local live = self:live_state(row.id)
  while live.starting do
    local op = async.op()
    table.insert(live.starting, op)
    async.wait(op) -- and look again: that start may have failed
  end
  if live.deleting then
    refuse(404, ("box %q not found"):format(row.id))
  elseif live.sandbox and not live.sandbox.closed then
    return live.sandbox
  end
  local waiting = {}
  live.starting = waiting
  local ok, result = pcall(sandbox.start, {
    id = row.id,
    root = directory(self, row.id) .. "/root",
    uid = row.uid,
    etc = self.data.etc,
    bin = self.data.bin,
  })
  live.starting = nil
  for _, op in ipairs(waiting) do
    op:resolve()
  end
  if not ok then
    error(result, 0)
  end
  live.sandbox = result
  self.server.scope:spawn(function() result:run() end)
  if live.deleting then
    refuse(404, ("box %q not found"):format(row.id)) -- whoever deletes it ends the sandbox
  end
  if row.status ~= "idle" then
    self.store:set_box(row.id, "status", "idle")
    row.status = "idle"
  end
  return result
end

--- Counts work in a box: it is `running` meanwhile.
function Boxes:working(row, fn)
  local live = self:live_state(row.id)
  live.active = live.active + 1
  local results = table.pack(pcall(fn, self:sandbox(row)))
  live.active = live.active - 1
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
  local dir, rubbish = directory(self, row.id), directory(self, DELETED .. row.id)
  local ok, err = pcall(function()
    if live.starting then
      local op = async.op()
      table.insert(live.starting, op)
      async.wait(op)
    end
    end_sandbox(live)
    local moved, why, errno = posix.rename(dir, rubbish)
    if not moved and errno ~= "ENOENT" then
      errors.raise("local", ("cannot move %s: %s"):format(dir, why))
    end
    local removed, failure = pcall(self.store.remove_box, self.store, row.id)
    if not removed then
      -- Its files may be what fills the disk.
      remove_files(self, rubbish)
      self.store:remove_box(row.id)
      self.server.log(("the box %s is deleted, though at first: %s"):format(row.id, tostring(failure)))
    end
  end)
  if not ok then
    live.deleting = nil
    error(err, 0)
  end
  self.live[row.id] = nil
  self.server.public_urls:forget(row.id)
  remove_later(self, rubbish)
end

--- Puts in order what a killed server left behind: boxes half made or half deleted.
function Boxes:sweep()
  for _, row in ipairs(self.store:boxes()) do
    local there = posix.lstat(directory(self, row.id))
    if not there and (posix.lstat(directory(self, NEW .. row.id)) or posix.lstat(directory(self, DELETED .. row.id)))
    then
      self.store:remove_box(row.id)
    elseif not there then
      self.server.log(("the files of the box %s are not there"):format(row.id))
    end
  end
  for _, name in ipairs(posix.listdir(self.data.boxes) or {}) do
    local path = directory(self, name)
    local st = posix.lstat(path)
    if not st or st.type ~= "directory" or st.uid ~= posix.getuid() then
      self.server.log(path .. " is not the server's and is left alone")
    elseif name:sub(1, #NEW) == NEW or name:sub(1, #DELETED) == DELETED then
      remove_later(self, path)
    elseif not self.store:box(name) then
      self.server.log(path .. " is of no box that is known, and is left alone")
    end
  end
end

--- Whether anything is going on in any box: work of ours, or processes a command left behind. Who has a
--- public URL may be asked at any time, and who has a schedule needs its time kept.
function Boxes:busy()
  if self.server.public_urls:busy() or self.server.schedules:busy() then
    return true
  end
  for id, live in pairs(self.live) do
    local row = self.store:box(id)
    if live.active > 0 or live.deleting or (live.sandbox and not live.sandbox.closed
      and (live.sandbox:has_processes() or (row and row.config.keep_alive))) then
      return true
    end
  end
  return false
end

function Boxes:close()
  for _, live in pairs(self.live) do
    end_sandbox(live)
  end
end

--- The environment of a command, as a list.
function Boxes.environment(row, extra)
  local vars = { HOME = "/home/boxuser", USER = "boxuser", LOGNAME = "boxuser", SHELL = "/bin/bash",
    PATH = sandbox.PATH, LANG = "C.UTF-8", TERM = "dumb", LBOX_BOX_ID = row.id }
  for name, value in pairs(row.config.env_vars or {}) do
    if not BLOCKED_ENV[name] and type(value) == "string" then
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
  return {
    id = row.id,
    name = row.name,
    labels = json.array(config.labels or {}),
    size = config.size or "small",
    keep_alive = config.keep_alive or false,
    model = config.model,
    agent = config.agent,
    enabled_skills = json.array {},
    runtime = config.runtime,
    status = self:status(row),
    network_policy = { mode = "deny-all" }, -- whatever was asked for: they have no network
    session_id = row.session_id,
    created_at = row.created_at,
    updated_at = row.updated_at,
  }
end

return Boxes
