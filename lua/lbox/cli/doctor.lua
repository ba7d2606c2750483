--- `lbox doctor`: what works on this machine, and what to do about what does not. Exits 1 when local
--- boxes cannot work.
local agent_programs = require "lbox.server.agent_programs"
local argparse = require "argparse"
local async = require "lbox.async"
local child = require "lbox.server.child"
local core = require "lbox.core"
local data = require "lbox.server.data"
local harnesses = require "lbox.server.harness"
local limits = require "lbox.server.limits"
local local_server = require "lbox.local_server"
local network = require "lbox.server.network"
local paths = require "lbox.paths"
local posix = require "lbox.server.posix"
local runtimes = require "lbox.server.runtimes"
local sandbox = require "lbox.server.sandbox"

local M = {}

-- What boxes make use of when the host has it. `need` says which call asks for it.
local OPTIONAL = {
  { program = "node", package = "nodejs", need = "exec:code in js, runtime node" },
  { program = "npx", package = "npm", need = "MCP servers of a package" },
  { program = "python3", package = "python3", need = "exec:code in python, runtime python" },
  { program = "git", package = "git", need = "git inside boxes" },
  { program = "gh", package = "gh", need = "git:create_pr" },
  { program = "go", package = "golang-go", need = "runtime golang" },
  { program = "ruby", package = "ruby", need = "runtime ruby" },
  { program = "rustc", package = "rustc", need = "runtime rust" },
  { program = "cargo", package = "cargo", need = "building Rust" },
}

local NODE_TIMEOUT_MS = 10000

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

--- Tries the network of a box, with programs in a directory that goes again.
local function probe_network()
  local dir = (os.getenv("TMPDIR") or "/tmp") .. "/lbox-doctor-" .. core.random(8):gsub(".", function(c)
    return ("%02x"):format(c:byte())
  end)
  local ok, found = pcall(function()
    data.install_init(dir)
    return network.probe(dir)
  end)
  posix.unlink(dir .. "/lbox-init")
  posix.rmdir(dir)
  return ok and found or { ok = false, cause = tostring(found), fix = "look at TMPDIR" }
end

local function report_network()
  local found = probe_network()
  if found.ok then
    line("ok", "network", "boxes have the internet unless their policy says otherwise")
    return
  end
  line("-", "network", "boxes have no internet (deny-all): " .. found.cause)
  line("", "", "fix: " .. found.fix)
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
  if found.ok then
    report_network()
  end
  report_limits()
  return found.ok
end

--- The disk that has a directory, or will have it: whether there is room.
local function report_disk(dir)
  local at = dir
  while not posix.lstat(at) do
    at = at:match("^(.+)/") or "/"
  end
  local free, size = posix.disk(at)
  local floor = free and limits.floor(size)
  if free and free >= floor then
    line("ok", "disk", limits.shown(free) .. " free")
    return true
  end
  line("NO", "disk", free and ("%s free, and boxes leave %s: nothing more can be kept"):format(limits.shown(free),
    limits.shown(floor)) or size)
  line("", "", "fix: make room, use another directory (--data, LBOX_DATA), or lbox serve --disk-floor")
  return false
end

local function report_running(dir)
  local socket = paths.socket(dir)
  local asked, running = pcall(local_server.hello, socket)
  if not asked or not running then
    line("note", "server", "not running (started on demand)")
  elseif running.version == core.version then
    line("ok", "server", ("lbox %s, process %d, on %s"):format(running.version, running.pid, socket))
  else
    line("note", "server", ("lbox %s, process %d%s"):format(running.version, running.pid,
      running.busy and ", at work" or ": the next client replaces it"))
    if running.busy then
      line("", "", ("fix: kill %d, and what it does has ten seconds to end"):format(running.pid))
    end
  end
end

local function report_server(dir)
  print("local server")
  local trouble = data.trouble(dir)
  line(trouble and "NO" or "ok", "data", trouble or dir)
  local room = report_disk(dir)
  if not trouble then
    report_running(dir)
  end
  return not trouble and room
end

--- What boxes cannot do with a program that is there; nil: nothing.
local function lacks(program, path)
  if program ~= "node" then
    return nil
  end
  local ok, status, text = pcall(child.run, { argv = { path, "-p", runtimes.RUNS_TYPESCRIPT }, env = {}, cwd = "/",
    timeout = NODE_TIMEOUT_MS })
  if not ok or status.exit_code ~= 0 then
    return "it does not run"
  end
  return not text:find("true", 1, true) and ("exec:code in ts takes node %s or newer"):format(runtimes.TYPESCRIPT_NODE)
    or nil
end

local function report_optional()
  print("inside boxes")
  for _, item in ipairs(OPTIONAL) do
    local path = runtimes.find(item.program)
    local lack = path and lacks(item.program, path)
    if path then
      line(lack and "note" or "ok", item.program, path .. (lack and ": " .. lack or ""))
    else
      line("-", item.program, ("missing, for %s: apt-get install %s"):format(item.need, item.package))
    end
  end
end

local function report_agents(dir)
  print("agents")
  for _, name in ipairs(harnesses.names()) do
    local harness = harnesses.get(name)
    local path = harness.program and agent_programs.find(harness.program, dir)
    if path then
      line("ok", name, path)
    elseif harness.program then
      line("-", name, "missing: " .. harness.install)
    end
  end
  line("note", "keys", "pass agent.api_key, or give a box the provider's variable in its env")
end

---@param argv string[]
---@return integer status
function M.main(argv)
  local p = argparse("lbox doctor", "Say what works on this machine.")
  p:option("--data", "data directory of the local server"):argname("DIR")
  local args = p:parse(argv)
  local agents = os.getenv("LBOX_AGENTS")
  return async.run(function()
    report_program()
    local works = report_sandbox()
    local served = report_server(paths.data_dir(args.data))
    report_optional()
    report_agents(agents ~= "" and agents or nil)
    return works and served and 0 or 1
  end)
end

return M
