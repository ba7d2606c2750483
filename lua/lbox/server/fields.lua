--- Checks of what clients send. What is wrong is answered with 400 and a sentence that names it.
local errors = require "lbox.errors"
local json = require "lbox.json"

local M = {}

-- What may stand in URLs where a box's id or name does, and is none.
M.RESERVED = { ["agent-credentials"] = true, apikey = true, apikeys = true, ["from-snapshot"] = true, github = true,
  logs = true, settings = true, snapshots = true }

local function refuse(message)
  errors.raise("api", message, { status_code = 400 })
end

local CHECKS = {
  string = function(v) return type(v) == "string" end,
  text = function(v) return type(v) == "string" end, -- NULs and all
  boolean = function(v) return type(v) == "boolean" end,
  number = function(v) return type(v) == "number" end,
  object = function(v) return type(v) == "table" and #v == 0 and not json.is_array(v) end,
  list = function(v) return type(v) == "table" and (next(v) == nil or #v > 0) end,
  strings = function(v)
    if type(v) ~= "table" or (next(v) ~= nil and #v == 0) then
      return false
    end
    for _, item in ipairs(v) do
      if type(item) ~= "string" then
        return false
      end
    end
    return true
  end,
}
local SHOWN = { text = "a string", list = "a list", strings = "a list of strings", object = "an object" }

--- Checks a body against `{ name = "string"… }`; a `!` at the end of a type makes the field required.
--- Fields not named there are ignored: clients are newer or older than this server.
function M.check(body, spec)
  for name, want in pairs(spec) do
    local kind, required = want:match("^(%a+)(!?)$")
    local value = body[name]
    if value == nil then
      if required == "!" then
        refuse(("the field %q is required"):format(name))
      end
    elseif not CHECKS[kind](value) then
      refuse(("the field %q must be %s"):format(name, SHOWN[kind] or "a " .. kind))
    elseif kind == "string" or kind == "strings" then
      for _, text in ipairs(kind == "string" and { value } or value) do
        if text:find("\0", 1, true) then
          refuse(("the field %q must not contain a NUL"):format(name))
        end
      end
    end
  end
  return body
end

--- An absolute path inside a box.
function M.path(value, name)
  if type(value) ~= "string" or value == "" then
    refuse(("%q is required"):format(name))
  elseif value:find("\0", 1, true) then
    refuse(("%q must not contain a NUL"):format(name))
  elseif #value > 3500 then
    refuse(("%q is too long"):format(name))
  end
  return value:sub(1, 1) == "/" and value or "/workspace/home/" .. value
end

return M
