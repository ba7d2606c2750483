--- What boxes may use of the machine. Processes are bounded by the kernel; memory and disk are looked at
--- again and again, and whoever takes too much is killed. What was done is in the box's logs.
local async = require "lbox.async"
local box_root = require "lbox.server.box_root"
local child = require "lbox.server.child"
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"

local M = {}

local MIB, GIB = 1024 * 1024, 1024 * 1024 * 1024

---@alias lbox.server.Limit { memory: integer, disk: integer, processes: integer|nil }  bytes; processes and
---  threads, nil where they cannot be counted

-- By the `size` of a box.
M.SIZES = {
  small = { memory = 4 * GIB, disk = 5 * GIB, processes = 4096 },
  medium = { memory = 8 * GIB, disk = 10 * GIB, processes = 4096 },
  large = { memory = 16 * GIB, disk = 20 * GIB, processes = 4096 },
}

-- Unless the server is told otherwise.
local MAX_BOXES = 1000
-- The file system of the data directory keeps so much: a twentieth of it, at most this.
local FLOOR, FLOOR_PART = 1 * GIB, 20

-- How often a box is looked at, and how much less often more closely: not much, however long that takes.
local LOOK_MS, SELDOM_MS, LOOK_PART = 100, 1000, 5
-- How long a closer look may take, and one in a hurry.
local EXACT_MS, QUICK_MS = 400, 5000
-- How long a box may have as many processes as it may have, give or take those that just come and go.
local FULL_MS, SPARE = 2000, 4
-- Where lbox-init, run as a helper, has the /proc of the box.
local PROC_FD = 3
-- What a box has on disk is counted anew when so much of the file system was taken or given back since, and when
-- that was long ago; and for how many times the time it takes it is not.
local CHANGED, COUNT_MS, OLD_MS, COUNT_PART = 16 * MIB, 500, 60000, 5
-- What is killed for using too much has used more than this more than before.
local STEP = MIB

-- How often one looks for room while something is copied.
local ROOM_MS = 50

-- How often the server's log has what was done to a box.
local TELL_MS = 1000

-- A box with less than this could do nothing.
local LEAST = { memory = 16 * MIB, disk = MIB, processes = 8 }

local UNITS = { [""] = 1, K = 1024, M = MIB, G = GIB, T = 1024 * GIB }

--- A size as people write it ("64M", "1.5G", bytes): nil and what is wrong when it is none.
---@param text string
---@return integer|nil bytes, string|nil why
function M.bytes(text)
  local number, unit = text:upper():match("^(%d+%.?%d*)([KMGT]?)I?B?$")
  local value = number and tonumber(number) * (UNITS[unit] + 0.0)
  if not value or value > 2 ^ 60 then
    return nil, ("%s is no size: write 64M, 1.5G or bytes"):format(text)
  end
  return math.floor(value)
end

--- A size for people to read.
---@param bytes integer
---@return string
function M.shown(bytes)
  for _, unit in ipairs { "T", "G", "M", "K" } do
    if bytes >= UNITS[unit] then
      return ("%s %sB"):format(("%.1f"):format(bytes / UNITS[unit]):gsub("%.0$", ""), unit)
    end
  end
  return ("%d bytes"):format(bytes)
end

--- A limit of every box, whatever its size ("memory=64M"): nil and what is wrong when it is none.
---@param text string
---@return { name: string, value: integer }|nil limit, string|nil why
function M.parse(text)
  local name, value = text:match("^(%a+)=(.+)$")
  if not M.SIZES.small[name] then
    return nil, ("--limit %s: write memory=SIZE, disk=SIZE or processes=N"):format(text)
  end
  local number, why = M.bytes(value)
  local least = LEAST[name]
  if not number or number < least then
    return nil, ("--limit %s: %s"):format(text, why or "at least " .. (name == "processes" and least or M.shown(least)))
  end
  return { name = name, value = number }
end

local function memory_of_machine()
  local file = io.open("/proc/meminfo")
  local kb = file and file:read("a"):match("MemTotal:%s*(%d+)")
  if file then
    file:close()
  end
  return kb and tonumber(kb) * 1024 or math.huge
end

--- Whether the kernel can count the processes of a box alone, though its user has others.
function M.counts_processes()
  local file = io.open("/proc/sys/kernel/osrelease")
  local major, minor = (file and file:read("l") or ""):match("^(%d+)%.(%d+)")
  if file then
    file:close()
  end
  major, minor = tonumber(major) or 0, tonumber(minor) or 0
  return posix.getuid() == 0 or major > 5 or (major == 5 and minor >= 14)
end

--- What boxes leave of a disk of that size unless somebody says otherwise.
---@param size integer
---@return integer
function M.floor(size)
  return math.min(FLOOR, size // FLOOR_PART)
end

---@class lbox.server.Limits
---@field used table<string, integer>     bytes on disk, by box, as far as they were counted
---@field tell_at table<string, number>  when the server's log may have of a box again
local Limits = {}
Limits.__index = Limits

---@param server table  boxes, data, logs, log, scope, snapshots
---@param opts { limits: table[]|nil, max_boxes: integer|nil, max_disk: integer|nil, disk_floor: integer|nil }
---@return lbox.server.Limits
function M.new(server, opts)
  local self = setmetatable({ server = server, used = {}, tell_at = {}, max_boxes = opts.max_boxes or MAX_BOXES,
    max_disk = opts.max_disk, instead = {}, counts_processes = M.counts_processes() }, Limits)
  for _, limit in ipairs(opts.limits or {}) do
    self.instead[limit.name] = limit.value
  end
  self.memory = memory_of_machine() * 3 // 4
  local _, size = posix.disk(server.data.dir)
  self.floor = opts.disk_floor or M.floor(size or 0)
  return self
end

--- The limits of a box. None has more memory than three quarters of the machine's.
---@param row table
---@return lbox.server.Limit
function Limits:of(row)
  local limit = {}
  for name, value in pairs(M.SIZES[row.config.size] or M.SIZES.small) do
    limit[name] = self.instead[name] or value
  end
  limit.memory = math.tointeger(math.min(limit.memory, self.memory))
  limit.processes = self.counts_processes and limit.processes or nil
  return limit
end

local function refuse(status, message, ...)
  errors.raise("api", message:format(...), { status_code = status })
end

-- --------------------------------------------------------------------------------- before something is kept

--- What all boxes and snapshots take, as far as it was counted.
local function total(self)
  local bytes = 0
  for _, used in pairs(self.used) do
    bytes = bytes + used
  end
  for _, snapshot in ipairs(self.server.snapshots:list()) do
    bytes = bytes + (snapshot.size_bytes or 0)
  end
  return bytes
end

--- Why nothing more is kept on this machine; nil: there is room.
local function is_full(self)
  local free = posix.disk(self.server.data.dir)
  if free and free < self.floor then
    return ("the disk of this machine has less than %s left"):format(M.shown(self.floor))
  elseif self.max_disk and total(self) >= self.max_disk then
    return ("boxes and snapshots take the %s that they may take together (--max-disk)"):format(M.shown(self.max_disk))
  end
end

--- Raises 507 when nothing more is kept.
function Limits:check_room()
  local why = is_full(self)
  if why then
    refuse(507, "%s: delete something first", why)
  end
end

--- Calls `fn`, which copies for long, and raises 507 as soon as nothing more is kept, also when it is just done.
---@param fn fun(): any
---@return any
function Limits:while_room(fn)
  local _, result = async.race(fn, function()
    while true do
      async.sleep(ROOM_MS)
      self:check_room()
    end
  end)
  self:check_room()
  return result
end

--- Counts what a box has on disk: nil when that cannot be.
local function count_box(self, id)
  local ok, used = pcall(box_root.size, self.server.boxes.trees:root(id), self.server.data.bin)
  if ok and used and self.server.store:box(id) then
    self.used[id] = used
    return used
  end
end

--- Raises 507 when a box may not have so many bytes more on disk.
---@param row table
---@param bytes integer
function Limits:check_write(row, bytes)
  self:check_room()
  local limit, used = self:of(row).disk, self.used[row.id] or 0
  if used + bytes > limit then
    used = count_box(self, row.id) or used -- something may have been deleted
  end
  if used + bytes > limit then
    refuse(507, "disk limit of %s: the box has %s on disk, so %s cannot be added", M.shown(limit), M.shown(used),
      M.shown(bytes))
  end
end

--- Raises 429 when there are as many boxes as there may be, 507 when there is no room.
function Limits:check_create()
  local there = #self.server.store:boxes()
  if there >= self.max_boxes then
    refuse(429, "limit reached: there are %d boxes, and may be %d (--max-boxes): delete one first", there,
      self.max_boxes)
  end
  self:check_room()
end

-- --------------------------------------------------------------------------------------------- watching

--- The server's log has it once in a while: a box may be at it all the time.
local function tell(self, id, message)
  self.server.logs:add(id, "error", message)
  if async.now() >= (self.tell_at[id] or 0) then
    self.tell_at[id] = async.now() + TELL_MS
    self.server.log(("the box %s: %s"):format(id, message))
  end
end

--- Kills the largest processes of a box until the others are below its limit: how many, the bytes of the largest and
--- its name.
local function keep_memory(self, box, how, timeout)
  local program, limit = self.server.data.bin .. "/lbox-init", tostring(box.limit.memory)
  local _, text = child.run { argv = { program, "memory", limit, how }, env = {}, cwd = "/", timeout = timeout,
    fds = { [PROC_FD] = box.proc } }
  local killed, bytes, name = text:match("^(%d+) (%d+) (.*)\n$")
  return tonumber(killed) or 0, tonumber(bytes), name
end

--- What processes share counts once, if that can be found out soon: in a crowd that forks it cannot.
local function relieve(self, id, box)
  local began = async.now()
  local ok, killed, bytes, name = pcall(keep_memory, self, box, "exact", EXACT_MS)
  if not ok and box.proc then
    ok, killed, bytes, name = pcall(keep_memory, self, box, "quick", QUICK_MS)
  end
  if ok and killed > 0 then
    tell(self, id, ("memory limit of %s: killed process %q, which had %s%s"):format(M.shown(box.limit.memory), name,
      M.shown(bytes), killed > 1 and (", and %d more"):format(killed - 1) or ""))
  end
  local now = async.now()
  box.relieve_at = now + math.min(LOOK_PART * (now - began), SELDOM_MS)
end

--- A box that stays full of processes is one in which nothing can be done any more, not even killing them.
local function judge_processes(self, id, box, count)
  local now, most = async.now(), box.limit.processes
  if not most or count < most - SPARE then
    box.full_at = nil
    return
  end
  box.full_at = box.full_at or now
  if now - box.full_at >= FULL_MS then
    box.full_at = nil
    tell(self, id, ("limit of %d processes: killed what ran in it (processes: %d)"):format(most,
      posix.kill_all(box.proc)))
  end
end

local function look_at_processes(self, id, box)
  local bytes, count = posix.usage(box.proc)
  box.look_at = async.now() + LOOK_MS
  judge_processes(self, id, box, count)
  if bytes > box.limit.memory and async.now() >= (box.relieve_at or 0) then
    box.relieve_at = math.huge -- until it has been
    self.server.scope:spawn(function() relieve(self, id, box) end)
  end
end

--- A box that has more on disk than it may is not to write on, nor any on a disk that is full: all that runs in it
--- is killed, and again whenever it takes more than it had at best since. It may be used to delete something.
local function judge(self, id, live, used)
  local box = live.sandbox
  local over = used > box.limit.disk and ("disk limit of %s"):format(M.shown(box.limit.disk))
  local why = over or is_full(self)
  local before = live.most_disk or (over and 0 or used)
  live.most_disk = why and math.min(live.most_disk or used, used) or nil
  local killed = why and used > before + STEP and posix.kill_all(box.proc) or 0
  if killed > 0 then
    live.most_disk = used
    tell(self, id, ("%s: the box has %s on disk; killed what ran in it (processes: %d)"):format(why, M.shown(used),
      killed))
  end
end

local function count_disk(self, id, live)
  local began, boxes = async.now(), self.server.boxes
  live.counting = true
  local used = count_box(self, id)
  live.counting = nil
  if used and boxes.live[id] == live and live.sandbox and live.sandbox.proc then
    judge(self, id, live, used)
  end
  local now = async.now()
  live.counted_at, live.count_at = now, now + math.max(COUNT_MS, COUNT_PART * (now - began))
end

local function look_at_disk(self, id, live, taken)
  local now = async.now()
  if live.counting or now < (live.count_at or 0) then
    return
  end
  local changed = math.abs((live.taken or taken) - taken)
  if not live.counted_at or now - live.counted_at >= OLD_MS
    or changed >= math.min(CHANGED, live.sandbox.limit.disk // 8) then
    live.taken = taken
    self.server.scope:spawn(function() count_disk(self, id, live) end)
  end
end

local function look(self)
  local _, _, taken = posix.disk(self.server.data.dir)
  for id, live in pairs(self.server.boxes.live) do
    local box = live.sandbox
    if box and box.proc and not live.deleting then
      if async.now() >= (box.look_at or 0) then
        look_at_processes(self, id, box)
      end
      look_at_disk(self, id, live, taken or 0)
    end
  end
end

--- Counts what is on disk already, if it matters: that takes long.
local function count_all(self)
  for _, row in ipairs(self.server.store:boxes()) do
    if self.used[row.id] == nil then
      count_box(self, row.id)
    end
  end
end

--- Looks after the boxes from now on.
function Limits:watch()
  local scope = self.server.scope
  if self.max_disk then
    scope:spawn(function() count_all(self) end)
  end
  scope:spawn(function()
    while true do
      look(self)
      async.sleep(LOOK_MS)
    end
  end)
end

--- The box is gone.
function Limits:forget(id)
  self.used[id], self.tell_at[id] = nil, nil
end

return M
