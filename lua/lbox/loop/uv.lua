--- Rides on libuv's loop: Neovim's own (`vim.uv`, `vim.loop`), or luv's in a plain Lua program. One
--- poll handle on the engine's descriptor is all it needs; it is active only while something is
--- going on.
local async = require "lbox.async"
local errors = require "lbox.errors"

local M = {}

-- vim.wait looks at least this often whether what it waits for is there; it also does after each
-- event.
local LOOK_MS = 20
-- When the editor ends, runs are cancelled at the server and boxes deleted; it waits for that so long.
local EXIT_MS = 2000
-- vim.wait wants an end.
local LONG_MS = 2 ^ 30

--- In Neovim a loop callback may not touch the editor: tasks run from vim.schedule.
local function neovim(vim)
  local host = { later = vim.schedule }

  local function check()
    if vim.in_fast_event() then
      errors.raise("usage",
        "a callback of the event loop cannot wait: call it from vim.schedule or a task")
    end
  end

  function host.wait(done)
    check()
    while not done() do
      local _, why = vim.wait(LONG_MS, done, LOOK_MS, false)
      if why == -2 then
        errors.raise("cancelled", "interrupted")
      end
    end
  end

  -- Twice: the first look may be at what was scheduled only, and not at the descriptors.
  function host.breathe()
    if not vim.in_fast_event() then
      vim.wait(0)
      vim.wait(0)
    end
  end

  function host.on_exit(fn)
    if vim.in_fast_event() then
      vim.schedule(function() host.on_exit(fn) end)
      return
    end
    local group = vim.api.nvim_create_augroup("lbox_loop", { clear = true })
    vim.api.nvim_create_autocmd("VimLeavePre", { group = group, callback = fn })
  end

  function host.report(text)
    vim.notify("lbox: " .. text, vim.log.levels.ERROR)
  end

  return host
end

local function plain(uv)
  local host = {}

  function host.later(fn)
    fn()
  end

  -- Inside a callback libuv cannot be run again: there the loop of lbox is turned alone.
  local function runnable()
    return not (uv.loop_mode and uv.loop_mode())
  end

  function host.wait(done)
    while runnable() and not done() do
      uv.run("once")
    end
  end

  function host.breathe()
    if runnable() then
      uv.run("nowait")
    else
      async.step(0)
    end
  end

  return host
end

--- Attaches to the loop.
---@param uv table|nil  luv; default: Neovim's, else require "luv"
function M.attach(uv)
  local vim = rawget(_G, "vim")
  if type(vim) ~= "table" or not vim.schedule then
    vim = nil
  end
  uv = uv or (vim and (vim.uv or vim.loop)) or require "luv"
  local host = vim and neovim(vim) or plain(uv)

  local poll = assert(uv.new_poll(async.engine():pollfd()))
  local active, scheduled, stopped = false, false, false
  local on_readable

  local function start()
    if not (active or scheduled or stopped) then
      active = true
      poll:start("r", on_readable)
    end
  end

  -- An idle handle must not keep the host's loop alive.
  local function settle()
    if stopped then
      return
    elseif not async.idle() then
      start()
    elseif active then
      poll:stop()
      active = false
    end
  end

  -- Nothing but a string may leave a callback of the host, and nothing does.
  local function step()
    scheduled = false
    if stopped then
      return
    end
    local ok, err = pcall(async.step, 0)
    if not ok then
      (host.report or print)(async.describe(err))
    end
    settle()
  end

  -- The descriptor stays readable until a step was made: polling rests until then.
  function on_readable()
    poll:stop()
    active = false
    if not scheduled then
      scheduled = true
      host.later(step)
    end
  end

  async.attach {
    touch = start,
    breathe = host.breathe,
    wait = function(done)
      start()
      host.wait(done)
      settle()
    end,
    stop = function()
      if not stopped then
        stopped = true
        poll:stop()
        poll:close()
      end
    end,
  }
  if host.report then
    async.on_error(host.report)
  end
  if host.on_exit then
    host.on_exit(function()
      async.shut_down(EXIT_MS)
    end)
  end
  settle()
end

return M
