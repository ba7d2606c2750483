-- Starts the fault server beside this file for a spec, on every Lua: only the shell is used. Also
-- the small things every spec over the wire needs.
local core = require "lbox.core"
local json = require "lbox.json"
local http = require "lbox.http"

local M = {}
M.__index = M

M.KEY = "box_spec_0123456789abcdef"

local program = os.getenv("LBOX_PROGRAM") or "build/lbox"

local function slurp(path)
  local file = io.open(path)
  local text = file and file:read("*a") or ""
  if file then
    file:close()
  end
  return text
end

--- Starts `command` in the background and waits for the first line it prints.
local function launch(command)
  local out = os.tmpname()
  local pipe = io.popen(("exec %s >%s 2>&1 </dev/null & echo $!"):format(command, out))
  local pid = pipe:read("*l")
  pipe:close()
  local line
  for _ = 1, 200 do
    line = slurp(out):match("^(.-)\n")
    if line then
      break
    end
    os.execute("sleep 0.02")
  end
  local said = slurp(out)
  os.remove(out)
  return pid, line or error("the server did not start: " .. said, 0)
end

--- Starts a server with these routes: Lua source of handlers, `routes["GET /path"] =
--- function(reply, request) … end`.
function M.start(source)
  local file = os.tmpname()
  local out = assert(io.open(file, "w"))
  out:write("local routes = {}\n", source or "", "\nreturn routes\n")
  out:close()
  local pid, port = launch(("%s spec/support/fault_server.lua %s"):format(program, file))
  os.remove(file)
  assert(port:match("^%d+$"), port)
  return setmetatable({ pid = pid, port = port, url = "http://127.0.0.1:" .. port }, M)
end

--- Starts a server that answers each of these requests always the same: "METHOD /path" = JSON text, or
--- { status, JSON text }. Boxes are there without being named, as in every fault server.
---@param answers table
---@param more string|nil  source of more routes
function M.answering(answers, more)
  local lines = { "local json = require 'lbox.json'", more }
  for name, answer in pairs(answers) do
    local status, text = 200, answer
    if type(answer) == "table" then
      status, text = answer[1], answer[2]
    end
    lines[#lines + 1] = ("routes[%q] = function(reply) reply:text(%d, %q) end"):format(name, status, text)
  end
  return M.start(table.concat(lines, "\n"))
end

--- The last request of that name: its body decoded.
function M:sent(name)
  local all = self:log(name)
  local last = assert(all[#all], "no such request: " .. name)
  return { query = last.query, headers = last.headers, json = last.body ~= "" and json.decode(last.body) or nil }
end

--- Kills the server at once and waits until it does nothing more (who reaps it may take its time).
function M:stop()
  os.execute(("kill -9 %s; while grep -qs ') [^ZX]' /proc/%s/stat; do sleep 0.01; done"):format(
    self.pid, self.pid))
end

--- Connection options for this server, with others merged in.
function M:options(more)
  local opts = { base_url = self.url, api_key = M.KEY }
  for key, value in pairs(more or {}) do
    opts[key] = value
  end
  return opts
end

--- The box whose id names the scenario.
function M:box(id, more)
  return require("lbox").Box.get(id, self:options(more))
end

--- The requests so far, those of one name when it is given: "POST /v2/box/b1/exec".
function M:log(name)
  local transfer = http.send { method = "GET", url = self.url .. "/_log" }
  transfer:wait(function(req) return req:done() end)
  local all = assert(json.decode(transfer.req:body()))
  for _, request in ipairs(all) do
    request.body = core.base64_decode(request.body)
  end
  if not name then
    return all
  end
  local some = {}
  for _, request in ipairs(all) do
    if request.name == name then
      some[#some + 1] = request
    end
  end
  return some
end

--- Calls `fn(...)`, which has to raise; returns what it raised.
function M.raised(fn, ...)
  local ok, err = pcall(fn, ...)
  assert(not ok, "no error was raised")
  return err
end

--- Calls `fn` with environment variables as given; false: not set.
function M.with_env(variables, fn)
  local getenv = os.getenv
  -- luacheck: push ignore 122
  os.getenv = function(name)
    local value = variables[name]
    if value ~= nil then
      return value or nil
    end
    return getenv(name)
  end
  local ok, err = pcall(fn)
  os.getenv = getenv
  -- luacheck: pop
  if not ok then
    error(err, 0)
  end
end

return M
