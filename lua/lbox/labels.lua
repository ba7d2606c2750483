--- `box.labels`: the labels of a box. What `lbox.with_box` marks its own with is left out.
local client = require "lbox.client"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local url = require "lbox.url"

local READ_OPTIONS = client.read_options {}
local CALL_OPTIONS = client.call_options {}

local OURS = "^lbox:"

--- The labels of the user.
local function own(labels)
  local list = {}
  for _, label in ipairs(labels) do
    if not label:find(OURS) then
      list[#list + 1] = label
    end
  end
  return list
end

--- Asks for a change, which is answered with the labels after it.
local function change(self, spec)
  local answer = self._link:ask(spec)
  return own(self._link.client:list_of(spec, answer.labels, "string"))
end

---@class lbox.BoxLabels
local methods = {}

--- Adds a label. Raises `api` 409 when the box has it.
---@param label string
---@param opts lbox.CallOptions|nil
---@return string[]  the labels after that
function methods:add(label, opts)
  opts = options.call(opts, CALL_OPTIONS, "box.labels:add")
  options.nonblank(label, "label")
  return change(self, { method = "POST", path = "/config/labels", json = { label = label }, opts = opts })
end

--- Removes a label.
---@param label string
---@param opts lbox.ReadOptions|nil
---@return string[]  the labels after that
function methods:remove(label, opts)
  opts = options.call(opts, READ_OPTIONS, "box.labels:remove")
  return change(self, { method = "DELETE", path = "/config/labels/" .. url.segment(label, "label"), opts = opts })
end

--- The labels of the box.
---@param opts lbox.ReadOptions|nil
---@return string[]
function methods:list(opts)
  opts = options.call(opts, READ_OPTIONS, "box.labels:list")
  return own(self._link:list("labels", { path = "", opts = opts }, "string"))
end

return { new = namespace.of_box("box.labels", methods) }
