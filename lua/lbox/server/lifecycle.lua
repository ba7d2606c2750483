--- What happens to boxes by itself: the init command at every start, a pause when they are idle, their end
--- when it was set at their beginning.
local async = require "lbox.async"
local errors = require "lbox.errors"

local M = {}

local WORKSPACE = "/workspace/home"
local LOOK_MS = 1000
-- After a deletion that failed.
local RETRY_S = 60
local STDERR_KEPT = 1024

--- How the init command ended, in words; nil when there is nothing to say.
local function run_init_command(boxes, row, box)
  local process = box:spawn { argv = { "sh", "-c", row.config.init_command }, cwd = WORKSPACE,
    env = boxes.environment(row) }
  local stderr = ""
  for name, bytes in process.read, process do
    if name == "stderr" then
      stderr = (stderr .. bytes):sub(-STDERR_KEPT)
    end
  end
  local result = process.result
  if result.exit_code == 0 or result.stopped then
    return nil
  elseif result.not_started then
    return process:refusal()
  end
  local last = stderr:match("([^\n]+)%s*$")
  return ("exit code %d%s"):format(result.exit_code, last and ": " .. last or "")
end

--- A sandbox of the box has started: its init command begins, in the background.
---@param boxes lbox.server.Boxes
---@param row table
---@param box lbox.server.Sandbox
function M.started(boxes, row, box)
  if not row.config.init_command then
    return
  end
  boxes.server.scope:spawn(function()
    local ok, why = pcall(run_init_command, boxes, row, box)
    if why and not box.closed then
      why = not ok and errors.is(why) and why.message or tostring(why)
      boxes.server.log(("the init command of the box %s: %s"):format(row.id, why))
      boxes.server.logs:add(row.id, "error", "the init command: " .. why)
    end
  end)
end

local function is_idle(live, since)
  return live.active == 0 and not live.held and live.sandbox and not live.sandbox.closed and live.used_at <= since
end

--- Work is what came by way of the API or of a public URL: what runs on in the background does not keep a
--- box.
local function pause_idle(server, idle_ms)
  local boxes = server.boxes
  for id, live in pairs(boxes.live) do
    local row = is_idle(live, async.now() - idle_ms) and server.store:box(id)
    if row and server.public_urls:in_use(id) then
      live.used_at = async.now()
    elseif row and not row.config.keep_alive then
      server.scope:spawn(function()
        local ok, err = pcall(boxes.pause, boxes, row, true)
        if ok then
          server.log(("the box %s was idle and is paused"):format(id))
        elseif not live.deleting then
          server.log(("the box %s cannot be paused: %s"):format(id, tostring(err)))
        end
      end)
    end
  end
end

local function end_expired(server)
  local boxes, now = server.boxes, os.time()
  for id, expires_at in pairs(boxes.expiring) do
    if expires_at <= now then
      boxes.expiring[id] = now + RETRY_S
      server.scope:spawn(function()
        local row = server.store:box(id)
        local ok, err = true, nil
        if row then
          ok, err = pcall(boxes.delete, boxes, row)
        end
        server.log(ok and ("the box %s has expired and is deleted"):format(id)
          or ("the box %s has expired and cannot be deleted: %s"):format(id, tostring(err)))
      end)
    end
  end
end

--- Looks after the boxes from now on.
---@param server table
---@param idle_s number  after how long a box is paused in which nothing is done; 0: never
function M.watch(server, idle_s)
  server.scope:spawn(function()
    while true do
      end_expired(server)
      if idle_s > 0 then
        pause_idle(server, idle_s * 1000)
      end
      async.sleep(LOOK_MS)
    end
  end)
end

return M
