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
  return setmetatable({ server = server, store = server.store, data = server.data, live = {} }, Boxes)
end

--- What is known of a box while the server runs: its sandbox, what is active in it.
local function live_of(self, id)
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

local function directory(self, id)
  return self.data.boxes .. "/" .. id
end

--- A box's directory holds its lock and its root. The box's own user, when it has one, gets through to
--- the root; nobody else does.
local function make_directory(dir, uid)
  local made, why = posix.mkdir(dir, 0x1c0)
  if not made then
    errors.raise("local", ("cannot make %s: %s"):format(dir, why))
  end
  if uid then
    assert(posix.lchown(dir, 0, uid))
    assert(posix.chmod(dir, 0x1c8)) -- 0710
  end
  sandbox.create_root(dir .. "/root", uid)
end

--- Creates a box from a checked create request.
---@param config table
---@return table row
function Boxes:create(config)
  if config.name and self.store:box(config.name) then
    refuse(409, ("there is a box named %q already"):format(config.name))
  end
  local found = not self.probed and sandbox.probe()
  if found and not found.ok then
    local problem = found.problems[1]
    refuse(503, ("local boxes do not work on this machine: %s; fix: %s"):format(problem.cause, problem.fix))
  end
  self.probed = true

  local id
  repeat
    id = ids.box()
  until not self.store:box(id) and not posix.lstat(directory(self, id))
  local uid = posix.getuid() == 0 and self.store:free_uid(FIRST_UID) or nil
  local row = { id = id, name = config.name, status = "idle", uid = uid, config = config,
    created_at = os.time(), updated_at = os.time() }
  -- The row first: a directory without one would be nobody's, and its uid given out again.
  self.store:add_box(row)
  local ok, err = pcall(make_directory, directory(self, id), uid)
  if not ok then
    self.store:remove_box(id)
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
  local live = live_of(self, row.id)
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
  if live.deleting then
    result:close()
    refuse(404, ("box %q not found"):format(row.id))
  end
  live.sandbox = result
  self.server.scope:spawn(function() result:run() end)
  if row.status ~= "idle" then
    self.store:set_box(row.id, "status", "idle")
    row.status = "idle"
  end
  return result
end

--- Counts work in a box: it is `running` meanwhile.
function Boxes:working(row, fn)
  local live = live_of(self, row.id)
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
  if box and not box.closed then
    local ended = async.op()
    box.on_exit[#box.on_exit + 1] = function() ended:resolve() end
    box:close()
    async.shield(function() async.wait(ended) end, 10000)
  end
end

--- Removes the directory of a box in which nothing runs any more.
local function remove_directory(self, dir)
  local root = dir .. "/root"
  local st = posix.lstat(root)
  if st then
    local owner = posix.getuid() == 0 and st.uid or nil
    sandbox.empty_root(root, owner, self.data.bin)
    assert(posix.rmdir(root))
  end
  posix.unlink(dir .. "/lock")
  assert(posix.rmdir(dir))
end

--- The same beside whatever else goes on; what cannot be removed is removed at the next start.
local function remove_later(self, dir)
  self.server.scope:spawn(function()
    local ok, err = pcall(remove_directory, self, dir)
    if not ok then
      self.server.log(("cannot remove %s: %s"):format(dir, tostring(err)))
    end
  end)
end

--- Deletes a box for good: its processes, its row and its files.
function Boxes:delete(row)
  local live = live_of(self, row.id)
  if live.deleting then
    return
  end
  live.deleting = true
  for _, run in pairs(live.runs or {}) do
    run:cancel()
  end
  end_sandbox(live)
  local dir = directory(self, row.id)
  -- Renamed first: what a kill leaves behind is then known for rubbish at the next start.
  local gone = self.data.boxes .. "/.deleted-" .. row.id
  if posix.rename(dir, gone) then
    remove_later(self, gone)
  end
  self.store:remove_box(row.id)
  self.live[row.id] = nil
end

--- Removes what a killed server left half deleted.
function Boxes:sweep()
  for _, name in ipairs(posix.listdir(self.data.boxes) or {}) do
    if name:match("^%.deleted%-") or not (name:match("^%.") or self.store:box(name)) then
      remove_later(self, self.data.boxes .. "/" .. name)
    end
  end
end

--- Whether anything is going on in any box: work of ours, or processes a command left behind.
function Boxes:busy()
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
