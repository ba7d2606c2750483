--- Boxes that end with the code that uses them.
local Box = require "lbox.box"
local async = require "lbox.async"
local config = require "lbox.config"
local core = require "lbox.core"
local errors = require "lbox.errors"
local journal = require "lbox.journal"
local making = require "lbox.create"
local options = require "lbox.options"
local paths = require "lbox.paths"

local M = {}

-- A box whose create was not answered may come up later than we ask for it.
local LOOK_AGAIN_MS = 250
local LABEL, LABEL_CHARACTERS = "lbox:", 12
-- As many as a box may have.
local MAX_LABELS = 5
local ALPHABET = "0123456789abcdefghijklmnopqrstuv"

-- After these nobody knows whether the server went on creating.
local UNANSWERED = { cancelled = true, network = true, timeout = true }

local function new_label()
  return LABEL .. core.random(LABEL_CHARACTERS):gsub(".", function(byte)
    local i = byte:byte() % #ALPHABET + 1
    return ALPHABET:sub(i, i)
  end)
end

--- The options for making the box, without those that say which kind it is.
local function making_options(opts)
  local out = {}
  for key, value in pairs(opts) do
    out[key] = value
  end
  out.ephemeral, out.snapshot = nil, nil
  return out
end

--- The same with our label among theirs.
local function labelled(opts, label)
  local out = making_options(opts)
  local labels = {}
  for i, value in ipairs(type(opts.labels) == "table" and opts.labels or {}) do
    labels[i] = value
  end
  labels[#labels + 1] = label
  if opts.labels == nil or type(opts.labels) == "table" then
    out.labels = labels
  end
  return out
end

--- The options that lead to where the box was created, and another one.
local function there(opts, key, value)
  local out = { headers = opts.headers, [key] = value }
  for name in pairs(config.OPTIONS) do
    out[name] = opts[name]
  end
  return out
end

--- Deletes the box of a create that failed, if there is one. `unanswered`: it may come up yet. Returns
--- whether none is left for certain.
local function delete_labelled(opts, label, unanswered)
  local give_up_at = async.now() + async.CLEAN_UP_MS - 2 * LOOK_AGAIN_MS
  repeat
    local ids = journal.ids_labelled(Box.list(there(opts, "label", label)), label)
    if #ids > 0 then
      Box.delete_boxes(there(opts, "box_ids", ids))
      return true
    elseif unanswered then
      async.sleep(LOOK_AGAIN_MS)
    end
  until not unanswered or async.now() > give_up_at
  return not unanswered
end

--- Notes the box in the journal, from which `lbox gc` knows it when this process is killed.
local function note(opts, label)
  local settings = config.resolve(opts)
  local noted, why
  if settings.is_local then
    noted, why = journal.add(label, "local", paths.data_dir())
  else
    noted, why = journal.add(label, settings.base_url)
  end
  if why then
    async.warn("lbox gc will not know of the box: " .. why)
  end
  return noted
end

--- The box is gone for certain.
local function forget(noted)
  if noted then
    journal.remove(noted)
  end
end

local function create(opts)
  if type(opts.labels) == "table" and #opts.labels >= MAX_LABELS then
    -- No room for ours: what its id does not tell cannot be cleaned up, and the error says so.
    return making.any(making_options(opts), opts, true), nil
  end
  local label = new_label()
  local noted = note(opts, label)
  local ok, box = pcall(making.any, labelled(opts, label), opts, false)
  if ok then
    return box, noted
  end
  local err, asked, gone = box, true, true
  if not errors.is(err, "usage") then
    asked, gone = pcall(async.shield, function()
      return delete_labelled(opts, label, errors.is(err) and UNANSWERED[err.kind] and not err.not_sent)
    end)
  end
  if asked and gone then
    forget(noted)
  else
    async.warn(("a box with the label %s may be left%s; lbox gc looks for it"):format(label,
      asked and "" or ", it could not be looked for: " .. tostring(gone)))
  end
  error(err, 0)
end

local function is_gone(err)
  return errors.is(err, "api") and err.status_code == 404
end

local function finish(box, noted, ok, ...)
  -- Also a box that was closed.
  local link = box._link
  local deleted, why = pcall(async.shield, function()
    link.client:send { method = "DELETE", path = link.path, box_id = box.id }
  end)
  box:close()
  if deleted or is_gone(why) then
    forget(noted)
    if not ok then
      error((...), 0)
    end
    return ...
  elseif ok then
    error(why, 0)
  end
  async.warn(("the box %s is left, it could not be deleted: %s"):format(box.id, tostring(why)))
  error((...), 0)
end

---@class lbox.WithBoxOptions: lbox.CreateOptions
---@field ephemeral boolean|nil  an EphemeralBox instead, with its options
---@field snapshot string|nil    the id of a snapshot to make it of

--- Creates a box, calls `fn(box)`, and deletes the box on every way out: return, error, cancel. If the
--- answer to the create is lost, the box is found by its label and deleted. What `fn` started ends before.
---@param opts lbox.WithBoxOptions|nil
---@param fn fun(box: lbox.Box): ...
---@return any ...  what `fn` returned
function M.with_box(opts, fn)
  options.callable(fn, "what to call with the box")
  if opts ~= nil and type(opts) ~= "table" then
    errors.raise("usage", "with_box takes a table of options and a function, got " .. type(opts))
  end
  opts = opts or {}
  options.check({ ephemeral = opts.ephemeral, snapshot = opts.snapshot },
    { ephemeral = "boolean", snapshot = "text" }, "with_box")
  local box, noted = create(opts)
  return finish(box, noted, pcall(async.scope, function()
    return fn(box)
  end))
end

return M
