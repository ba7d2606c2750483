--- Objects whose methods take a colon. A call with a dot where a colon belongs, or the other way
--- round, is an error that says how to write it.
local errors = require "lbox.errors"

local M = {}

--- How the call the user meant is written.
local function written(label, separator, name, first)
  local arguments = type(first) == "table" and "{…}" or "(…)"
  return "call it as " .. label .. separator .. name .. arguments
end

--- The metatable of objects that the user knows as `label`, with these methods.
---@param label string  "box.agent"
---@param methods table<string, function>
---@param fields (fun(self: table, key: any): any)|nil  computes what is neither field nor method
---@return table
function M.metatable(label, methods, fields)
  local mt = { __name = "lbox." .. label }
  local checked = {}
  for name, method in pairs(methods) do
    checked[name] = function(self, ...)
      if getmetatable(self) ~= mt then
        errors.raise("usage", written(label, ":", name, self))
      end
      return method(self, ...)
    end
  end
  mt.__index = checked
  if fields then
    function mt.__index(self, key)
      local method = checked[key]
      if method ~= nil then
        return method
      end
      return fields(self, key)
    end
  end
  return mt
end

--- What makes the namespace `label` of a box: an object with these methods, which find the box in
--- `self._link`.
---@param label string  "box.git"
---@param methods table<string, function>
---@return fun(link: lbox.Link): table
function M.of_box(label, methods)
  local mt = M.metatable(label, methods)
  return function(link)
    return setmetatable({ _link = link }, mt)
  end
end

--- A table of functions that are called with a dot.
---@param label string  "Box"
---@param functions table<string, function>
---@return table
function M.statics(label, functions)
  local class = {}
  for name, fn in pairs(functions) do
    class[name] = function(first, ...)
      if first == class then
        errors.raise("usage", written(label, ".", name, (...)))
      end
      return fn(first, ...)
    end
  end
  return class
end

return M
