--- What no message may show of a request, found in it by the names of its fields: servers repeat what they refuse.
local M = {}

-- Fields of which every text, however deep, may be a secret.
local PRIVATE = { args = true, attach_headers = true, env = true, env_vars = true, headers = true }
-- Parts of the names of fields that say as much.
local TELLING = { "api_?key", "authorization", "credential", "passw", "secret", "token" }
-- Longer texts are contents, and no addresses.
local MAX_URL = 4096

local function is_private(name)
  if type(name) ~= "string" then
    return false
  elseif PRIVATE[name] then
    return true
  end
  for _, part in ipairs(TELLING) do
    if name:lower():find(part) then
      return true
    end
  end
  return false
end

--- Of addresses the user and the password; of one that is called by others (a webhook, an MCP server) also what
--- comes after the host, where such have their keys.
local function add_url(list, text, is_called)
  for user in text:gmatch("://([^/?#%s@]+)@") do
    list[#list + 1] = user
    list[#list + 1] = user:match(":(.+)$")
  end
  list[#list + 1] = is_called and text:match("^%a[%w+.-]*://[^/?#]*(.+)$") or nil
end

local function add(list, value, private, is_called)
  if type(value) == "table" then
    for name, item in pairs(value) do
      add(list, item, private or is_private(name), name == "url" or name == "webhook_url")
    end
  elseif type(value) == "string" and private then
    list[#list + 1] = value
  elseif type(value) == "string" and #value <= MAX_URL then
    add_url(list, value, is_called)
  end
end

--- Adds to `list` what may be secret in the body of a request or in what goes into it.
---@param list string[]
---@param body table|nil
function M.add(list, body)
  add(list, body, false, false)
end

--- Adds every text of a table.
---@param list string[]
---@param values table|nil
function M.add_all(list, values)
  add(list, values, true, false)
end

return M
