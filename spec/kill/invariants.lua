-- What holds of a server that was killed and started again.
local async = require "lbox.async"
local content = require "spec.kill.content"
local lbox = require "lbox"
local posix = require "lbox.server.posix"
local sqlite = require "lbox.server.sqlite"
local workload = require "spec.kill.workload"

-- What is beside the answers (removing what was half made, the end of a sandbox) is done by then.
local SETTLED_MS = 5000

local M = {}

local function sh(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read("a")
  pipe:close()
  return text
end

-- Directories that count as a file each, and what they are.
local SPECIAL = {
  git = function(dir)
    local said = sh(("git -c safe.directory='*' -C %s log -1 --format=%%s 2>/dev/null"):format(dir))
    return said:match("^(%w+)\n$")
  end,
  many = function(dir) return #posix.listdir(dir) .. " files" end,
}

--- Files below `dir` and what they are.
local function walk(dir, prefix, found)
  for _, name in ipairs(posix.listdir(dir) or {}) do
    local path = dir .. "/" .. name
    if SPECIAL[name] then
      found[#found + 1] = { name, SPECIAL[name](path) }
    elseif posix.lstat(path).type == "directory" then
      walk(path, prefix .. name .. "/", found)
    else
      local file = assert(io.open(path, "rb"))
      found[#found + 1] = { prefix .. name, content.name(file:read("a")) }
      file:close()
    end
  end
  return found
end

local function files(server, what, id)
  return walk(("%s/%s/%s/root/workspace/home"):format(server.data, what, id), "", {})
end

--- What of a box the ledger has.
local function see_box(server, box, seen)
  local function see(kind, name, value)
    seen[("%s %s/%s"):format(kind, box.name, name)] = value
  end
  seen["box " .. box.name] = box.status == "error" and "error" or "there"
  if box.status == "error" then
    return
  end
  for _, file in ipairs(files(server, "boxes", box.id)) do
    see("file", file[1], file[2])
  end
  if box.expires_at then
    see("expiry", "ttl", ("%d"):format(box.expires_at - box.created_at))
    return
  end
  local handle = lbox.Box.get(box.id, server:client())
  for _, label in ipairs(box.labels or {}) do
    see("label", label, "there")
  end
  for _, each in ipairs(handle.schedule:list()) do
    see("schedule", each.command[3]:sub(3), each.cron)
  end
  for _, url in ipairs(handle:list_public_urls()) do
    see("url", ("%d"):format(url.port), "there")
  end
  local command = handle:get_init_command()
  see("init", "", command ~= "" and command or nil)
  see("model", "", box.model ~= "custom" and box.model or nil)
end

local function see_runs(db, seen)
  for _, run in ipairs(db:rows("SELECT r.*, b.name FROM runs r JOIN boxes b ON b.id = r.box_id "
    .. "WHERE r.prompt GLOB '*kill-*'")) do
    local value = run.status .. (run.error_message and ": " .. run.error_message or "")
    seen[("run %s/%s"):format(run.name, run.prompt:match("kill%-%d+"))] = value
  end
end

local function see_snapshots(server, db, seen)
  for _, snapshot in ipairs(db:rows("SELECT * FROM snapshots")) do
    local value = snapshot.status
    if value == "ready" then
      local list = {}
      for _, file in ipairs(files(server, "snapshots", snapshot.id)) do
        list[#list + 1] = file[2] and file[1] .. "=" .. file[2]
      end
      value = "ready " .. workload.tree(list)
    end
    seen["snapshot " .. snapshot.name] = value
  end
end

-- ------------------------------------------------------------------------------ invariants, by name

M.names = { "what was answered is there, what was under way is whole or not there", "no run goes on",
  "boxes are paused", "no snapshot is being taken", "counters of schedules are those of their runs",
  "no uid is of two boxes", "the database is sound", "directories are those of boxes and snapshots",
  "nothing temporary is left",
  "no process and no mount of the killed server is left", "no descriptor is left over" }

local checks = {}

local function none(db, sql, what, wrong)
  for _, row in ipairs(db:rows(sql)) do
    wrong[#wrong + 1] = what:format(row.a, row.b)
  end
end

checks[2] = function(_, db, wrong)
  none(db, "SELECT id AS a, prompt AS b FROM runs WHERE status = 'running'", "the run %s (%s) is running", wrong)
  none(db, "SELECT id AS a, status AS b FROM runs WHERE completed_at IS NULL", "the run %s (%s) has no end", wrong)
end

checks[3] = function(_, db, wrong)
  none(db, "SELECT name AS a, status AS b FROM boxes WHERE status NOT IN ('paused', 'error')", "the box %s is %s",
    wrong)
end

checks[4] = function(_, db, wrong)
  none(db, "SELECT name AS a, status AS b FROM snapshots WHERE status NOT IN ('ready', 'error')",
    "the snapshot %s is %s", wrong)
end

checks[5] = function(server, db, wrong)
  none(db, [[SELECT s.id AS a, s.total_runs || ' runs and ' || s.total_failures || ' failures, but has ' || count(r.id)
      || ' and ' || coalesce(sum(r.status <> 'completed'), 0) AS b
    FROM schedules s LEFT JOIN runs r ON r.schedule_id = s.id AND r.status <> 'skipped' GROUP BY s.id
    HAVING s.total_runs <> count(r.id) OR s.total_failures <> coalesce(sum(r.status <> 'completed'), 0)]],
    "the schedule %s counts %s", wrong)
  none(db, "SELECT id AS a, last_run_id AS b FROM schedules WHERE last_run_id IS NOT NULL AND last_run_status IS NULL",
    "the schedule %s does not say how its run %s ended", wrong)
  for _, row in ipairs(db:rows("SELECT schedule_id AS id, count(*) AS n FROM runs WHERE schedule_id IS NOT NULL "
    .. "GROUP BY schedule_id")) do
    if row.n > server.due[row.id] then
      wrong[#wrong + 1] = ("the schedule %s has %d runs and was due %d times"):format(row.id, row.n, server.due[row.id])
    end
  end
end

checks[6] = function(_, db, wrong)
  none(db, "SELECT uid AS a, group_concat(name) AS b FROM boxes WHERE uid IS NOT NULL GROUP BY uid HAVING count(*) > 1",
    "the uid %d is of the boxes %s", wrong)
  none(db, "SELECT s.name AS a, b.name AS b FROM snapshots s JOIN boxes b ON s.uid = b.uid AND s.box_id <> b.id",
    "the snapshot %s has the uid of another box, %s", wrong)
end

checks[7] = function(_, db, wrong)
  none(db, "SELECT integrity_check AS a, '' AS b FROM pragma_integrity_check WHERE integrity_check <> 'ok'", "%s%s",
    wrong)
  none(db, 'SELECT "table" AS a, parent AS b FROM pragma_foreign_key_check', "a row of %s has no row of %s", wrong)
end

checks[8] = function(server, db, wrong)
  for what, sql in pairs { boxes = "SELECT id FROM boxes", snapshots = "SELECT id FROM snapshots" } do
    local there = {}
    for _, name in ipairs(posix.listdir(server.data .. "/" .. what)) do
      there[name] = true
    end
    for _, row in ipairs(db:rows(sql .. " WHERE status <> 'error'")) do
      if not there[row.id] then
        wrong[#wrong + 1] = ("%s/%s is not there"):format(what, row.id)
      end
    end
    for _, row in ipairs(db:rows(sql)) do
      there[row.id] = nil
    end
    for name in pairs(there) do
      wrong[#wrong + 1] = ("%s/%s is left"):format(what, name)
    end
  end
end

checks[9] = function(server, _, wrong)
  for dir, allowed in pairs { [""] = "^%.", ["/bin"] = "^%." } do
    for _, name in ipairs(posix.listdir(server.data .. dir)) do
      if name:find("%.new$") or name:find(allowed) then
        wrong[#wrong + 1] = ("%s/%s is left"):format(dir, name)
      end
    end
  end
end

checks[10] = function(server, _, wrong)
  local now = server:processes()
  for process in pairs(server.left) do
    if now[process] then
      wrong[#wrong + 1] = ("the process %s runs on: %s"):format(process, now[process])
    end
  end
end

checks[11] = function(server, db, wrong)
  local urls = db:row("SELECT count(*) AS n FROM previews").n
  local extra = server:descriptors() - urls
  server.usual = server.usual or extra
  if extra > server.usual then
    wrong[#wrong + 1] = ("the server has %d descriptors more than at its first start"):format(extra - server.usual)
  end
end

--- What is wrong by one invariant, once what goes on beside the answers had its time.
local function check(server, db, fn)
  local give_up_at = async.now() + SETTLED_MS
  while true do
    local wrong = {}
    fn(server, db, wrong)
    if #wrong == 0 or async.now() > give_up_at then
      return wrong
    end
    async.sleep(10)
  end
end

--- Looks at a server that was killed and started again. Returns what is wrong, how many things were compared with
--- the ledger and how many changes of it were under way.
---@return string[] wrong, integer compared, integer under_way
function M.look(server, book)
  local db = sqlite.open(server.data .. "/lbox.db")
  local wrong = {}
  for number = 2, #M.names do
    for _, what in ipairs(check(server, db, checks[number])) do
      wrong[#wrong + 1] = ("%s: %s"):format(M.names[number], what)
    end
  end
  local seen = {}
  for _, box in ipairs(lbox.Box.list(server:client())) do
    see_box(server, box, seen)
  end
  see_runs(db, seen)
  see_snapshots(server, db, seen)
  for _, row in ipairs(db:rows("SELECT * FROM variables")) do
    seen["env " .. row.name] = row.value
  end
  db:close()
  local lost, compared, under_way = book:compare(seen)
  for _, what in ipairs(lost) do
    wrong[#wrong + 1] = ("%s: %s"):format(M.names[1], what)
  end
  return wrong, compared, under_way
end

return M
