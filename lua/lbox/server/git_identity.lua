--- Who commits in a box: set in the box's own git, for all of its repositories.
local errors = require "lbox.errors"

local M = {}

-- When nobody was named.
local NAME, EMAIL = "Upstash Box", "box@upstash.com"
local MAX_OUTPUT = 64 * 1024

local function fail(message)
  errors.raise("api", message, { status_code = 500 })
end

local function configure(server, row, box, key, value)
  local process = box:spawn { argv = { "git", "config", "--global", key, value }, cwd = "/",
    env = server.boxes.environment(row) }
  local outputs = process:collect(MAX_OUTPUT)
  if not outputs then
    process:kill()
    process:close()
    fail("git config wrote more than it should")
  end
  local result = process.result
  if result.stopped then
    fail("the box was stopped while git was configured")
  elseif result.exit_code ~= 0 then
    fail(("git config --global %s: %s"):format(key, result.not_started and process:refusal()
      or outputs.stderr:match("([^\n]+)%s*$") or "exit code " .. result.exit_code))
  end
end

--- Sets it, starting the box, and keeps it with the box's settings. What is not given stays.
---@param server table
---@param row table  the box
---@param given { git_user_name: string|nil, git_user_email: string|nil }
---@return { git_user_name: string, git_user_email: string }
function M.set(server, row, given)
  local name = given.git_user_name or row.config.git_user_name or NAME
  local email = given.git_user_email or row.config.git_user_email or EMAIL
  server.boxes:working(row, function(box)
    configure(server, row, box, "user.name", name)
    configure(server, row, box, "user.email", email)
  end)
  server.boxes:configure(row, function(config)
    config.git_user_name, config.git_user_email = name, email
  end)
  return { git_user_name = name, git_user_email = email }
end

return M
