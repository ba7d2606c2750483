--- The CLIs of agents on this machine, and how boxes see them: each as a closed tree, read-only, with the program
--- at /run/lbox/agents/bin.
local child = require "lbox.server.child"
local errors = require "lbox.errors"
local harnesses = require "lbox.server.harness"
local json = require "lbox.json"
local posix = require "lbox.server.posix"
local runtimes = require "lbox.server.runtimes"

local M = {}

local PLACE = "/run/lbox/agents"
local BIN = PLACE .. "/bin"
local MAX_LINKS = 40
local MAX_PACKAGE = 1024 * 1024
local NPM_TIMEOUT_MS = 10000
local READ, SEARCH = 0x4, 0x1 -- what others may

---@class lbox.server.AgentMounts
---@field binds { from: string, to: string }[]
---@field links { target: string, at: string }[]

--- Where a harness's program is in a box.
---@param harness lbox.server.Harness
---@return string
function M.path(harness)
  return BIN .. "/" .. harness.program
end

-- ---------------------------------------------------------------------------------- finding it

--- Where a path leads, through all links. Nil when it leads nowhere, or nowhere that boxes' users get: boxes of a
--- server that runs as root have users of their own.
local function resolve(path)
  local strangers = posix.getuid() == 0
  local left, at, links = {}, "", 0
  local function push(text)
    local parts = {}
    for part in text:gmatch("[^/]+") do
      parts[#parts + 1] = part
    end
    for i = #parts, 1, -1 do
      left[#left + 1] = parts[i]
    end
  end
  push(path)
  while left[1] do
    local part = table.remove(left)
    local next_at = part == "." and at or part == ".." and at:match("^(.*)/") or at .. "/" .. part
    local st = posix.lstat(next_at == "" and "/" or next_at)
    if not st then
      return nil
    elseif st.type == "symlink" then
      links = links + 1
      local target = links <= MAX_LINKS and posix.readlink(next_at)
      if not target then
        return nil
      end
      at = target:sub(1, 1) == "/" and "" or at
      push(target)
    elseif strangers and st.mode & (st.type == "directory" and SEARCH or READ) == 0 then
      return nil
    else
      at = next_at
    end
  end
  return at
end

local function is_program(path)
  local st = path and posix.lstat(path)
  return st and st.type == "file" and st.mode & 0x49 ~= 0
end

--- Where npm puts programs of all users' or this user's packages.
local function npm_bin()
  local env = { "PATH=" .. (os.getenv("PATH") or "/usr/bin:/bin"), "HOME=" .. (os.getenv("HOME") or "/") }
  local ok, status, text = pcall(child.run, { argv = { "/usr/bin/env", "npm", "prefix", "-g" }, env = env, cwd = "/",
    timeout = NPM_TIMEOUT_MS })
  local prefix = ok and status.exit_code == 0 and text:match("^(/[^\n]*)")
  return prefix and prefix .. "/bin"
end

--- The program of that name in a directory: where it really is, and whether that is a directory of its own rather than
--- the one that was looked in.
local function look(dir, name)
  local path = resolve(dir .. "/" .. name)
  if is_program(path) then
    return path, path:match("^(.+)/") ~= resolve(dir)
  end
end

--- Looks for a program in directories, then where npm puts it. Returns what `look` does.
---@param name string
---@param own string|nil  directory to look in first
---@return string|nil path
---@return boolean|nil apart
local function find(name, own)
  local dirs = {}
  for _, each in ipairs(own and { own .. "/node_modules/.bin", own .. "/bin", own } or {}) do
    dirs[#dirs + 1] = each
  end
  for dir in (os.getenv("PATH") or "/usr/local/bin:/usr/bin"):gmatch("/[^:]*") do
    dirs[#dirs + 1] = dir
  end
  dirs[#dirs + 1] = (os.getenv("HOME") or "") .. "/.local/bin"
  for _, dir in ipairs(dirs) do
    local path, apart = look(dir, name)
    if path then
      return path, apart
    end
  end
  local dir = npm_bin()
  if dir then
    return look(dir, name)
  end
end

M.find = find

-- ----------------------------------------------------------------------------- its closed tree

local function read(path, max)
  local file = io.open(path, "rb")
  local bytes = file and file:read(max)
  if file then
    file:close()
  end
  return bytes or ""
end

local function package_at(dir)
  local value = json.decode(read(dir .. "/package.json", MAX_PACKAGE))
  return type(value) == "table" and type(value.name) == "string" and value or nil
end

--- The npm package that a file is part of: its directory and package.json.
local function package_of(path)
  local dir = path:match("^(.+)/")
  while dir do
    local package = package_at(dir)
    if package then
      return dir, package
    end
    dir = dir:match("^(.+)/")
  end
end

--- Whether it is a name of npm's: another one could lead anywhere.
local function is_package_name(name)
  return name:gsub("^@[%w~_-][%w~._-]*/", ""):match("^[%w~_-][%w~._-]*$") ~= nil
end

--- Adds a package and those it needs that lie beside it; those within it come with it.
local function add_package(mounts, base, siblings, name, seen)
  local dir = siblings .. "/" .. name
  local package = not seen[name] and is_package_name(name) and package_at(dir)
  if not package then
    return
  end
  seen[name] = true
  mounts.binds[#mounts.binds + 1] = { from = dir, to = ("%s/node_modules/%s"):format(base, name) }
  for _, kind in ipairs { "dependencies", "optionalDependencies" } do
    for each in pairs(type(package[kind]) == "table" and package[kind] or {}) do
      if not posix.lstat(dir .. "/node_modules/" .. each) then
        add_package(mounts, base, siblings, each, seen)
      end
    end
  end
end

--- node, for a script that needs it, where boxes have none.
local function add_node(mounts)
  if runtimes.find("node") then
    return
  end
  local path = find("node")
  if not path then
    errors.raise("api", "the agent's program needs node, which is not on this machine: apt-get install nodejs",
      { status_code = 422 })
  end
  mounts.binds[#mounts.binds + 1] = { from = path, to = BIN .. "/node" }
end

--- What of the host makes up the program at `path`: a script of an npm package is that package, one that was found
--- through a link, apart from other programs, the directory it is in. Else it is that one file.
local function mounts_of(name, path, apart)
  local mounts = { binds = {}, links = {} }
  local base = PLACE .. "/" .. name
  local entry
  local head = read(path, 256)
  local dir, package = package_of(path)
  local is_script = head:sub(1, 2) == "#!"
  if is_script and package and dir:sub(-#package.name - 1) == "/" .. package.name then
    local siblings = dir:sub(1, -#package.name - 2)
    add_package(mounts, base, siblings, package.name, {})
    entry = ("%s/node_modules/%s%s"):format(base, package.name, path:sub(#dir + 1))
  elseif is_script and apart then
    mounts.binds[1] = { from = path:match("^(.+)/"), to = base }
    entry = base .. path:match("/[^/]*$")
  else
    entry = base .. "/" .. name
    mounts.binds[1] = { from = path, to = entry }
  end
  if head:match("^#![^\n]*node") then
    add_node(mounts)
  end
  mounts.links[1] = { target = entry, at = BIN .. "/" .. name }
  return mounts
end

--- What a box of that harness gets mounted; nil when its program is not there, or the box brings its own.
---@param server table
---@param name string|nil  of the harness
---@return lbox.server.AgentMounts|nil
function M.mounts(server, name)
  local harness = harnesses.get(name)
  if harness and harness.program then
    local path, apart = find(harness.program, server.agents_dir)
    return path and mounts_of(harness.program, path, apart)
  end
end

--- Raises 422 unless the program of that harness is on this machine.
---@param server table
---@param name string
function M.need(server, name)
  local harness = harnesses.get(name)
  if harness.program and not M.mounts(server, name) then
    errors.raise("api", ("%s is not on this machine, or not where boxes can see it: %s"):format(harness.name,
      harness.install), { status_code = 422 })
  end
end

return M
