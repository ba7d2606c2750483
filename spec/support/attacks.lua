-- What the specs of attacks have in common: a server, a box that attacks and another one, and what has to hold after
-- every attack and during it.
local assert = require "luassert"
local lbox = require "lbox"
local router = require "lbox.server.router"
local support = require "spec.support.local"

local M = {}
M.__index = M

-- How long the server may take to answer somebody else, whatever goes on.
local ANSWER_MS = 1000
local SECRET = "the server's own"

--- A server with a box that attacks and one that has nothing to do with it.
---@param opts { args: string|nil, box: table|nil }|nil  options of the server and of the box that attacks
function M.start(opts)
  opts = opts or {}
  local self = setmetatable({ server = support.start { args = opts.args,
    -- Its memory is measured: a sanitizer, if there is one, is to keep little of what is freed.
    prefix = "env ASAN_OPTIONS=quarantine_size_mb=1" } }, M)
  self.secret = self.server.dir .. "/secret"
  support.sh(("printf '%s' > %s"):format(SECRET:gsub("'", "'\\''"), self.secret))
  self.box = lbox.Box.create(self.server:client(opts.box))
  self.other = lbox.Box.create(self.server:client())
  self.other.files:write { path = "mine", content = "untouched" }
  self.other.exec:command("nohup sleep 3600 >/dev/null 2>&1 &")
  return self
end

--- Runs a shell command in the box that attacks: exit code and output, both streams in one.
function M:run(command)
  local result = self.box.exec:command("( " .. command .. "\n) 2>&1", { timeout = 20000 })
  return result.exit_code, result.stdout
end

--- Runs Python there, which prints what it should not have been able to do.
function M:python(code)
  self.box.files:write { path = "/tmp/attack.py", content = code }
  return self:run("python3 /tmp/attack.py")
end

--- Asks like a client that has nothing to do with the attack: how long that took.
local function ask_as_other(self)
  local began = lbox.now()
  assert.is_true(#lbox.Box.list(self.server:client()) >= 1)
  assert.are.equal("untouched", self.other.exec:command("cat mine").stdout)
  return lbox.now() - began
end

--- Does `fn` while others ask the server all the time; they must be answered in time.
function M:during(fn)
  local over, slowest, times = false, 0, 0
  local asking = lbox.spawn(function()
    repeat
      slowest, times = math.max(slowest, ask_as_other(self)), times + 1
      lbox.sleep(20)
    until over
  end)
  local results = table.pack(pcall(fn))
  over = true
  asking:await()
  if not results[1] then
    error(results[2], 0)
  end
  assert.is_true(slowest < ANSWER_MS, ("others waited %.0f ms"):format(slowest))
  assert.is_true(times > 0)
  return table.unpack(results, 2, results.n)
end

--- What has to hold after every attack: everybody is answered in time, nobody else's processes or files have
--- changed, the server's own are untouched, and the box that attacked can be used.
function M:check()
  local took = ask_as_other(self)
  assert.is_true(took < ANSWER_MS, ("others waited %.0f ms"):format(took))
  assert.are.equal("1\n", self.other.exec:command("cat /proc/[0-9]*/comm | grep -c '^sleep$'").stdout)
  assert.are.equal("mine\n", self.other.exec:command("ls -A").stdout)
  assert.are.equal(SECRET, support.sh("cat " .. self.secret))
  -- What the attack has brought on its box may come a moment later.
  lbox.timeout(3000, function()
    repeat
      local ok, result = pcall(self.box.exec.command, self.box.exec, "echo alive")
      lbox.sleep(10)
    until ok and result.stdout == "alive\n"
  end)
end

--- Ends everything: nothing is left of the box that attacked.
function M:stop()
  self.box:delete()
  local place = self.server.dir .. "/data/boxes"
  lbox.timeout(5000, function()
    while support.sh("ls -A " .. place) ~= self.other.id .. "\n" do
      lbox.sleep(20)
    end
  end)
  assert.are.equal("", (support.sh(("pgrep -f '[b]oxes/%s/root' || true"):format(self.box.id))))
  self.server:stop()
end

--- Whether something that the server keeps to itself is in a text.
function M:is_told(text)
  return text:find(SECRET, 1, true) ~= nil or text:find(self.server.key, 1, true) ~= nil
end

--- Every route there is: method, and the path with what `values` has for its parameters.
---@param values table<string, string>
---@param fn fun(method: string, path: string, parts: string[])
function M.each_route(values, fn)
  for _, route in ipairs(router.new()) do
    local parts = {}
    for i, part in ipairs(route.parts) do
      local name = part:match("^{(.+)}$")
      parts[i] = name and (values[name] or values.any) or part
    end
    fn(route.method, "/" .. table.concat(parts, "/"), route.parts)
  end
end

local DIGITS = {}
for byte = 0, 255 do
  DIGITS[string.char(byte)] = ("%02x"):format(byte)
end
local as_hex = {} -- the same bodies go to many endpoints

local function hex(bytes)
  as_hex[bytes] = as_hex[bytes] or (bytes:gsub(".", DIGITS))
  return as_hex[bytes]
end

local function unhex(text)
  return text == "-" and "" or (text:gsub("%x%x", function(c) return string.char(tonumber(c, 16)) end))
end

--- Sends requests as they are, one after another.
---@param requests { method: string, path: string, body: string|nil, type: string|nil }[]
---@return { status: integer, ms: integer, body: string }[]  status 0: no answer
function M:ask(requests)
  local list = self.server.dir .. "/requests"
  local file = assert(io.open(list, "w"))
  for _, each in ipairs(requests) do
    file:write(("%s\t%s\t%s\t%s\n"):format(each.method, each.path, each.type or "application/json",
      each.body and hex(each.body) or "-"))
  end
  file:close()
  local out = support.sh(("python3 spec/support/ask_many.py %s %s < %s"):format(self.server.url, self.server.key, list))
  local answers = {}
  for status, ms, body in out:gmatch("(%d+) (%d+) (%S+)\n") do
    answers[#answers + 1] = { status = tonumber(status), ms = tonumber(ms), body = unhex(body) }
  end
  assert.are.equal(#requests, #answers, out)
  return answers
end

return M
