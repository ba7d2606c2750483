--- How a server ends: no new clients, time for what is being answered, and an honest word for what takes longer.
local async = require "lbox.async"
local posix = require "lbox.server.posix"
local run_webhooks = require "lbox.server.run_webhooks"

local M = {}

-- For what is being answered and for runs, and then for what is stopped to say so.
local GRACE_MS, LAST_MS = 10000, 3000
local LOOK_MS = 20
local STOPPED = "the server stopped"

--- Counts signals: the first says that the server is to end (`server.stop`), the second at once (`server.hurry`).
---@param server table  scope, stop, hurry
---@param fd integer    of posix.signals
function M.on_signals(server, fd)
  server.scope:spawn(function()
    local watched = async.fd(fd)
    for _, op in ipairs { server.stop, server.hurry } do
      watched:wait("r")
      posix.read(fd, 128)
      op:resolve()
    end
  end)
end

local function open_requests(server)
  local count = 0
  for _, each in ipairs(server.listeners) do
    count = count + select(2, each:connections())
  end
  return count
end

local function each_run(server, fn)
  for _, live in pairs(server.boxes.live) do
    for _, run in pairs(live.runs or {}) do
      fn(run)
    end
  end
end

local function has_runs(server)
  local any = false
  each_run(server, function() any = true end)
  return any
end

--- Waits while `busy()`, at most `ms`.
local function wait_while(busy, ms)
  local give_up_at = async.now() + ms
  while busy() and async.now() < give_up_at do
    async.sleep(LOOK_MS)
  end
end

--- Ends what a server does for its clients. What is asked from here on is refused.
---@param server table
function M.run(server)
  server.stopping = true
  local st = posix.lstat(server.data.socket)
  if st and st.id == server.socket_id then
    posix.unlink(server.data.socket)
  end
  for _, each in ipairs(server.listeners) do
    each:quiesce()
  end
  local function busy()
    return open_requests(server) > 0 or has_runs(server)
  end
  wait_while(function() return busy() and not server.hurry.settled end, GRACE_MS)
  each_run(server, function(run) run:abandon(STOPPED) end)
  -- A webhook that cannot be told by then is told at the next start.
  wait_while(function() return busy() or run_webhooks.busy(server) end, LAST_MS)
  server.stopped = true
  for _, each in ipairs(server.listeners) do
    each:stop()
  end
  server.boxes:close()
end

return M
