--- Anonymous headers that say which SDK, which Lua and which kind of place a request comes from.
local core = require "lbox.core"

local M = {}

-- First match decides; the second name is an environment variable that such a place sets.
local PLATFORMS = {
  { "console", "UPSTASH_CONSOLE" },
  { "vercel", "VERCEL" },
  { "cloudflare", "CF_PAGES" },
  { "aws", "AWS_LAMBDA_FUNCTION_NAME" },
  { "aws", "AWS_REGION" },
  { "ci", "CI" },
}

local function runtime()
  local jit = rawget(_G, "jit")
  if jit then
    return (jit.version:gsub("^LuaJIT ", "luajit@"):gsub("%s.*", ""))
  end
  return (_VERSION:gsub("^Lua ", "lua@"))
end

local function platform()
  for _, each in ipairs(PLATFORMS) do
    if (os.getenv(each[2]) or "") ~= "" then
      return each[1]
    end
  end
  return "unknown"
end

--- Appends the headers to `list`, unless the user does not want them: the environment variable
--- counts with any value, even an empty one.
---@param list string[]
---@param wanted boolean
function M.add(list, wanted)
  if not wanted or os.getenv("UPSTASH_DISABLE_TELEMETRY") then
    return
  end
  list[#list + 1] = "Upstash-Telemetry-Sdk: lbox@" .. core.version
  list[#list + 1] = "Upstash-Telemetry-Runtime: " .. runtime()
  list[#list + 1] = "Upstash-Telemetry-Platform: " .. platform()
end

return M
