-- Breaks one rule of doc/concurrency.md after the other in a copy of lua/, and expects the spec that names
-- the rule to fail. Arguments: the lua to use, and numbers of rules (default: all). Prints a line for
-- each, and exits with the number of rules whose loss nobody noticed.
local rules = require "spec.mutate.rules"

local lua = table.remove(arg, 1)
local wanted = {}
for _, number in ipairs(arg) do
  wanted[tonumber(number)] = true
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

--- `text` with the one place where it says `find` saying `replace`.
local function changed(text, find, replace, path)
  local at, stop = text:find(find, 1, true)
  assert(at, ("%s does not say %q any more"):format(path, find))
  assert(not text:find(find, stop + 1, true), ("%s says %q more than once"):format(path, find))
  return text:sub(1, at - 1) .. replace .. text:sub(stop + 1)
end

local pipe = assert(io.popen("mktemp -d"))
local dir = pipe:read("l")
pipe:close()
local log = dir .. "/log"

local function copy()
  assert(os.execute(("rm -rf %s/lua && cp -r lua %s/lua"):format(dir, dir)))
end

--- Whether the specs whose names match `filter` pass with the copy.
local function holds(filter)
  return (os.execute(("LUA_PATH='%s/lua/?.lua;%s/lua/?/init.lua;./?.lua;;' timeout 15 %s /usr/bin/busted "
    .. "--no-auto-insulate -o plainTerminal --filter='%s' spec/async/rules_spec.lua spec/rules_spec.lua >%s 2>&1")
    :format(dir, dir, lua, filter, log)))
end

copy()
assert(holds("^rule"), "the rules do not hold as they are: " .. read(log))

local noticed, unnoticed = 0, 0
for number, rule in ipairs(rules) do
  if not next(wanted) or wanted[number] then
    copy()
    local path = dir .. "/lua/lbox/" .. rule.file
    write(path, changed(read(path), rule.find, rule.replace, rule.file))
    local broken = not holds(("^rule %d:"):format(number))
    print(("rule %2d  %s"):format(number, broken and "its loss is noticed" or "NOBODY NOTICES ITS LOSS"))
    noticed, unnoticed = noticed + (broken and 1 or 0), unnoticed + (broken and 0 or 1)
  end
end
os.execute("rm -rf " .. dir)
print(("%d passed, %d failed"):format(noticed, unnoticed))
os.exit(unnoticed)
