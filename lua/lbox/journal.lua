--- What boxes this process owns, in files that outlive it, so that `lbox gc` finds what a killed process
--- left. One file for each box, written before its create is sent and removed when it is deleted. Pure
--- Lua on what Linux tells; where there is no home directory nothing is written.
local json = require "lbox.json"

local M = {}

local function read(path)
  local file = io.open(path, "rb")
  local text = file and file:read("*a")
  if file then
    file:close()
  end
  return text
end

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- The directory of the journal; nil without a home.
---@return string|nil
function M.dir()
  local state = os.getenv("XDG_STATE_HOME")
  local home = os.getenv("HOME")
  if state and state:sub(1, 1) == "/" then
    return state .. "/lbox/boxes"
  end
  return home and home:sub(1, 1) == "/" and home .. "/.local/state/lbox/boxes" or nil
end

--- When a process began, in ticks since the machine did; nil when there is none of that id.
local function started(pid)
  local stat = read(("/proc/%s/stat"):format(pid))
  if not stat then
    return nil
  end
  -- The name, in parentheses, may hold anything.
  local fields, n = stat:match("^.*%) (.*)$"), 0
  for field in fields:gmatch("%S+") do
    n = n + 1
    if n == 1 and field:find("[ZX]") then
      return nil
    elseif n == 20 then
      return field
    end
  end
end

local function boot()
  return (read("/proc/sys/kernel/random/boot_id") or ""):match("%S+")
end

---@class lbox.journal.Entry
---@field label string     of the box
---@field base_url string  where it was created; "local" for a local server
---@field data string|nil  the data directory of that one
---@field pid string
---@field started string
---@field boot string
---@field created_at integer

--- Notes a box that is to be created. Returns its file, or nil: nothing is noted, with why if it should be.
---@param label string
---@param base_url string
---@param data string|nil
---@return string|nil path, string|nil why
function M.add(label, base_url, data)
  local dir = M.dir()
  local pid = (read("/proc/self/stat") or ""):match("^%d+")
  if not dir or not pid then
    return nil
  end
  local path = dir .. "/" .. label:match("[^:]+$")
  local new = path .. ".new"
  local file, why = io.open(new, "wb")
  if not file then
    os.execute("umask 077; mkdir -p " .. quote(dir) .. " 2>/dev/null")
    file, why = io.open(new, "wb")
  end
  if not file then
    return nil, why
  end
  local written = file:write(json.encode { label = label, base_url = base_url, data = data, pid = pid,
    started = started(pid), boot = boot(), created_at = os.time() }, "\n")
  if not (file:close() and written and os.rename(new, path)) then
    os.remove(new)
    return nil, path .. " cannot be written"
  end
  return path
end

--- The box is gone.
function M.remove(path)
  os.remove(path)
end

--- What a file says; nil when it is none of ours.
---@return lbox.journal.Entry|nil
function M.read(path)
  local entry = json.decode(read(path) or "")
  local whole = type(entry) == "table" and type(entry.label) == "string" and entry.label:match("^lbox:%w+$")
    and type(entry.base_url) == "string" and type(entry.pid) == "string" and entry.pid:match("^%d+$")
  return whole and entry or nil
end

--- Whether the process that owns the box still runs.
---@param entry lbox.journal.Entry
---@return boolean
function M.is_alive(entry)
  return entry.boot == boot() and entry.started ~= nil and started(entry.pid) == entry.started
end

--- Ids of those boxes of a list that have the label: a server that does not know the filter answers with
--- all, and these are deleted.
---@param boxes table[]  as Box.list gives them
---@param label string
---@return string[]
function M.ids_labelled(boxes, label)
  local ids = {}
  for _, data in ipairs(boxes) do
    local labels = type(data) == "table" and type(data.labels) == "table" and data.labels or {}
    for _, name in ipairs(labels) do
      if name == label and type(data.id) == "string" then
        ids[#ids + 1] = data.id
        break
      end
    end
  end
  return ids
end

return M
