--- Where requests go and with what key: from the call's own options, `lbox.configure`, the flags of
--- the lbox program, the environment, in this order.
local errors = require "lbox.errors"
local options = require "lbox.options"

local M = {}

local DEFAULT_BASE_URL = "https://us-east-1.box.upstash.com"
local DEFAULT_TIMEOUT_MS = 600000

local NO_KEY = "api_key is required: pass api_key, set UPSTASH_BOX_API_KEY, "
  .. "or use local boxes (lbox --local)"

--- The connection options that every entry point takes.
---@class lbox.ConnectionOptions
---@field api_key string|nil
---@field base_url string|nil
---@field timeout number|nil  ms for a call that is answered once, 0: none
---@field debug boolean|nil   log every request on stderr
---@field telemetry boolean|nil
---@field proxy string|nil
---@field no_proxy string|nil
---@field ca_file string|nil

M.OPTIONS = {
  api_key = "string",
  base_url = "string",
  timeout = "ms",
  debug = "boolean",
  telemetry = "boolean",
  proxy = "string",
  no_proxy = "string",
  ca_file = "string",
}

---@class lbox.Settings
---@field api_key string|nil      nil for local boxes, which need none
---@field base_url string         without trailing slash
---@field is_local boolean|nil
---@field unix_socket string|nil  the local server's
---@field timeout number          ms, 0: none
---@field debug boolean
---@field telemetry boolean
---@field proxy string|nil
---@field no_proxy string|nil
---@field ca_file string|nil

local configured, flags = {}, {}

local function check(opts, what)
  options.check(opts, M.OPTIONS, what)
end

local function take(into, opts)
  for key, value in pairs(opts or {}) do
    into[key] = value
  end
end

--- Sets defaults for every later call of this process. Raises `usage` for an option that does not exist
--- or is of the wrong type.
---@param opts lbox.ConnectionOptions
function M.configure(opts)
  if type(opts) ~= "table" then
    errors.raise("usage", "lbox.configure takes a table of options, got " .. type(opts))
  end
  check(opts, "lbox.configure")
  if opts.base_url and opts.base_url ~= "" and opts.base_url ~= "local" then
    M.check_base_url(opts.base_url)
  end
  take(configured, opts)
end

--- Takes the flags of the lbox program, which rank below `configure`.
function M.program(opts)
  check(opts, "lbox")
  take(flags, opts)
end

--- An empty string counts as not given.
local function given(value)
  if value ~= "" then
    return value
  end
end

local function pick(opts, key, variable)
  for _, source in ipairs { opts or {}, configured, flags } do
    local value = given(source[key])
    if value ~= nil then
      return value
    end
  end
  return variable and given(os.getenv(variable))
end

--- A setting that libcurl takes, which knows no more of it than its first line.
local function pick_line(opts, key)
  local value = pick(opts, key)
  if value and value:find("[%c]") then
    errors.raise("usage", key .. " must not contain line breaks or other control characters")
  end
  return value
end

--- Requires a URL that paths can be put behind; returns it without slashes at its end.
function M.check_base_url(url)
  if not url:find("^[Hh][Tt][Tt][Pp][Ss]?://[^/?#]") then
    local shown = url:gsub("//.*@", "//")
    errors.raise("usage", ('base_url must be "local" or start with http:// or https://, got %q')
      :format(shown))
  elseif url:find("[%c%s]") then
    errors.raise("usage", "base_url must not contain white space")
  elseif url:find("[?#]") then
    errors.raise("usage", "base_url must not have a query or a fragment")
  end
  return (url:gsub("/+$", ""))
end

--- Finds this user's local server, which is started when it does not run.
---@param settings lbox.Settings
---@param again boolean|nil  it did not answer where it was
function M.locate(settings, again)
  local local_server = require "lbox.local_server"
  if again then
    local_server.forget()
  end
  local found = local_server.connect()
  settings.is_local = true
  settings.base_url, settings.unix_socket = found.base_url, found.socket
  return settings
end

--- The settings for one entry point. Starts the local server when it is asked for and does not run.
---@param opts table|nil  what the caller gave; only connection options are looked at
---@return lbox.Settings
function M.resolve(opts)
  local settings = {
    timeout = pick(opts, "timeout") or DEFAULT_TIMEOUT_MS,
    debug = pick(opts, "debug") or false,
    telemetry = pick(opts, "telemetry") ~= false,
    proxy = pick_line(opts, "proxy"),
    no_proxy = pick_line(opts, "no_proxy"),
    ca_file = pick_line(opts, "ca_file"),
  }
  local base_url = pick(opts, "base_url", "UPSTASH_BOX_BASE_URL") or DEFAULT_BASE_URL
  if base_url == "local" then
    return M.locate(settings)
  end
  settings.base_url = M.check_base_url(base_url)
  local key = pick(opts, "api_key", "UPSTASH_BOX_API_KEY")
  if not key then
    errors.raise("usage", NO_KEY)
  elseif key:find("[%c%s]") then
    errors.raise("usage", "api_key must not contain white space or line breaks")
  end
  settings.api_key = key
  return settings
end

return M
