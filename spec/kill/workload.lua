-- What clients do until the server is killed: each has boxes of its own and does one thing after the other, by lot.
-- What it asks for is in the ledger.
local content = require "spec.kill.content"
local ledger = require "spec.kill.ledger"
local lbox = require "lbox"

local ABSENT = ledger.ABSENT
local BOXES_EACH, SNAPSHOTS_EACH = 2, 2
local STOPPED = "failed: the server stopped"
local AGENT = { harness = "custom", custom_harness = { command = "sh", args = { "-c", [[
  printf 'event: text\ndata: {"text":"a"}\n\n'
  sleep 0.0$(($$ % 10))
  printf 'event: done\ndata: {"output":"b"}\n\n']] } } }
local MANY = [[[ -d many ] && exit
  rm -rf ../new; mkdir ../new; cd ../new; seq %d | xargs touch; mv ../new ../home/many]]

local M = {}
M.__index = M

-- Files of a directory that takes its time.
M.MANY = 2000

--- A client of `server`, the `number`th, that draws lots with `random`.
function M.new(server, book, number, random)
  return setmetatable({ server = server, book = book, number = number, random = random, count = 0 }, M)
end

--- A word that is used once.
local function fresh(self)
  self.server.words = (self.server.words or 0) + 1
  return tostring(self.server.words)
end

local function pick(self, list)
  return #list > 0 and list[self.random(#list)] or nil
end

--- Names of the client's boxes that can be used.
local function boxes(self)
  local usable = {}
  for _, name in ipairs(self.book:names(("box %d-"):format(self.number))) do
    if self.book:value(name) == "there" then
      usable[#usable + 1] = name:sub(#"box " + 1)
    end
  end
  return usable
end

--- What depends on a box, as it is without it.
local function without(self, box)
  local outcome = { ["box " .. box] = ABSENT }
  for _, kind in ipairs { "file", "label", "schedule", "init", "url", "run", "model", "expiry" } do
    for _, name in ipairs(self.book:names(kind .. " " .. box .. "/")) do
      outcome[name] = ABSENT
    end
  end
  return outcome
end

local function files(self, box)
  return self.book:names("file " .. box .. "/")
end

--- One of the files, but none of the directories that count as such.
local function some_file(self, box)
  local list = {}
  for _, name in ipairs(files(self, box)) do
    if self.book:value(name):find(":", 1, true) then
      list[#list + 1] = name
    end
  end
  return pick(self, list)
end

--- A path in a box; some are in use, some in a directory.
local function some_path(self)
  return pick(self, { "a", "b", "c", "dir/d", "dir/e" })
end

local function new_content(self)
  return ("%s:%d"):format(fresh(self), self.random(8) == 1 and 2000000 or self.random(3000))
end

local ops = {}

function ops.create(self)
  local name = ("%d-%s"):format(self.number, fresh(self))
  self.book:change({ ["box " .. name] = "there" }, function()
    lbox.Box.create(self.server:client { name = name, agent = AGENT })
  end)
end

function ops.create_ephemeral(self)
  local name = ("%d-%s"):format(self.number, fresh(self))
  local ttl = 86400 + self.random(1000)
  self.book:change({ ["box " .. name] = "there", ["expiry " .. name .. "/ttl"] = tostring(ttl) }, function()
    lbox.EphemeralBox.create(self.server:client { name = name, ttl = ttl })
  end)
end

function ops.delete(self, box, name)
  self.book:change(without(self, name), function() box:delete() end)
end

function ops.pause(self, box)
  box:pause()
  if self.random(2) == 1 then
    box:resume()
  end
end

function ops.write(self, box, name)
  local path, what = some_path(self), new_content(self)
  self.book:change({ ["file " .. name .. "/" .. path] = what }, function()
    box.files:write { path = path, content = content.of(what) }
  end)
end

function ops.upload(self, box, name)
  local list, outcome, first = {}, {}, nil
  for i, path in ipairs { "up1", "dir/up2" } do
    local what, place = new_content(self), self.server.dir .. "/upload" .. fresh(self)
    local file = assert(io.open(place, "wb"))
    file:write(content.of(what))
    file:close()
    list[i] = { path = place, destination = path }
    outcome["file " .. name .. "/" .. path] = what
    first = first or { ["file " .. name .. "/" .. path] = what }
  end
  local second = "file " .. name .. "/dir/up2"
  first[second] = self.book:value(second)
  self.book:change(outcome, function() box.files:upload(list) end, { first })
end

function ops.rename(self, box, name)
  local from = some_file(self, name)
  if from then
    local to = "to" .. self.random(3)
    local target = "file " .. name .. "/" .. to
    if target ~= from then
      self.book:change({ [from] = ABSENT, [target] = self.book:value(from) }, function()
        box.files:rename(from:match("/(.*)"), to)
      end)
    end
  end
end

function ops.remove(self, box, name)
  local path = some_file(self, name)
  if path then
    self.book:change({ [path] = ABSENT }, function() box.files:remove(path:match("/(.*)")) end)
  end
end

--- Runs something that is recorded as a run; `fn` gets a word for its prompt.
local function run(self, name, fn)
  local word = "kill-" .. fresh(self)
  local key = "run " .. name .. "/" .. word
  self.book:change({ [key] = "completed" }, function() fn(word) end, { { [key] = STOPPED } })
end

function ops.command(self, box, name)
  run(self, name, function(word) box.exec:command(": " .. word) end)
end

function ops.long_command(self, box, name)
  run(self, name, function(word) box.exec:command(": " .. word .. "; sleep 30") end)
end

function ops.background(self, box, name)
  run(self, name, function(word)
    box.exec:command(": " .. word .. "; (setsid sleep 300 >/dev/null 2>&1 &) ; sleep 300 >/dev/null 2>&1 &")
  end)
end

function ops.agent(self, box, name)
  run(self, name, function(word) box.agent:run { prompt = word } end)
end

function ops.label(self, box, name)
  local label = "l" .. self.random(3)
  local key = "label " .. name .. "/" .. label
  if self.book:value(key) == ABSENT then
    self.book:change({ [key] = "there" }, function() box.labels:add(label) end)
  else
    self.book:change({ [key] = ABSENT }, function() box.labels:remove(label) end)
  end
end

function ops.model(self, box, name)
  local model = "m" .. fresh(self)
  self.book:change({ ["model " .. name .. "/"] = model }, function() box:configure_model(model) end)
end

function ops.init(self, box, name)
  local command = "true " .. fresh(self)
  self.book:change({ ["init " .. name .. "/"] = command }, function() box:set_init_command(command) end)
end

function ops.schedule(self, box, name)
  local there = self.book:names("schedule " .. name .. "/")
  local key = there[1]
  if #there < 2 then
    local word = "s" .. fresh(self)
    self.book:change({ ["schedule " .. name .. "/" .. word] = "1 2 3 4 *" }, function()
      box.schedule:exec { cron = "1 2 3 4 *", command = ": " .. word }
    end)
    return
  end
  local id
  for _, each in ipairs(box.schedule:list()) do
    if each.command[3] == ": " .. key:match("/(.*)") then
      id = each.id
    end
  end
  if self.random(2) == 1 then
    self.book:change({ [key] = ABSENT }, function() box.schedule:delete(id) end)
  else
    local cron = ("%d 2 3 4 *"):format(self.random(59))
    self.book:change({ [key] = cron }, function() box.schedule:update(id, { cron = cron }) end)
  end
end

function ops.url(self, box, name)
  local port = 3000 + self.random(2)
  local key = ("url %s/%d"):format(name, port)
  if self.book:value(key) == ABSENT then
    self.book:change({ [key] = "there" }, function() box:get_public_url(port) end)
  else
    self.book:change({ [key] = ABSENT }, function() box:delete_public_url(port) end)
  end
end

function ops.commit(self, box, name)
  local word = "commit" .. fresh(self)
  box.exec:command("mkdir -p git; cd git; rm -f .git/*.lock .git/refs/heads/*.lock; "
    .. "git init -q; echo " .. word .. " > file")
  box:cd("git")
  self.book:change({ ["file " .. name .. "/git"] = word }, function() box.git:commit { message = word } end)
end

--- A directory that takes its time to copy and to remove.
function ops.many(self, box, name)
  self.book:change({ ["file " .. name .. "/many"] = M.MANY .. " files" }, function()
    box.exec:command(MANY:format(M.MANY))
  end)
end

function ops.environment(self)
  local name = ("KILL_%d_%d"):format(self.number, self.random(3))
  if self.random(3) == 1 and self.book:value("env " .. name) ~= ABSENT then
    self.book:change({ ["env " .. name] = ABSENT }, function() lbox.Box.delete_env(name, self.server:client()) end)
  else
    local value = fresh(self)
    self.book:change({ ["env " .. name] = value }, function()
      lbox.Box.set_env(name, value, self.server:client())
    end)
  end
end

--- All files of a box as one value.
function M.tree(names_and_values)
  table.sort(names_and_values)
  return table.concat(names_and_values, ";")
end

local function tree_of(self, box)
  local list = {}
  for i, name in ipairs(files(self, box)) do
    list[i] = name:match("/(.*)") .. "=" .. self.book:value(name)
  end
  return "ready " .. M.tree(list)
end

function ops.snapshot(self, box, name)
  local there = self.book:names(("snapshot %d-"):format(self.number))
  if #there >= SNAPSHOTS_EACH then
    local key = pick(self, there)
    local word = key:sub(#"snapshot " + 1)
    return self.book:change({ [key] = ABSENT }, function()
      lbox.Box.delete_snapshots(self.server:client { snapshot_ids = self.server:snapshot(word) })
    end)
  end
  local word = ("%d-%s"):format(self.number, fresh(self))
  local key = "snapshot " .. word
  self.book:change({ [key] = tree_of(self, name) }, function() box:snapshot { name = word } end,
    { { [key] = "error" } })
end

function ops.restore(self, box)
  local snapshot = pick(self, box:list_snapshots())
  if not snapshot or snapshot.status ~= "ready" then
    return
  end
  local name = ("%d-%s"):format(self.number, fresh(self))
  local outcome, failed = { ["box " .. name] = "there" }, { ["box " .. name] = "error" }
  for path, what in self.book:value("snapshot " .. snapshot.name):gmatch("([^ ;]+)=([^;]+)") do
    outcome["file " .. name .. "/" .. path] = what
    failed["file " .. name .. "/" .. path] = ABSENT
  end
  self.book:change(outcome, function()
    lbox.Box.from_snapshot(snapshot.id, self.server:client { name = name, agent = AGENT })
  end, { failed })
end

-- What an ephemeral box can do of it.
local EPHEMERAL = { write = true, upload = true, rename = true, remove = true, command = true, long_command = true,
  background = true, environment = true, delete = true }

-- How often each is drawn.
local LOTS = { write = 6, upload = 3, rename = 4, remove = 2, command = 4, long_command = 1, background = 1, agent = 3,
  label = 2, model = 1, init = 1, schedule = 3, url = 2, commit = 2, many = 2, environment = 2, snapshot = 4,
  restore = 2, pause = 1, delete = 1 }

local function lots()
  local list = {}
  for name, n in pairs(LOTS) do
    for _ = 1, n do
      list[#list + 1] = name
    end
  end
  table.sort(list)
  return list
end

--- Deletes what a restart left of a box that was being made.
local function clean(self)
  for _, key in ipairs(self.book:names(("box %d-"):format(self.number))) do
    if self.book:value(key) == "error" then
      local name = key:sub(#"box " + 1)
      ops.delete(self, lbox.Box.get_by_name(name, self.server:client()), name)
    end
  end
end

--- Does one thing after the other, until it is cancelled or something is refused.
function M:go_on()
  local list = lots()
  clean(self)
  while true do
    local own = boxes(self)
    local name = pick(self, own)
    local op = #own == 0 and "create" or pick(self, list)
    if op == "restore" or op == "delete" then
      op = #own <= BOXES_EACH and op or "delete"
      if #own == 1 and op == "delete" then
        op = self.random(3) == 1 and "create_ephemeral" or "create"
      end
    end
    if name and self.book:value("expiry " .. name .. "/ttl") ~= ABSENT and not EPHEMERAL[op] then
      op = op:find("^create") and op or "command"
    end
    self.count = self.count + 1
    self.doing = op
    ops[op](self, name and lbox.Box.get_by_name(name, self.server:client()), name)
  end
end

return M
