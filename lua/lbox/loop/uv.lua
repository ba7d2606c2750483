--- Rides on libuv's loop: Neovim's own (`vim.loop`, `vim.uv`), or luv's in a plain Lua program. One poll
--- handle on the engine's descriptor is all it needs; it is active only while something is going on.
local async = require "lbox.async"

local M = {}

-- A host that waits looks at least this often whether what it waits for is done.
local LOOK_MS = 20
-- vim.wait wants an end; this is none.
local FOR_EVER_MS = 2 ^ 30

--- In Neovim a loop callback may not touch the editor: tasks run from vim.schedule.
local function neovim(uv)
  local host = {}
  function host.later(fn)
    vim.schedule(fn)
  end
  function host.wait(done)
    while not done() do
      vim.wait(FOR_EVER_MS, done, LOOK_MS, false)
    end
  end
  function host.on_exit(fn)
    vim.api.nvim_create_autocmd("VimLeavePre", { callback = fn })
  end
  function host.on_error(text)
    vim.notify("lbox: " .. text, vim.log.levels.ERROR)
  end
  host.uv = uv
  return host
end

local function plain(uv)
  local host = { uv = uv }
  function host.later(fn)
    fn()
  end
  function host.wait(done)
    while not done() do
      uv.run("once")
    end
  end
  function host.on_exit() end
  return host
end

--- Attaches to the loop.
---@param uv table|nil  luv; default: Neovim's, else require "luv"
function M.attach(uv)
  local vim = rawget(_G, "vim")
  uv = uv or (vim and (vim.uv or vim.loop)) or require "luv"
  local host = vim and neovim(uv) or plain(uv)

  local poll = assert(uv.new_poll(async.engine():pollfd()))
  local active, scheduled, stopped = false, false, false
  local start

  local function step()
    scheduled = false
    if stopped then
      return
    end
    -- Nothing but a string may leave a callback of the host, and nothing should.
    local ok, err = pcall(async.step, 0)
    if not ok and host.on_error then
      host.on_error(async.describe(err))
    end
    if not stopped and not async.idle() then
      start()
    end
  end

  -- The descriptor stays readable until a step was made: polling rests until then.
  local function on_readable()
    poll:stop()
    active = false
    if not scheduled then
      scheduled = true
      host.later(step)
    end
  end

  function start()
    if not active and not scheduled then
      active = true
      poll:start("r", on_readable)
    end
  end

  local driver = { touch = start }

  function driver.wait(done)
    start()
    host.wait(done)
  end

  function driver.stop()
    if not stopped then
      stopped = true
      poll:stop()
      poll:close()
    end
  end

  async.attach(driver)
  if host.on_error then
    async.on_error(host.on_error)
  end
  host.on_exit(function()
    async.close(0)
  end)
end

return M
