--- `lbox gc`: finds boxes that programs owned (`lbox.with_box`) and left behind when they were killed.
--- Lists them; deletes them with --yes. It looks at what the journal has and at nothing else.
local argparse = require "argparse"
local config = require "lbox.config"
local journal = require "lbox.journal"
local paths = require "lbox.paths"
local posix = require "lbox.server.posix"

local M = {}

local FAILED = 125

local function parser()
  local p = argparse("lbox gc", "List boxes that were to end with a program which was killed.")
  p:flag("--yes", "delete them")
  return p
end

-- How long a box may take to be created.
local MAY_COME_S = 300

local function row(...)
  print(("%-24s %-28s %-17s %s"):format(...))
end

--- The ids of an entry's boxes, as the server has them.
local function find(entry)
  local boxes = require("lbox.box").list { base_url = entry.base_url, label = entry.label }
  return journal.ids_labelled(boxes, entry.label)
end

local function is_elsewhere(entry)
  return entry.base_url == "local" and entry.data ~= paths.data_dir()
end

local function sweep(path, entry, delete)
  local created = os.date("%Y-%m-%d %H:%M", entry.created_at)
  if is_elsewhere(entry) then
    row("?", "local", created, "ask with LBOX_DATA=" .. tostring(entry.data))
    return true
  end
  local ok, ids = pcall(find, entry)
  if not ok then
    row("?", entry.base_url, created, tostring(ids))
    return false
  end
  for _, id in ipairs(ids) do
    local said = "left by process " .. entry.pid
    if delete then
      ok, said = pcall(require("lbox.box").delete_boxes, { base_url = entry.base_url, box_ids = { id } })
      said = ok and "deleted" or tostring(said)
    end
    row(id, entry.base_url, created, said)
    if not ok then
      return false
    end
  end
  -- What was asked for just before the end may still come up.
  if (delete and #ids > 0) or (#ids == 0 and os.time() - entry.created_at > MAY_COME_S) then
    journal.remove(path)
  end
  return true
end

---@param argv string[]
---@param opts { client: table }  of the program
---@return integer status
function M.main(argv, opts)
  local args = parser():parse(argv)
  config.program(opts.client)
  local dir = journal.dir()
  local names = dir and posix.listdir(dir) or {}
  table.sort(names)
  local all_well = true
  for _, name in ipairs(names) do
    local path = dir .. "/" .. name
    local entry = not name:find("%.new$") and journal.read(path)
    if entry and not journal.is_alive(entry) then
      all_well = sweep(path, entry, args.yes) and all_well
    end
  end
  return all_well and 0 or FAILED
end

return M
