--- The programs of the host that boxes make use of: runtimes and the languages of code.
local errors = require "lbox.errors"
local posix = require "lbox.server.posix"

local M = {}

-- By the names of box-api.md §8 what has to be there, and the Debian package that brings it.
local RUNTIMES = {
  node = { program = "node", package = "nodejs" },
  python = { program = "python3", package = "python3" },
  golang = { program = "go", package = "golang-go" },
  ruby = { program = "ruby", package = "ruby" },
  rust = { program = "rustc", package = "rustc" },
}
-- Where a box looks, of the directories it has from the host.
local DIRECTORIES = { "/usr/local/bin/", "/usr/bin/" }

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

--- Whether `path` leads to something below /usr: a box has nothing else of the host.
local function is_visible(path)
  for _ = 1, 16 do
    local st = posix.lstat(path)
    if not st or path:sub(1, 5) ~= "/usr/" then
      return false
    elseif st.type ~= "symlink" then
      return true
    end
    local target = posix.readlink(path)
    path = target:sub(1, 1) == "/" and target or path:match("^.*/") .. target
  end
  return false
end

--- Whether boxes find the program `name`.
---@param name string
---@return string|nil path
function M.find(name)
  for _, dir in ipairs(DIRECTORIES) do
    if is_visible(dir .. name) then
      return dir .. name
    end
  end
end

--- What prints "true" when node runs it with `-p` and can run TypeScript.
M.RUNS_TYPESCRIPT = "process.allowedNodeEnvironmentFlags.has('--experimental-strip-types')"
M.TYPESCRIPT_NODE = "22.6"

--- Raises 422 unless boxes find the program.
---@param program string
---@param package string  Debian's
function M.need(program, package)
  if not M.find(program) then
    refuse(422, ("%s is not installed below /usr on this machine: apt-get install %s"):format(program, package))
  end
end

--- Raises unless boxes here have that runtime.
---@param name string|nil
function M.check(name)
  if name == nil then
    return
  end
  local base, alpine = name:match("^(%l+)(%-?%l*)$")
  local runtime = RUNTIMES[base]
  if not runtime or (alpine ~= "" and alpine ~= "-alpine") then
    local known = {}
    for each in pairs(RUNTIMES) do
      known[#known + 1] = each
    end
    table.sort(known)
    refuse(400, ("no runtime %q: %s"):format(name, table.concat(known, ", ")))
  elseif alpine ~= "" then
    refuse(422, ("the runtime %q: local boxes have the programs of this machine; use %q"):format(name, base))
  end
  M.need(runtime.program, runtime.package)
end

return M
