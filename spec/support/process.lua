-- What plain Lua can find out about its own process, on Linux.
local M = {}

function M.pid()
  local file = assert(io.open("/proc/self/stat"))
  local pid = file:read("*l"):match("^%d+")
  file:close()
  return pid
end

--- What a shell command prints. By a file: a pipe to it would be one more descriptor for a moment.
function M.output(command)
  local path = os.tmpname()
  os.execute(("{ %s\n} >%s"):format(command, path))
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  os.remove(path)
  return text
end

--- How many descriptors are open.
function M.open_fds()
  return tonumber(M.output(("ls /proc/%s/fd | wc -l"):format(M.pid())))
end

--- The number of the open descriptor of a path.
function M.fd_of(path)
  return tonumber(M.output(([[for fd in /proc/%s/fd/*; do
    [ "$(readlink "$fd")" = '%s' ] && echo "${fd##*/}"; done]]):format(M.pid(), path)):match("%d+"))
end

return M
