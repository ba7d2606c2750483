-- A directory of a spec's own, and what is in it. Uses only the shell.
local process = require "spec.support.process"

local M = {}
M.__index = M

function M.new()
  return setmetatable({ path = process.output("mktemp -d /var/tmp/lbox-spec-XXXXXX"):match("%S+") }, M)
end

function M:sh(command)
  return process.output(("cd '%s' && %s"):format(self.path, command))
end

--- Removes everything in it.
function M:clear()
  self:sh("rm -rf -- * .[!.]*")
end

function M:remove()
  os.execute(("rm -rf '%s'"):format(self.path))
end

function M:write(name, content)
  local path = self.path .. "/" .. name
  local file = assert(io.open(path, "wb"))
  file:write(content)
  file:close()
  return path
end

--- The content of a file, nil when there is none.
function M:read(name)
  local file = io.open(self.path .. "/" .. name, "rb")
  local content = file and file:read("*a")
  if file then
    file:close()
  end
  return content
end

--- Everything in it, sorted, one path a line, without itself.
function M:list()
  return (self:sh("find . -mindepth 1 | LC_ALL=C sort"))
end

return M
