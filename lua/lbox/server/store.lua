--- What the server remembers: boxes and runs, in SQLite. A row is written before the answer that tells
--- of it, so that a server killed at any moment has lost nothing it said.
local errors = require "lbox.errors"
local json = require "lbox.json"
local sqlite = require "lbox.server.sqlite"

local M = {}

-- What each version of the database adds to the one before.
local VERSIONS = { [[
  CREATE TABLE boxes (
    id TEXT PRIMARY KEY,
    name TEXT,
    status TEXT NOT NULL,
    uid INTEGER,
    config TEXT NOT NULL,       -- what create was given, as JSON
    session_id TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
  );
  CREATE UNIQUE INDEX boxes_name ON boxes(name) WHERE name IS NOT NULL;
  CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    box_id TEXT NOT NULL REFERENCES boxes(id) ON DELETE CASCADE,
    type TEXT NOT NULL,         -- agent or shell
    status TEXT NOT NULL,       -- running, completed, failed, cancelled
    prompt TEXT, model TEXT, output TEXT, error_message TEXT, session_id TEXT,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    cached_input_tokens INTEGER,
    cost_usd REAL NOT NULL DEFAULT 0,
    duration_ms INTEGER NOT NULL DEFAULT 0,
    cpu_ns INTEGER, memory_peak_bytes INTEGER,
    created_at INTEGER NOT NULL, completed_at INTEGER
  );
  CREATE INDEX runs_of_box ON runs(box_id, number);
]], [[
  CREATE TABLE previews (       -- public URLs
    box_id TEXT NOT NULL REFERENCES boxes(id) ON DELETE CASCADE,
    port INTEGER NOT NULL,      -- of the box
    host_port INTEGER NOT NULL, -- of this machine
    token TEXT, password TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (box_id, port)
  );
]], [[
  ALTER TABLE runs ADD COLUMN schedule_id TEXT;
  CREATE TABLE schedules (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    box_id TEXT NOT NULL REFERENCES boxes(id) ON DELETE CASCADE,
    settings TEXT NOT NULL,     -- what it was given, as JSON
    status TEXT NOT NULL,       -- active, paused
    next_at INTEGER,            -- when it is due; NULL while it is paused
    last_run_at INTEGER, last_run_id TEXT,
    last_run_status TEXT,       -- completed, failed, skipped; NULL before the first run and during one
    total_runs INTEGER NOT NULL DEFAULT 0, total_failures INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
  );
  CREATE INDEX schedules_of_box ON schedules(box_id);
]], [[
  CREATE TABLE snapshots (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    box_id TEXT NOT NULL,       -- which may be gone
    name TEXT NOT NULL,
    status TEXT NOT NULL,       -- creating, ready, error
    size_bytes INTEGER NOT NULL DEFAULT 0,
    uid INTEGER,                -- of its files
    config TEXT NOT NULL,       -- what a box made of it begins with, as JSON
    created_at INTEGER NOT NULL
  );
  CREATE INDEX snapshots_of_box ON snapshots(box_id);
  CREATE VIEW uids AS SELECT uid FROM boxes UNION ALL SELECT uid FROM snapshots;
  CREATE TABLE variables (      -- of the environment of boxes to come
    name TEXT PRIMARY KEY, value TEXT NOT NULL
  );
  CREATE TABLE credentials (    -- keys of model providers
    provider TEXT PRIMARY KEY,
    api_key TEXT NOT NULL,
    created_at INTEGER NOT NULL
  );
  CREATE TABLE folder_sessions (
    box_id TEXT NOT NULL REFERENCES boxes(id) ON DELETE CASCADE,
    folder TEXT NOT NULL,
    session_id TEXT NOT NULL,
    PRIMARY KEY (box_id, folder)
  );
]], [[
  CREATE TABLE webhooks (       -- that are to be told of a run
    run_id TEXT PRIMARY KEY,
    box_id TEXT NOT NULL,       -- which may be gone
    url TEXT NOT NULL,
    headers TEXT NOT NULL       -- as JSON
  );
]], [[
  ALTER TABLE webhooks ADD COLUMN schedule_id TEXT; -- whose run it is
  ALTER TABLE webhooks ADD COLUMN failure TEXT;     -- why it failed, if its record does not say that
]] }

---@class lbox.server.Store
local Store = {}
Store.__index = Store

--- Changes the database. Raises kind `local` when that fails.
local function write(db, sql, ...)
  local ok, err = pcall(db.run, db, sql, ...)
  if not ok then
    errors.raise("local", "cannot write to the database: " .. err:gsub("^sqlite: ", ""),
      { errno = err:find("disk is full", 1, true) and "ENOSPC" or nil })
  end
end

--- Opens the database of a data directory. Runs that were going when the server ended are failed, and
--- boxes paused: nothing of theirs is running now.
function M.open(path)
  local db = sqlite.open(path)
  db:exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON; "
    .. "PRAGMA secure_delete=FAST;") -- else every page of a deleted run is written again
  local version = db:row("PRAGMA user_version").user_version
  if version > #VERSIONS then
    db:close()
    error(("the database %s is of version %d, this lbox reads %d"):format(path, version, #VERSIONS), 0)
  end
  for next_version = version + 1, #VERSIONS do
    db:exec(("BEGIN; %s PRAGMA user_version=%d; COMMIT;"):format(VERSIONS[next_version], next_version))
  end
  db:run("UPDATE runs SET status = 'failed', error_message = 'the server stopped', completed_at = ? "
    .. "WHERE status = 'running'", os.time())
  db:run("UPDATE boxes SET status = 'paused' WHERE status NOT IN ('creating', 'error')")
  return setmetatable({ db = db }, Store)
end

function Store:close()
  self.closed = true
  self.db:close()
end

--- Changes what another module keeps here.
function Store:write(sql, ...)
  write(self.db, sql, ...)
end

--- Runs `fn`, which writes and does not wait: all of it is done, or nothing.
---@param fn fun()
function Store:transaction(fn)
  write(self.db, "BEGIN")
  local ok, err = pcall(function()
    fn()
    write(self.db, "COMMIT")
  end)
  if not ok then
    pcall(self.db.run, self.db, "ROLLBACK")
    error(err, 0)
  end
end

--- Reads it.
function Store:rows(sql, ...)
  return self.db:rows(sql, ...)
end

-- ------------------------------------------------------------------------------------ boxes

local function box_of(row)
  if row then
    row.config = json.decode(row.config)
  end
  return row
end

function Store:add_box(box)
  write(self.db, "INSERT INTO boxes (id, name, status, uid, config, created_at, updated_at) "
    .. "VALUES (?, ?, ?, ?, ?, ?, ?)", box.id, box.name, box.status, box.uid, json.encode(box.config),
    box.created_at, box.updated_at)
end

--- The box with this id or, failing that, this name.
function Store:box(key)
  return box_of(self.db:row("SELECT * FROM boxes WHERE id = ?", key)
    or self.db:row("SELECT * FROM boxes WHERE name = ?", key))
end

function Store:boxes()
  local rows = self.db:rows("SELECT * FROM boxes ORDER BY created_at DESC, rowid DESC")
  for _, row in ipairs(rows) do
    box_of(row)
  end
  return rows
end

function Store:set_box(id, field, value)
  assert(field == "status" or field == "session_id")
  write(self.db, ("UPDATE boxes SET %s = ?, updated_at = ? WHERE id = ?"):format(field), value, os.time(), id)
end

function Store:set_config(id, config)
  write(self.db, "UPDATE boxes SET config = ?, updated_at = ? WHERE id = ?", json.encode(config), os.time(), id)
end

function Store:remove_box(id)
  write(self.db, "DELETE FROM boxes WHERE id = ?", id)
end

--- The lowest uid from `first` on that no box and no snapshot has.
function Store:free_uid(first)
  local row = self.db:row("SELECT max(uid) AS top FROM uids")
  local top = row and row.top
  if not top or top < first then
    return first
  end
  local gap = self.db:row("SELECT min(uid) + 1 AS free FROM uids b WHERE uid >= ? AND NOT EXISTS "
    .. "(SELECT 1 FROM uids c WHERE c.uid = b.uid + 1)", first - 1)
  return gap and gap.free or top + 1
end

-- ------------------------------------------------------------------------------------- runs

function Store:add_run(run)
  write(self.db, "INSERT INTO runs (id, box_id, type, status, prompt, model, schedule_id, created_at) "
    .. "VALUES (?, ?, ?, 'running', ?, ?, ?, ?)", run.id, run.box_id, run.type, run.prompt, run.model,
    run.schedule_id, run.created_at)
end

local END_FIELDS = { "status", "output", "error_message", "session_id", "input_tokens",
  "output_tokens", "cached_input_tokens", "cost_usd", "duration_ms", "cpu_ns", "memory_peak_bytes" }
local NOT_NULL = { input_tokens = 0, output_tokens = 0, cost_usd = 0, duration_ms = 0 }

--- Writes the end of a run.
function Store:end_run(run)
  local sets, values = {}, {}
  for i, field in ipairs(END_FIELDS) do
    sets[i] = field .. " = ?"
    local value = run[field]
    if value == nil then
      value = NOT_NULL[field]
    end
    values[i] = value
  end
  local n = #END_FIELDS
  values[n + 1], values[n + 2] = os.time(), run.id
  write(self.db, "UPDATE runs SET " .. table.concat(sets, ", ") .. ", completed_at = ? WHERE id = ?",
    table.unpack(values, 1, n + 2))
end

--- Runs of a box, newest first: at most `limit`, and no more than have `max_text` bytes of text.
function Store:runs(box_id, limit, max_text)
  return self.db:rows("SELECT * FROM runs WHERE number IN (SELECT number FROM (SELECT number, "
    .. "sum(length(CAST(coalesce(prompt, '') || coalesce(output, '') || coalesce(error_message, '') AS BLOB))) "
    .. "OVER (ORDER BY number DESC) AS text FROM runs WHERE box_id = ? ORDER BY number DESC LIMIT ?) "
    .. "WHERE text <= ?) ORDER BY number DESC", box_id, limit, max_text)
end

--- What the runs of a box used together, and when the last began or ended.
---@param box_id string
---@return table
function Store:totals(box_id)
  return self.db:row("SELECT coalesce(sum(input_tokens), 0) AS total_input_tokens, "
    .. "coalesce(sum(output_tokens), 0) AS total_output_tokens, "
    .. "count(CASE type WHEN 'agent' THEN 1 END) AS total_prompts, "
    .. "coalesce(sum(cpu_ns), 0) AS total_cpu_ns, coalesce(sum(cost_usd), 0.0) AS total_token_cost_usd, "
    .. "max(coalesce(completed_at, created_at)) AS last_activity_at FROM runs WHERE box_id = ?", box_id)
end

function Store:run(box_id, id)
  return self.db:row("SELECT * FROM runs WHERE box_id = ? AND id = ?", box_id, id)
end

return M
