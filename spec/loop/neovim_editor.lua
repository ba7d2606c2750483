-- Runs inside Neovim, driven by neovim_spec.lua: SPEC_MODE names what to do, SPEC_OUT where to tell
-- of it.
local uv = vim.uv or vim.loop

local function tell(...)
  local file = assert(io.open(os.getenv("SPEC_OUT"), "a"))
  file:write(table.concat({ ... }, " "), "\n")
  file:close()
end

rawset(vim, "notify", function(text, level)
  tell("notify", type(text), tostring(level), (tostring(text):gsub("\n.*", "")))
end)

local async = require "lbox.async"

local ticks = 0
local timer = uv.new_timer()
timer:start(5, 5, function() ticks = ticks + 1 end)

local function tell_ticks()
  tell("the editor's timer went on", tostring(ticks >= 2))
  timer:stop()
  timer:close()
end

local function quit()
  vim.cmd "qall!"
end

-- Busy until the editor's timer came `n` more times.
local function busy(n)
  local stop_at = async.now() + 5000
  local goal = ticks + n
  while ticks < goal and async.now() < stop_at do
    async.checkpoint()
  end
  tell(ticks >= goal and "let in" or "never let in")
end

local modes = {}

function modes.tasks()
  async.spawn(function()
    tell("fast", tostring(vim.in_fast_event()))
    async.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, function() busy(3) end)
    vim.api.nvim_buf_set_lines(0, 0, -1, false, { "written by a task" })
    tell(vim.api.nvim_get_current_line())
    tell_ticks()
    quit()
  end)
end

function modes.sync()
  local started = async.now()
  async.sleep(60)
  busy(5)
  tell("slept", tostring(async.now() - started >= 60))
  tell(select(2, pcall(async.timeout, 5, async.sleep, 5000)).kind)
  tell((string.gsub("ab", "%w", function(c)
    async.sleep(2)
    return c:upper()
  end)))
  tell(async.run(function()
    return (string.gsub("cd", "%w", function(c)
      async.sleep(2)
      return c:upper()
    end))
  end))
  tell_ticks()
  quit()
end

function modes.nested()
  async.spawn(function()
    local results = async.map({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, function(i)
      return (string.gsub("x", "x", function()
        async.sleep(60 - i)
        return "<" .. i .. ">"
      end))
    end)
    tell(table.concat(results))
    tell_ticks()
    quit()
  end)
end

function modes.error()
  async.spawn(function()
    async.sleep(5)
    error "plain trouble"
  end)
  async.spawn(function()
    async.sleep(5)
    error { "a table" }
  end)
  async.defer(function() error "in a callback" end)
  vim.defer_fn(function()
    tell "alive"
    quit()
  end, 100)
end

function modes.fast()
  local once = uv.new_timer()
  once:start(1, 0, function()
    once:close()
    local ok, err = pcall(async.sleep, 5)
    tell(tostring(ok), err.kind, err.message)
    async.spawn(function()
      async.sleep(2)
      tell("a task started there runs", tostring(vim.in_fast_event()))
      quit()
    end)
  end)
end

function modes.quit()
  local left = 5
  for _ = 1, left do
    async.spawn(function()
      async.on_close(function() tell "closed" end)
      left = left - 1
      if left == 0 then
        vim.schedule(quit)
      end
      local ok, err = pcall(async.sleep, 60000)
      tell("woken", tostring(ok), err.kind)
      async.sleep(60000)
    end)
  end
end

function modes.quit_in_task()
  async.spawn(function()
    async.on_close(function() tell "closed" end)
    async.sleep(60000)
  end)
  async.spawn(function()
    async.sleep(1)
    quit()
    tell "not reached"
  end)
end

-- Quitting while a call outside of tasks blocks.
function modes.quit_in_wait()
  vim.defer_fn(quit, 20)
  async.sleep(60000)
end

function modes.again()
  async.sleep(1)
  async.close()
  async.sleep(1)
  async.spawn(function()
    async.sleep(5)
    tell "again"
    quit()
  end)
end

modes[os.getenv("SPEC_MODE")]()
