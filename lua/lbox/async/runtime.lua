--- The one runtime of a Lua state: its loop, its root scope, and who is running. Made on first use,
--- and anew after it was closed.
local Loop = require "lbox.async.loop"
local Scope = require "lbox.async.scope"
local trace = require "lbox.async.trace"

---@class lbox.async.Runtime
---@field loop lbox.async.Loop|false
---@field root lbox.async.Node|false  scope of everything started outside tasks
---@field strand table|false  who runs now: a task, or what stands for the code outside tasks
---@field guests table  strands of user coroutines that entered a scope of their own, by coroutine
---@field nested string[]  where calls wait that turn the loop on the spot, outermost first
---@field live integer  tasks that have not ended
---@field on_error fun(text: string)|false  hears of errors nobody takes
local rt = {
  loop = false, root = false, strand = false, guests = false, nested = {}, live = 0,
  on_error = false,
}

-- As a string: nothing else may leave a host's callback.
local function tell(text, prefix)
  local ok = rt.on_error and pcall(rt.on_error, text)
  if not ok then
    io.stderr:write("lbox: ", prefix, text, "\n")
  end
end

--- Hands an error nobody takes to the host.
function rt.report(err)
  tell(trace.describe(err), "error in a task: ")
end

--- Tells the host what nobody would learn of otherwise, since another error is raised.
---@param text string
function rt.warn(text)
  tell(text, "")
end

-- In Neovim the editor's loop is taken by itself.
local function attach_host()
  local vim = rawget(_G, "vim")
  if type(vim) == "table" and vim.schedule and (vim.uv or vim.loop) then
    require("lbox.loop.uv").attach()
  end
end

--- A strand that is no task: in `scope`, at home in the coroutine `co` (nil: the main one).
function rt.new_strand(scope, co)
  return {
    scope = scope, co = co, waiting = false, is_task = false, loop = rt.loop, slice_at = false,
  }
end

--- Makes the runtime if there is none. Returns the strand of the code outside tasks.
function rt.open()
  if not rt.loop then
    local loop = Loop.new()
    rt.loop = loop
    local outside = rt.new_strand(false, nil)
    local root = Scope.new(nil, outside, "report")
    outside.scope = root
    loop.report = rt.report
    rt.root, rt.strand, rt.live, rt.nested = root, outside, 0, {}
    rt.guests = setmetatable({}, { __mode = "k" })
    attach_host()
  end
  return rt.strand
end

--- The loop, made if there is none.
---@return lbox.async.Loop
function rt.get_loop()
  if not rt.loop then
    rt.open()
  end
  return rt.loop
end

--- Forgets the runtime; its tasks never run again.
function rt.drop()
  local loop = rt.loop
  rt.loop, rt.root, rt.strand, rt.guests, rt.nested, rt.live = false, false, false, false, {}, 0
  if loop then
    local driver = loop.driver
    loop.driver = nil
    if driver then
      driver.stop()
    end
    loop:close()
  end
end

return rt
