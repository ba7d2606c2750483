--- Methods of a box and of its namespaces. They are written as functions of the box; what is called
--- checks that it was called with a colon and that the box is still open.
local errors = require "lbox.errors"

local M = {}

--- Wraps `methods` (name → fn(box, …)) for objects that `box_of` maps to their box (nil: not one).
---@param shown string  how a call is written: "box.agent"
---@param even_closed table<string, boolean>|nil  methods a closed box still has
function M.methods(shown, methods, box_of, even_closed)
  local wrapped = {}
  for name, fn in pairs(methods) do
    wrapped[name] = function(self, ...)
      local box = box_of(self)
      if not box then
        errors.raise("usage", ("call it as %s:%s(…), with a colon"):format(shown, name))
      elseif box.closed and not (even_closed and even_closed[name]) then
        errors.raise("usage", ("box %s is closed"):format(box.id))
      end
      return fn(box, ...)
    end
  end
  return wrapped
end

--- A constructor of namespace objects: `local agent = define("agent", methods)`, `agent(box)`.
function M.define(name, methods)
  local mt = { __name = "lbox." .. name }
  mt.__index = M.methods("box." .. name, methods, function(self)
    return getmetatable(self) == mt and rawget(self, "box") or nil
  end)
  return function(box)
    return setmetatable({ box = box }, mt)
  end
end

return M
