-- What an editor knows of lbox (LuaCATS): every public function is described where it stands, and every option that a
-- call takes is a field of the class that its parameter has.
local process = require "spec.support.process"

local function slurp(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

-- Whose functions are public.
local OWNERS = { methods = true, Box = true, EphemeralBox = true, handle = true, opening = true }

local sources = {}
for path in process.output("ls lua/lbox/*.lua lua/lbox/async/*.lua"):gmatch("%S+") do
  sources[path] = slurp(path)
end

--- The classes: their fields and the classes they are made of.
local classes = {}
for _, text in pairs(sources) do
  local current
  for line in text:gmatch("([^\n]*)\n") do
    local name, parents = line:match("^%-%-%-@class ([%w_.]+):?(.*)")
    local field = line:match("^%-%-%-@field ([%w_]+)")
    if name then
      current = classes[name] or { fields = {}, parents = {} }
      classes[name] = current
      for parent in parents:gmatch("[%w_.]+") do
        current.parents[#current.parents + 1] = parent
      end
    elseif not line:match("^%-%-%-") then
      current = nil
    elseif current and field then
      current.fields[field] = true
    end
  end
end

local function has_field(name, field)
  local class = classes[name]
  if not class then
    return false
  elseif class.fields[field] then
    return true
  end
  for _, parent in ipairs(class.parents) do
    if has_field(parent, field) then
      return true
    end
  end
  return false
end

--- The comment above a place. One empty line may be between: without it editors take a table of options that is
--- checked for an object of the class.
local function comment_above(text, at)
  local lines, blank = {}, false
  for line in text:sub(1, at - 1):gmatch("([^\n]*)\n") do
    if line:match("^%-%-%-") then
      lines[#lines + 1], blank = line, false
    elseif line == "" and #lines > 0 and not blank then
      blank = true
    else
      lines, blank = {}, false
    end
  end
  return table.concat(lines, "\n")
end

describe("an editor", function()
  it("has a description of every public function", function()
    local described, missing = 0, {}
    for path, text in pairs(sources) do
      for at, name in text:gmatch("\n()function ([%w_]+[.:][%w_]+)%(") do
        local owner = name:match("^[%w_]+")
        if OWNERS[owner] then
          if text:sub(1, at - 1):match("\n%-%-%-[^\n]*\n$") and comment_above(text, at):find("%-%-%- %u") then
            described = described + 1
          else
            missing[#missing + 1] = path .. ": " .. name
          end
        end
      end
    end
    assert.are.same({}, missing)
    assert.is_true(described > 90, described)
  end)

  it("knows every option of a call", function()
    local known, missing = 0, {}
    for path, text in pairs(sources) do
      for at, name, keys in text:gmatch("\n()[%w_. ]-([%u_]+) = client%.[%w_]+_options (%b{})") do
        local class = comment_above(text, at):match(".*%-%-%-@class ([%w_.]+)")
        for key in keys:gmatch("([%l_]+) = ") do
          if class and has_field(class, key) then
            known = known + 1
          else
            missing[#missing + 1] = ("%s: %s.%s"):format(path, name, key)
          end
        end
      end
    end
    assert.are.same({}, missing)
    assert.is_true(known > 90, known)
  end)

  it("knows every member of the module", function()
    local lbox = require "lbox"
    local class = assert(classes.lbox, "no class lbox")
    local missing = {}
    for name in pairs(lbox) do
      if not class.fields[name] then
        missing[#missing + 1] = name
      end
    end
    for name in slurp("lua/lbox/init.lua"):match("local LATER = (%b{})"):gmatch("\n  ([%w_]+) = function") do
      if not class.fields[name] then
        missing[#missing + 1] = name
      end
    end
    assert.are.same({}, missing)
  end)
end)
