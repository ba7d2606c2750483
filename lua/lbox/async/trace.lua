--- Where in the user's code something happened, and tracebacks that follow an error through tasks.
local errors = require "lbox.errors"

local M = {}

-- Sources of our own modules: "@…/lua/lbox/" from files, "=lbox." when they are embedded.
local OWN = debug.getinfo(1, "S").source:gsub("async[/.]trace[%w.]*$", "")

-- Error objects that travel through very many tasks do not grow without end.
local MAX_PARTS = 12

local function is_users(info)
  return info.currentline > 0 and info.source:sub(1, #OWN) ~= OWN
end

--- The nearest line outside of lbox in the running coroutine, as "file:line".
---@param level integer  1 is the caller of this function
---@return string
function M.user_line(level)
  level = level + 1
  local info = debug.getinfo(level, "Sl")
  while info and not is_users(info) do
    level = level + 1
    info = debug.getinfo(level, "Sl")
  end
  return info and info.short_src .. ":" .. info.currentline or "?"
end

--- The same in a coroutine that stands still.
---@return string
function M.line_of(co)
  local level = 0
  local info = debug.getinfo(co, level, "Sl")
  while info and not is_users(info) do
    level = level + 1
    info = debug.getinfo(co, level, "Sl")
  end
  return info and info.short_src .. ":" .. info.currentline or "?"
end

-- The machinery of tasks is on every stack and tells a user nothing.
local function clean(text)
  local lines = {}
  for line in text:gsub("^\n", ""):gmatch("[^\n]+") do
    local ours = line:find("lbox[/.]async[/.]") or line:find("lbox[/.]cli[/.]main")
      or line:find("[C]: in function 'xpcall'", 1, true) or line:find("(...tail calls...)", 1, true)
    if not ours then
      lines[#lines + 1] = line
    end
  end
  return #lines > 1 and table.concat(lines, "\n") or (text:gsub("^\n", ""))
end

--- Traceback of a coroutine that stands still.
function M.of(co)
  return clean(debug.traceback(co, ""))
end

-- What is known of an error: { text, parts }. Error objects carry the text themselves.
local known = setmetatable({}, { __mode = "k" })
-- The coroutine where it was last seen, which may go before it.
local seen_in = setmetatable({}, { __mode = "kv" })
-- Strings cannot be keys of a weak table: only of the last one the traceback is known.
local last_string, last_known

local function find(err)
  if type(err) == "table" then
    return known[err]
  elseif last_known and err == last_string then
    return last_known
  end
end

--- Message handler of every task: notes where the error was raised, and for one that comes up
--- through several tasks the places where it was awaited. Returns the error unchanged.
function M.note(err)
  if errors.is(err, "cancelled") then
    return err -- one object for very many waits, and not news to anybody
  end
  local co = coroutine.running()
  local seen = find(err)
  if not seen then
    seen = { parts = 1, text = clean(debug.traceback("", 2)) }
    seen_in[seen] = co
    if type(err) == "table" then
      known[err] = seen
    else
      last_string, last_known = err, seen
    end
  elseif seen_in[seen] ~= co and seen.parts < MAX_PARTS then
    local place = clean(debug.traceback("", 2))
    seen_in[seen], seen.parts = co, seen.parts + 1
    if place:find("\n\t[^%[]") then -- not only C: somebody's code awaits it
      seen.text = seen.text .. "\nawaited by:\n" .. place
    end
  end
  if errors.is(err) then
    err.traceback = seen.text
  end
  return err
end

--- The traceback of an error, as far as it is known.
---@return string|nil
function M.traceback(err)
  if errors.is(err) and err.traceback then
    return err.traceback
  end
  local seen = find(err)
  return seen and seen.text
end

--- An error as text with its traceback, for a host that takes nothing else.
---@return string
function M.describe(err)
  local mt = getmetatable(err)
  local printable = type(err) == "string" or type(err) == "number"
    or (type(mt) == "table" and mt.__tostring ~= nil)
  local ok, text = pcall(tostring, err)
  if not (printable and ok and type(text) == "string") then
    text = ("(error object is a %s value)"):format(type(err))
  end
  local traceback = M.traceback(err)
  return traceback and text .. "\n" .. traceback or text
end

return M
