--- What a box can be given, at its beginning or later: checks of each thing. What is wrong is answered with
--- 400 and a sentence that names it, what there is not on local boxes with 501.
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local limits = require "lbox.server.limits"
local runtimes = require "lbox.server.runtimes"

local M = {}

local MAX_LABELS, MAX_LABEL = 5, 20
local MAX_SKILLS, MAX_SKILL = 50, 200
local MAX_NAME = 100
local MAX_PATH = 4095
local MAX_INIT_COMMAND = 64 * 1024
-- Of an ephemeral box, in seconds: three days.
local MAX_TTL = 259200
-- Linux takes no longer word in an environment, nor much more together with a command.
local MAX_ENV_VALUE, MAX_ENV = 120 * 1024, 1024 * 1024

--- Names that would change what runs rather than what it sees.
M.BLOCKED_ENV = { PATH = true, HOME = true, LD_PRELOAD = true, LD_LIBRARY_PATH = true, NODE_OPTIONS = true }

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

--- The name of a box, a model or a snapshot.
function M.name(name)
  if #name > MAX_NAME or not name:match("^%w[%w._%-]*$") then
    refuse(400, ("name %q: 1 to %d of A-Z a-z 0-9 . _ -, a letter or digit first"):format(name, MAX_NAME))
  elseif fields.RESERVED[name] then
    refuse(400, ("name %q: it stands for something else in URLs"):format(name))
  end
end

---@param size string
function M.size(size)
  if not limits.SIZES[size] then
    refuse(400, ("size %q: small, medium or large"):format(size))
  end
end

function M.model(model)
  if #model > MAX_NAME or model:find("%c") or not model:find("%S") then
    refuse(400, ("model: 1 to %d characters"):format(MAX_NAME))
  end
end

function M.label(label)
  if #label > MAX_LABEL or not label:match("^[%w._:%-]+$") then
    refuse(400, ("label %q: 1 to %d of A-Z a-z 0-9 . _ : -"):format(label, MAX_LABEL))
  end
end

function M.labels(labels)
  if #labels > MAX_LABELS then
    refuse(400, ("at most %d labels, got %d"):format(MAX_LABELS, #labels))
  end
  for _, label in ipairs(labels) do
    M.label(label)
  end
end

--- One skill, or all of a repository.
local function check_skill(skill)
  local owner, repository, name = skill:match("^([^/]+)/([^/]+)/?([^/]*)$")
  local right = owner and #skill <= MAX_SKILL and skill:sub(-1) ~= "/"
  for _, part in ipairs { owner or "", repository or "", name ~= "" and name or nil } do
    right = right and part:match("^[%w_-][%w._-]*$") -- no "..": it is a path, too
  end
  if not right then
    refuse(400, ("skill %q: write owner/repo/skill, or owner/repo"):format(skill))
  end
end

function M.skills(skills)
  if #skills > MAX_SKILLS then
    refuse(400, ("at most %d skills, got %d"):format(MAX_SKILLS, #skills))
  end
  for _, skill in ipairs(skills) do
    check_skill(skill)
  end
end

--- Variables of an environment.
---@param vars table<string, string>
---@param what string  what to call them
function M.env(vars, what)
  local size = 0
  for name, value in pairs(vars) do
    if type(name) ~= "string" or not name:match("^[%a_][%w_]*$") then
      refuse(400, ("%s: %q is not a variable name"):format(what, tostring(name)))
    elseif type(value) ~= "string" or value:find("\0", 1, true) then
      refuse(400, ("%s: the value of %s must be a string without NUL"):format(what, name))
    end
    size = size + #name + #value
    if #value > MAX_ENV_VALUE or size > MAX_ENV then
      refuse(400, ("%s: %s is too much: a value may have %d bytes, all together %d"):format(what, name,
        MAX_ENV_VALUE, MAX_ENV))
    end
  end
end

function M.init_command(command)
  if #command > MAX_INIT_COMMAND then
    refuse(400, ("the init command has %d bytes: at most %d, or write it to a file and run that"):format(#command,
      MAX_INIT_COMMAND))
  end
end

--- Where commands of custom harnesses may be that are not found by their names.
local HARNESS_PLACES = { "/workspace/home/", "/home/boxuser/" }

--- Whether it is a name, or a path within one of those places (box-api.md §4.10).
local function is_harness_command(command)
  if #command > MAX_PATH or command:find("%c") then
    return false
  elseif not command:find("/", 1, true) then
    return true
  end
  for _, place in ipairs(HARNESS_PLACES) do
    if command:sub(1, #place) == place and command:sub(-1) ~= "/" then
      return not (command .. "/"):find("/../", 1, true)
    end
  end
  return false
end

---@param runner table
function M.custom_runner(runner)
  fields.check(runner, { command = "string!", args = "strings", protocol = "string" })
  if not runner.command:find("%S") then
    refuse(400, "the command of custom_runner must not be empty")
  elseif not is_harness_command(runner.command) then
    refuse(400, ("the command of custom_runner %q: a name on PATH, or a path below %s"):format(
      runner.command:sub(1, 200), table.concat(HARNESS_PLACES, " or ")))
  elseif runner.protocol and runner.protocol ~= "box-sse-v1" then
    refuse(400, ("protocol %q: only \"box-sse-v1\" is known"):format(runner.protocol))
  end
end

--- How long an ephemeral box lives, in seconds.
---@param ttl number|nil
---@return integer
function M.ttl(ttl)
  ttl = ttl or MAX_TTL
  if ttl < 1 or ttl > MAX_TTL or ttl % 1 ~= 0 then
    refuse(400, ("ttl %.14g: a whole number of seconds from 1 to %d"):format(ttl, MAX_TTL))
  end
  return math.tointeger(ttl)
end

--- Who commits in a box; that takes a git.
---@param given { git_user_name: string|nil, git_user_email: string|nil }
function M.git_identity(given)
  for _, name in ipairs { "git_user_name", "git_user_email" } do
    local value = given[name]
    if value and (#value > MAX_NAME or value:find("[%c<>]") or not value:find("%S")) then
      refuse(400, ("%s %q: 1 to %d characters, no < or > among them"):format(name, value, MAX_NAME))
    end
  end
  runtimes.need("git", "git")
end

return M
