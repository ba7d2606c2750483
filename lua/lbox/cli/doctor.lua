--- `lbox doctor`: what works on this machine, and what to do about what does not. Exits 1 when local
--- boxes cannot work.
local argparse = require "argparse"
local core = require "lbox.core"
local limits = require "lbox.server.limits"
local paths = require "lbox.paths"
local posix = require "lbox.server.posix"
local runtimes = require "lbox.server.runtimes"
local sandbox = require "lbox.server.sandbox"

local M = {}

-- What boxes make use of when the host has it. `need` says which call asks for it.
local OPTIONAL = {
  { program = "node", package = "nodejs", need = "exec:code in js" },
  { program = "python3", package = "python3", need = "exec:code in python" },
  { program = "git", package = "git", need = "git inside boxes" },
}

local function line(mark, what, detail)
  print(("  %-4s %-22s %s"):format(mark, what, detail or ""))
end

local function report_program()
  print("lbox")
  line("ok", "lbox " .. core.version, _VERSION .. ", libcurl " .. core.curl)
end

local function report_limits()
  local small = limits.SIZES.small
  if limits.counts_processes() then
    line("ok", "limit of processes", ("%d in a box, by the kernel"):format(small.processes))
  else
    line("NO", "limit of processes", "this kernel counts them together with those of your user")
    line("", "", "fix: Linux 5.14 or newer, or a server started as root")
  end
  line("ok", "limits of memory, disk", ("%s and %s in a small box: looked at, and whoever takes more is killed")
    :format(limits.shown(small.memory), limits.shown(small.disk)))
  line("note", "CPU time", "boxes share it, without a limit")
end

local function report_sandbox()
  print("local boxes")
  local found = sandbox.probe()
  if found.bwrap then
    line("ok", "bubblewrap", found.bwrap)
  end
  for _, problem in ipairs(found.problems) do
    line("NO", problem.what, problem.cause)
    line("", "", "fix: " .. problem.fix)
  end
  if found.ok then
    line("ok", "sandbox", "a box starts and ends here")
    if posix.getuid() == 0 then
      line("ok", "uids", "started as root: every box gets a host uid of its own")
    end
  end
  line("note", "network", "boxes have their own loopback and nothing else in this version")
  report_limits()
  return found.ok
end

local function report_server(dir)
  print("local server")
  line("note", "data", dir)
  local socket = paths.socket(dir)
  local running = socket and posix.lstat(socket)
  line("note", "socket", running and socket or "not running (started on demand)")
end

local function report_optional()
  print("inside boxes")
  for _, item in ipairs(OPTIONAL) do
    local path = runtimes.find(item.program)
    if path then
      line("ok", item.program, path)
    else
      line("-", item.program, ("missing, for %s: apt-get install %s"):format(item.need, item.package))
    end
  end
end

---@param argv string[]
---@return integer status
function M.main(argv)
  local p = argparse("lbox doctor", "Say what works on this machine.")
  p:option("--data", "data directory of the local server"):argname("DIR")
  local args = p:parse(argv)
  report_program()
  local ok = report_sandbox()
  report_server(paths.data_dir(args.data))
  report_optional()
  return ok and 0 or 1
end

return M
