--- Skills of agents: directories with a SKILL.md. They come from a directory of this machine that has repositories as
--- `owner/repo`, and are copied into boxes, to where the CLIs of agents look for them.
local errors = require "lbox.errors"
local ids = require "lbox.server.ids"
local posix = require "lbox.server.posix"
local runs = require "lbox.server.runs"

local M = {}

-- Where Codex and OpenCode look, at any depth.
local PLACE = "/home/boxuser/.agents/skills/"
-- Where a repository may have its skills.
local WITHIN = { "", "/skills", "/.claude/skills", "/.agents/skills" }
local MAX_FILES, MAX_BYTES, MAX_DEPTH = 1000, 32 * 1024 * 1024, 16
local MAX_OUTPUT = 4096

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

local function is(path, kind)
  local st = posix.lstat(path)
  return st ~= nil and st.type == kind
end

-- ------------------------------------------------------------------------------ on this machine

--- Whether `below`, "/a/b", is a directory in `root` and no part of it a link, which could lead anywhere on this
--- machine. The root itself may be one.
local function is_within(root, below)
  local path = root
  for part in below:gmatch("/[^/]+") do
    path = path .. part
    if not is(path, "directory") then
      return false
    end
  end
  return true
end

--- The skills of a repository: their directories by their names.
local function skills_in(repository)
  local found = {}
  for _, within in ipairs(WITHIN) do
    local dir = repository .. within
    for _, name in ipairs(is_within(repository, within) and posix.listdir(dir) or {}) do
      if name:match("^[%w_-][%w._-]*$") and not found[name] and is(dir .. "/" .. name, "directory")
        and is(("%s/%s/SKILL.md"):format(dir, name), "file") then
        found[name] = dir .. "/" .. name
      end
    end
  end
  return found
end

--- The skills that an id stands for. Raises 422 when there are none.
local function find(server, id)
  local repository, wanted = id:match("^([^/]+/[^/]+)/?(.*)$")
  local dir = ("%s/%s"):format(server.skills_dir, repository)
  if not is_within(server.skills_dir, "/" .. repository) then
    if posix.lstat(dir) then
      refuse(422, ("%s is no directory, or one behind a link, and nothing of it is taken into boxes"):format(dir))
    end
    refuse(422, ("the skill %q is not on this machine: git clone https://github.com/%s %s"):format(id, repository, dir))
  end
  local found, names = skills_in(dir), {}
  for name in pairs(found) do
    names[#names + 1] = name
  end
  table.sort(names)
  if wanted ~= "" and found[wanted] then
    return { [wanted] = found[wanted] }, repository
  elseif wanted ~= "" or not names[1] then
    refuse(422, ("there is no skill %q in %s: %s"):format(id, dir, names[1] and table.concat(names, ", ")
      or "no directory in it has a SKILL.md"))
  end
  return found, repository
end

--- Adds the files below a directory, paths beginning with "./". What is a link or no file of content is refused: it
--- could be any file of this machine.
local function add_files(files, dir, below, depth)
  for _, name in ipairs(posix.listdir(dir) or {}) do
    local path, rel = dir .. "/" .. name, below .. "/" .. name
    local st = posix.lstat(path)
    if name ~= ".git" and st then
      if st.type == "directory" and depth < MAX_DEPTH then
        add_files(files, path, rel, depth + 1)
      elseif st.type ~= "file" then
        refuse(422, ("%s of a skill is no file, or too deep, and is not taken into boxes"):format(path))
      else
        files.size = files.size + st.size
        files[#files + 1] = { path = path, rel = rel, executable = st.mode & 0x49 ~= 0 }
      end
      if #files > MAX_FILES or files.size > MAX_BYTES then
        refuse(422, ("the skill in %s is larger than %d files or %d bytes"):format(dir, MAX_FILES, MAX_BYTES))
      end
    end
  end
end

local function files_of(dir)
  local files = { size = 0 }
  add_files(files, dir, ".", 0)
  return files
end

--- Raises 422 unless all of these are on this machine and can be taken into boxes.
---@param server table
---@param list string[]  ids
function M.check(server, list)
  for _, id in ipairs(list) do
    for _, dir in pairs((find(server, id))) do
      files_of(dir)
    end
  end
end

-- --------------------------------------------------------------------------------------- in a box

--- Runs a script in the box. Raises 409 with what it says when it does not end with 0.
local function run(server, row, box, what, script, ...)
  local process = box:spawn { argv = { "sh", "-euc", script, "sh", ... }, cwd = "/", merge = true,
    env = server.boxes.environment(row) }
  local output = process:collect(MAX_OUTPUT)
  if not output then
    process:kill()
    process:close()
  end
  if not output or process.result.exit_code ~= 0 then
    local said = output and output.stdout:match("([^\n]+)%s*$")
    refuse(409, ("%s: %s"):format(what, process.result.not_started and process:refusal()
      or said and runs.text(said) or "the box could not be changed"))
  end
end

-- Makes the directories a skill takes, or says what of the box is in the way.
local PREPARE = [[
link=~/.claude/skills/$3
if [ -e "$link" ] && [ "$(readlink "$link")" != "$2" ]; then
  echo "the box has another skill of that name: $link"; exit 1
fi
mkdir -p ~/.claude/skills "$1"
]]

-- Puts what was written to its place, with a link where Claude Code looks, which has skills side by side.
local INSTALL = [[
from=$1 to=$2 link=~/.claude/skills/$3; shift 3
cd "$from"; [ $# -eq 0 ] || chmod 755 "$@"; cd /
rm -rf "$to"; mv "$from" "$to"
ln -sfn "$to" "$link"
]]

-- Removes what was written, and the directory of its repository when there is nothing else in it.
local ABANDON = [[
rm -rf "$1"; cd "$2"; rmdir -p "$3"
]]

local REMOVE = [[
for link in ~/.claude/skills/*; do
  case "$(readlink "$link")/" in "$1"/*) rm "$link" ;; esac
done
rm -rf "$1"
]]

local function write_files(box, files, to)
  for _, file in ipairs(files) do
    local handle = io.open(file.path, "rb")
    local bytes = handle and handle:read("a")
    if handle then
      handle:close()
    end
    if not bytes then
      refuse(422, ("the file %s of a skill cannot be read"):format(file.path))
    end
    box:write_file(to .. file.rel:sub(2), bytes)
  end
end

local function install(server, row, box, id)
  local found, repository = find(server, id)
  for name, dir in pairs(found) do
    local what, files, executables = ("the skill %q"):format(id), files_of(dir), {}
    local staged, to = ("%s%s/.%s"):format(PLACE, repository, ids.run()), ("%s%s/%s"):format(PLACE, repository, name)
    for _, file in ipairs(files) do
      executables[#executables + 1] = file.executable and file.rel or nil
    end
    local ok, err = pcall(function()
      run(server, row, box, what, PREPARE, staged, to, name)
      write_files(box, files, staged)
      run(server, row, box, what, INSTALL, staged, to, name, table.unpack(executables))
    end)
    if not ok then
      pcall(run, server, row, box, what, ABANDON, staged, PLACE, repository)
      error(err, 0)
    end
  end
end

--- Copies skills into a box, in the place of those that are there.
---@param server table
---@param row table      the box
---@param list string[]  ids
function M.install(server, row, list)
  if list[1] then
    server.boxes:working(row, function(box)
      for _, id in ipairs(list) do
        install(server, row, box, id)
      end
    end)
  end
end

--- Removes one from a box. Those of `kept` stay, even if they are of the same repository.
---@param server table
---@param row table
---@param id string
---@param kept string[]
function M.remove(server, row, id, kept)
  server.boxes:working(row, function(box)
    run(server, row, box, ("the skill %q"):format(id), REMOVE, PLACE .. id)
    for _, other in ipairs(kept) do
      if (other .. "/"):sub(1, #id + 1) == id .. "/" or (id .. "/"):sub(1, #other + 1) == other .. "/" then
        install(server, row, box, other)
      end
    end
  end)
end

return M
