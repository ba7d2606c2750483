--- Where a client's settings come from: argument, lbox.configure, flag of the program, environment,
--- default; the first that is given wins. An empty string counts as not given.
local errors = require "lbox.errors"
local options = require "lbox.options"

local M = {}

local DEFAULT_URL = "https://us-east-1.box.upstash.com"
local DEFAULT_TIMEOUT_MS = 600000

--- Options every entry point takes.
M.OPTIONS = {
  api_key = "string", base_url = "string", timeout = "number", debug = "boolean",
  telemetry = "boolean", proxy = "string", no_proxy = "string", ca_file = "string",
  extra = "table", headers = "table",
}

local ENVIRONMENT = { api_key = "UPSTASH_BOX_API_KEY", base_url = "UPSTASH_BOX_BASE_URL" }

local configured, flags = {}, {}

--- Sets defaults for every client made from now on.
---@param opts table  the client options of doc/manual.md, Connecting
function M.configure(opts)
  options.check(opts, M.OPTIONS, "lbox.configure")
  for key, value in pairs(opts or {}) do
    configured[key] = value
  end
end

--- What the program's flags say.
function M.program(opts)
  flags = opts
end

--- A copy of `spec` that knows the client's options too.
function M.with_client_options(spec)
  local all = {}
  for key, value in pairs(M.OPTIONS) do
    all[key] = value
  end
  for key, value in pairs(spec) do
    all[key] = value
  end
  return all
end

local function setting(opts, key)
  local variable = ENVIRONMENT[key]
  for _, source in ipairs { opts, configured, flags } do
    local value = source[key]
    if value ~= nil and value ~= "" then
      return value
    end
  end
  local value = variable and os.getenv(variable)
  return value ~= "" and value or nil
end

--- The settings of one client.
---@param opts table|nil  options of the call; unknown keys are the caller's to check
---@return table settings
function M.resolve(opts)
  opts = opts or {}
  local settings = {}
  for key in pairs(M.OPTIONS) do
    settings[key] = setting(opts, key)
  end
  settings.extra, settings.headers = nil, nil
  settings.timeout = options.ms(settings.timeout or DEFAULT_TIMEOUT_MS, "timeout")
  if settings.telemetry == nil then
    settings.telemetry = true
  end
  if os.getenv("UPSTASH_DISABLE_TELEMETRY") then
    settings.telemetry = false
  end
  settings.base_url = (settings.base_url or DEFAULT_URL):gsub("/+$", "")
  if settings.base_url ~= "local" then
    if not settings.base_url:match("^https?://[^/%s]") then
      errors.raise("usage", ("base_url must begin with http:// or https://, or be \"local\", got %q")
        :format(settings.base_url))
    elseif not settings.api_key then
      errors.raise("usage", "api_key is required: pass api_key, set UPSTASH_BOX_API_KEY, "
        .. "or use local boxes (lbox --local)")
    elseif settings.api_key:find("[%c]") then
      errors.raise("usage", "api_key must not contain control characters")
    end
  end
  return settings
end

return M
