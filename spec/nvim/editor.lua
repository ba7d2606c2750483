-- Runs inside Neovim: reads a fast stream while a 5 ms timer ticks, and writes what it saw to a file.
-- Arguments by environment: SPEC_MODE, SPEC_URL, SPEC_OUT.
local uv = vim.loop
local mode, url, out = os.getenv("SPEC_MODE"), os.getenv("SPEC_URL"), os.getenv("SPEC_OUT")

local function report(line)
  local file = assert(io.open(out, "a"))
  file:write(line, "\n")
  file:close()
end

local notify = vim.notify
vim.notify = function(message, level)
  report("notify " .. type(message) .. " " .. tostring(level) .. " "
    .. tostring(message):gsub("\n.*", ""))
  return notify(message, level)
end

local lbox = require "lbox"
local connection = { base_url = url, api_key = "box_spec" }

local function stream()
  return lbox.Box.get("replay", connection).agent:stream { prompt = "go" }
end

local modes = {}

-- The longest time between two ticks of an editor timer while streams of 200,000 events are read, one
-- after another, so that there are ticks enough.
function modes.smooth()
  local worst, last, ticks = 0, nil, 0
  local timer = uv.new_timer()
  timer:start(0, 5, function()
    local now = uv.hrtime() / 1e6
    if last then
      worst = math.max(worst, now - last)
    end
    last, ticks = now, ticks + 1
  end)
  lbox.spawn(function()
    local events = 0
    for _ = 1, 10 do
      for chunk in stream():chunks() do
        if chunk.type == "text-delta" then
          events = events + 1
        end
      end
    end
    timer:stop()
    report(("events %d worst %.1f ticks %d"):format(events, worst, ticks))
    vim.cmd("qall!")
  end)
end

-- The same call outside a task: it blocks with vim.wait and gives the same answer.
function modes.sync()
  local events = 0
  for chunk in stream():chunks() do
    if chunk.type == "text-delta" then
      events = events + 1
    end
  end
  report("events " .. events)
  vim.cmd("qall!")
end

-- An error in a task is shown, and the editor lives on.
function modes.error()
  lbox.spawn(function()
    lbox.sleep(10)
    lbox.Box.create { name = 5, base_url = url, api_key = "box_spec" }
  end)
  lbox.spawn(function()
    lbox.sleep(10)
    error("plain trouble")
  end)
  vim.defer_fn(function()
    report("alive")
    vim.cmd("qall!")
  end, 300)
end

-- Leaving in the middle of a stream.
function modes.quit()
  lbox.spawn(function()
    local n = 0
    for _ in stream():chunks() do
      n = n + 1
      if n == 1000 then
        report("quitting")
        vim.cmd("qall!")
      end
    end
    report("read to the end")
  end)
end

modes[mode]()
