--- MCP servers of a box's agent (box-api.md §1.2): checked, and what CLIs that start or reach them have in common.
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local json = require "lbox.json"
local runtimes = require "lbox.server.runtimes"

local M = {}

local MAX_SERVERS, MAX_NAME, MAX_WORD = 20, 64, 2048
-- It becomes one variable or one word of a command, in which Linux takes no more than 128 KiB.
local MAX_ALL = 64 * 1024

-- How long a CLI waits for one to be there: npx may have to fetch it first. Their own limits are 5 to 30 s, after which
-- the agent goes on without it.
M.STARTUP_S = 60

---@class lbox.server.McpServer
---@field name string
---@field source "npm"|"url"
---@field package_or_url string
---@field args string[]|nil                  npm: of the package's program
---@field headers table<string, string>|nil  url

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

local function check_npm(server, where)
  local package = server.package_or_url
  if package == "" or package:sub(1, 1) == "-" or package:find("[%s%c]") or #package > MAX_WORD then
    refuse(400, ("%s: package %q is none of npm's"):format(where, package:sub(1, 100)))
  end
  if next(server.headers or {}) then
    refuse(400, where .. ": headers go with the source url")
  end
  runtimes.need("npx", "npm")
end

local function check_url(server, where)
  local url = server.package_or_url
  if #url > MAX_WORD or not url:match("^[Hh][Tt][Tt][Pp][Ss]?://[^%s%c/?#]+[^%s%c]*$") then
    refuse(400, ("%s: url %q: an http or https URL of at most %d characters"):format(where, url:sub(1, 100), MAX_WORD))
  end
  if next(server.args or {}) then
    refuse(400, where .. ": args go with the source npm")
  end
  for name, value in pairs(server.headers or {}) do
    if type(name) ~= "string" or not name:match("^[%w!#$%%&'*+.^_`|~-]+$") then
      refuse(400, ("%s: %q is no name of a header"):format(where, tostring(name)))
    elseif type(value) ~= "string" or value:find("%c") then
      refuse(400, ("%s: the header %s must be a string without control characters"):format(where, name))
    end
  end
end

local SOURCES = { npm = check_npm, url = check_url }

--- Raises 400 unless each of a list is an MCP server, 422 when this machine lacks what starts them.
---@param servers lbox.server.McpServer[]
function M.check(servers)
  if #servers > MAX_SERVERS then
    refuse(400, ("at most %d MCP servers, got %d"):format(MAX_SERVERS, #servers))
  elseif #json.encode(servers) > MAX_ALL then
    refuse(400, ("mcp_servers: at most %d bytes of them"):format(MAX_ALL))
  end
  local taken = {}
  for i, server in ipairs(servers) do
    local where = ("mcp_servers[%d]"):format(i - 1)
    if type(server) ~= "table" then
      refuse(400, where .. " must be an object")
    end
    fields.check(server, { name = "string!", source = "string!", package_or_url = "string!", args = "strings",
      headers = "object" })
    if #server.name > MAX_NAME or not server.name:match("^[%w_-]+$") then
      refuse(400, ("%s: name %q: 1 to %d of A-Z a-z 0-9 _ -"):format(where, server.name:sub(1, 100), MAX_NAME))
    elseif taken[server.name] then
      refuse(400, ("mcp_servers: there are two of the name %q"):format(server.name))
    elseif not SOURCES[server.source] then
      refuse(400, ("%s: source %q: npm or url"):format(where, server.source))
    end
    SOURCES[server.source](server, where)
    taken[server.name] = true
  end
end

--- Raises 501 unless the harness can be told of them.
---@param harness lbox.server.Harness|nil
---@param servers lbox.server.McpServer[]
function M.check_harness(harness, servers)
  if harness and harness.mcp_file and servers[1] then
    refuse(501, ("mcp_servers are not available for %s on local boxes: write them to %s in the box"):format(
      harness.name, harness.mcp_file))
  end
end

-- What npx is told: nobody is asked, and where the registry is out of reach this is known in a second instead of a
-- minute, for which the agent would wait.
local NPX = { "npx", "--yes", "--fetch-retries=1", "--fetch-retry-mintimeout=1000" }

--- The command that starts one of npm: the package of the box's folder, else the registry's.
---@param server lbox.server.McpServer
---@return string[]
function M.command(server)
  local command = table.move(NPX, 1, #NPX, 1, {})
  command[#command + 1] = server.package_or_url
  return table.move(server.args or {}, 1, #(server.args or {}), #command + 1, command)
end

--- A place for secrets that CLIs can be told to look in: `keep(text)` puts one into a variable of `env` and returns
--- that one's name.
---@param env table<string, string>
---@return fun(text: string): string
function M.variables(env)
  local count = 0
  return function(text)
    count = count + 1
    local name = "LBOX_MCP_" .. count
    env[name] = text
    return name
  end
end

--- What may be secret of a URL: its user and its query, each as a whole and what is of value in it.
local function add_secrets_of(url, secrets)
  local user = url:match("^%a+://([^/?#]*)@")
  local query = url:match("%?([^#]*)")
  secrets[#secrets + 1] = user
  secrets[#secrets + 1] = user and user:match(":(.*)")
  secrets[#secrets + 1] = query
  for value in (query or ""):gmatch("=([^&]+)") do
    secrets[#secrets + 1] = value
  end
end

--- What must not be told of them.
---@param servers lbox.server.McpServer[]
---@return string[]
function M.secrets(servers)
  local secrets = {}
  for _, server in ipairs(servers) do
    if server.source == "url" then
      add_secrets_of(server.package_or_url, secrets)
    end
    for _, value in pairs(server.headers or {}) do
      secrets[#secrets + 1] = value
      secrets[#secrets + 1] = value:match("^%a+%s+(.+)$")
    end
  end
  return secrets
end

return M
