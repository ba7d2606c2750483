-- A machine with a local server, and an internet it is connected to, for specs: two network namespaces with a
-- pair of devices between them, which takes root. Nothing of them is connected to this machine's own network.
--
--   the machine      93.184.216.1          its addresses and those of its private networks are no box's
--   the internet     93.184.216.34, .35    HTTP, HTTPS, a name server, and ticks on port 7000
--   what boxes must not reach              169.254.169.254, 192.168.77.1, 10.7.7.7 on the way there
local json = require "lbox.json"
local support = require "spec.support.local"

local M = {}
M.__index = M

local count = 0

local function slurp(path)
  local file = io.open(path)
  local text = file and file:read("a") or ""
  if file then
    file:close()
  end
  return text
end

local function must(command)
  local text, status = support.sh("set -e; " .. command)
  assert(status == 0, text)
  return text
end

local function wait_for(path, what)
  for _ = 1, 200 do
    if slurp(path):find(what, 1, true) then
      return
    end
    os.execute("sleep 0.05")
  end
  error(path .. ": " .. slurp(path))
end

--- Runs a program in a namespace, in the background; returns its pid.
local function background(self, ns, command, log)
  return must(("ip netns exec %s %s >%s 2>&1 </dev/null & echo $!"):format(self[ns], command, log)):match("%d+")
end

--- Makes both, and starts a server. `as_user`: one of an ordinary user. `prepare`: shell commands before it,
--- in its own mount namespace. `args`: of `lbox serve`.
function M.start(opts)
  opts = opts or {}
  count = count + 1
  local self = setmetatable({ dir = support.directory() }, M)
  local id = self.dir:gsub("%W", ""):sub(-6) .. count
  self.machine, self.internet = "lboxm" .. id, "lboxi" .. id
  must(("ip netns add %s; ip netns add %s; ip link add wan0 netns %s type veth peer name lan0 netns %s"):format(
    self.machine, self.internet, self.machine, self.internet))
  must(("ip() { command ip -n %s \"$@\"; }; ip link set lo up; ip addr add 93.184.216.1/24 dev wan0; "
    .. "ip link set wan0 up; ip route add default via 93.184.216.34"):format(self.machine))
  must(("ip() { command ip -n %s \"$@\"; }; ip link set lo up; ip addr add 93.184.216.34/24 dev lan0; "
    .. "ip link set lan0 up; for a in 93.184.216.35 169.254.169.254 192.168.77.1 10.7.7.7; do "
    .. "ip addr add $a/32 dev lo; done"):format(self.internet))
  must(("cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem "
    .. "-out cert.pem -subj /CN=ok.test -days 2 && printf 'nameserver 93.184.216.34\\n' >resolv.conf"):format(self.dir))
  self.outside_pid = background(self, "internet", "python3 spec/support/outside.py " .. self.dir,
    self.dir .. "/out.log")
  wait_for(self.dir .. "/out.log", "ready")
  -- What this machine itself has that a box might want. (`http.server` as a program asks for the name of its own
  -- address before it listens.)
  self.inside_pid = background(self, "machine", ([[python3 -uc 'if 1:
    import http.server, os, socketserver
    os.chdir("%s")
    server = socketserver.ThreadingTCPServer(("0.0.0.0", 8080), http.server.SimpleHTTPRequestHandler)
    print("ready")
    server.serve_forever()']]):format(self.dir), self.dir .. "/in.log")
  wait_for(self.dir .. "/in.log", "ready")
  self:serve(opts)
  return self
end

--- Starts the server (again).
function M:serve(opts)
  opts = opts or self.opts
  self.opts, self.log = opts, self.dir .. "/log"
  local program, prefix = support.program, ""
  if opts.as_user then
    must(("cp %s %s/lbox && chmod 755 %s/lbox && chown 12345:12345 %s"):format(program, self.dir, self.dir, self.dir))
    program = self.dir .. "/lbox"
    prefix = "setpriv --reuid 12345 --regid 12345 --clear-groups env HOME=" .. self.dir
  end
  local script = self.dir .. "/serve.sh"
  local file = assert(io.open(script, "w"))
  file:write(("mount --bind %s/resolv.conf /etc/resolv.conf\n%s\nexec %s %s serve --data %s/data %s\n"):format(self.dir,
    opts.prepare or "", prefix, program, self.dir, opts.args or ""))
  file:close()
  os.remove(self.log)
  self.pid = background(self, "machine", "unshare -m sh " .. script, self.log)
  wait_for(self.log, "\nready\n")
end

--- Asks the server: the status and the answer, decoded.
function M:ask(method, path, body)
  local file = self.dir .. "/body"
  local out = assert(io.open(file, "w"))
  out:write(body and json.encode(body) or "")
  out:close()
  local text = support.sh(("curl -s --unix-socket %s/data/sock -X %s -w '\\n%%{http_code}' %s "
    .. "'http://localhost/v2/box%s'"):format(self.dir, method, body and "-d @" .. file or "", path))
  local answer, status = text:match("^(.*)\n(%d+)%s*$")
  return tonumber(status), answer and json.decode(answer)
end

--- A new box: its id and what is told of it.
function M:box(policy, more)
  local body = more or {}
  body.network_policy = policy
  local status, answer = self:ask("POST", "", body)
  assert(status == 200, answer and answer.error or slurp(self.log))
  return answer.id, answer
end

--- Runs a shell script in a box: what it printed.
function M:run(id, script)
  local _, answer = self:ask("POST", ("/%s/exec"):format(id), { command = { "sh", "-c", "(" .. script .. "\n) 2>&1" } })
  return answer.output or answer.error
end

function M:set_policy(id, policy)
  return self:ask("PUT", ("/%s/config/network-policy"):format(id), policy)
end

--- What the server itself tells of a box, as lines.
function M:logs(id)
  local _, answer = self:ask("GET", ("/%s/logs"):format(id))
  local lines = {}
  for _, entry in ipairs(answer.logs) do
    if entry.source == "system" then
      lines[#lines + 1] = entry.level .. " " .. entry.message
    end
  end
  return table.concat(lines, "\n") .. "\n"
end

--- What came to the internet: "heard" by UDP on port 1900, "asked" of the name server, "requests" by HTTP.
function M:noted(what)
  return slurp(self.dir .. "/" .. what)
end

--- The pid of the last process that the server has started and whose command line has `part` in it.
function M:helper(part)
  return (support.sh(("for p in $(cat /proc/%s/task/%s/children); do tr '\\0' ' ' </proc/$p/cmdline | grep -qF '%s' "
    .. "&& echo $p; done | tail -1"):format(self.pid, self.pid, part)):match("%d+"))
end

function M:kill(signal)
  os.execute(("kill -%s %s 2>/dev/null; while [ -e /proc/%s/exe ]; do sleep 0.02; done"):format(signal or "TERM",
    self.pid, self.pid))
end

--- Ends and removes everything.
function M:stop()
  self:kill()
  support.sh(("kill %s %s; ip netns del %s; ip netns del %s; rm -rf %s"):format(self.outside_pid, self.inside_pid,
    self.machine, self.internet, self.dir))
end

return M
