-- Programs that a benchmark runs.
local async = require "lbox.async"
local posix = require "lbox.server.posix"

local M = {}

--- Starts `argv` with its standard output in a pipe.
function M.start(argv)
  local read_end, write_end = assert(posix.pipe())
  local env = { "PATH=" .. os.getenv("PATH"), "HOME=" .. (os.getenv("HOME") or "/") }
  local pid, pidfd = assert(posix.spawn { argv = argv, env = env, fds = { [1] = write_end, [2] = 2 } })
  posix.close(write_end)
  posix.set_nonblock(read_end)
  return { pid = pid, pidfd = pidfd, out = read_end }
end

--- Reads from the process until `enough(text)` or its end.
function M.read_until(process, enough)
  local watch = async.fd(process.out)
  local text = ""
  while not (enough and enough(text)) do
    local bytes, _, errno = posix.read(process.out, 65536)
    if bytes == "" then
      break
    elseif bytes then
      text = text .. bytes
    elseif errno == "EAGAIN" then
      watch:wait("r")
    else
      break
    end
  end
  watch:close()
  return text
end

--- Runs `argv` to its end; returns what it printed and its use of the machine.
function M.run(argv)
  local process = M.start(argv)
  local text = M.read_until(process)
  posix.close(process.out)
  local watch = async.fd(process.pidfd)
  watch:wait("r")
  watch:close()
  local usage = assert(posix.waitid(process.pidfd))
  posix.close(process.pidfd)
  assert(usage.exit_code == 0, table.concat(argv, " ") .. " failed")
  return text, usage
end

--- Ends it with a signal nothing withstands.
function M.stop(process)
  posix.kill(process.pid, "KILL")
  local watch = async.fd(process.pidfd)
  watch:wait("r")
  watch:close()
  posix.waitid(process.pidfd)
end

--- Starts a local server with a port; returns it and the options that lead a client there.
function M.serve(dir)
  local server = M.start { "/bin/sh", "-c",
    'exec "$0" serve --data "$1" --listen 127.0.0.1:0 --print-env 2>/dev/null', posix.exe_path(), dir }
  local env = M.read_until(server, function(text) return text:find("API_KEY=%S+\n") end)
  return server, { base_url = env:match("BASE_URL=(%S+)"), api_key = env:match("API_KEY=(%S+)") }
end

return M
