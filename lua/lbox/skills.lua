--- `box.skills`: what the box's agent has learned, by ids `owner/repo/skill`.
local client = require "lbox.client"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local url = require "lbox.url"

local READ_OPTIONS = client.read_options {}
local CALL_OPTIONS = client.call_options {}

---@class lbox.BoxSkills
local methods = {}

--- Adds a skill.
---@param id string  "owner/repo/skill"
---@param opts lbox.CallOptions|nil
function methods:add(id, opts)
  opts = options.call(opts, CALL_OPTIONS, "box.skills:add")
  options.nonblank(id, "the id of a skill")
  self._link:perform { method = "POST", path = "/config/skills", json = { skill_id = id }, opts = opts }
end

--- Removes a skill.
---@param id string
---@param opts lbox.ReadOptions|nil
function methods:remove(id, opts)
  opts = options.call(opts, READ_OPTIONS, "box.skills:remove")
  local path = { "/config/skills" }
  for part in (options.nonblank(id, "the id of a skill") .. "/"):gmatch("(.-)/") do
    path[#path + 1] = url.segment(part, "a part of the id of a skill")
  end
  self._link:perform { method = "DELETE", path = table.concat(path, "/"), opts = opts }
end

--- The ids of the skills the box has.
---@param opts lbox.ReadOptions|nil
---@return string[]
function methods:list(opts)
  opts = options.call(opts, READ_OPTIONS, "box.skills:list")
  return self._link:list("enabled_skills", { path = "", opts = opts }, "string")
end

return { new = namespace.of_box("box.skills", methods) }
