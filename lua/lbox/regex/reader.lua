--- Reads a regular expression into what it is made of: { set = … } for one character, { test = … } for an
--- assertion, { list = … } in a row, { choices = … }, { item = …, min = …, max = … }.
local characters = require "lbox.regex.characters"
local core = require "lbox.core"

local M = {}

local MAX_COUNT = 10000
local MAX_DEPTH = 100

local CONTROLS = { t = 0x09, n = 0x0A, v = 0x0B, f = 0x0C, r = 0x0D }

--- Ends the reading of a pattern.
function M.refuse(why)
  error({ why = why }, 0)
end

-- Assertions: whether they hold before the character at `at`.
local function at_start(_, at)
  return at == 1
end

local function at_end(codes, at)
  return codes[at] == nil
end

local function at_boundary(codes, at)
  return characters.is_word(codes[at - 1]) ~= characters.is_word(codes[at])
end

local function inside(codes, at)
  return not at_boundary(codes, at)
end

---@class lbox.regex.Reader
---@field text string  the pattern
---@field at integer   the byte that comes next
---@field depth integer
local Reader = {}
Reader.__index = Reader

--- Takes what matches the Lua pattern, if that is what comes next.
function Reader:take(lua_pattern)
  local from, to, capture = self.text:find("^" .. lua_pattern, self.at)
  if from then
    self.at = to + 1
    return capture or self.text:sub(from, to)
  end
end

function Reader:take_code()
  local code
  code, self.at = characters.decode_at(self.text, self.at)
  return code
end

--- The code point of \uHHHH, a pair of surrogates or \u{H…}.
function Reader:unicode_escape()
  local digits = self:take("%x%x%x%x") or self:take("{0*(%x+)}") or M.refuse("\\u without its digits")
  local code = #digits <= 6 and tonumber(digits, 16) or characters.LAST_CODE + 1
  if code >= 0xD800 and code <= 0xDBFF then
    local low = tonumber(self:take("\\u([dD][c-fC-F]%x%x)") or "", 16)
    code = low and 0x10000 + (code - 0xD800) * 0x400 + (low - 0xDC00) or code
  end
  if code > characters.LAST_CODE or (code >= 0xD800 and code <= 0xDFFF) then
    M.refuse("\\u of what is no character")
  end
  return code
end

--- What follows a backslash anywhere: the code of a character, or else a set.
function Reader:escape()
  local name = self:take("[%a%d]")
  if not name then
    return self:take("%p") and self.text:byte(self.at - 1) or M.refuse("a backslash before nothing it can escape")
  elseif characters.CLASSES[name] then
    return nil, characters.CLASSES[name]
  elseif CONTROLS[name] then
    return CONTROLS[name]
  elseif name == "0" and not self.text:find("^%d", self.at) then
    return 0
  elseif name == "x" then
    return tonumber(self:take("%x%x") or M.refuse("\\x without its two digits"), 16)
  elseif name == "c" then
    return (self:take("%a") or M.refuse("\\c without its letter")):byte() % 32
  elseif name == "u" then
    return self:unicode_escape()
  end
  M.refuse(("\\%s is not supported"):format(name))
end

--- One member of a class in brackets: the code of a character, or else a set.
function Reader:member()
  if self:take("\\b") then
    return 0x08
  elseif self:take("\\") then
    return self:escape()
  end
  return self:take_code()
end

--- A class, after its bracket.
function Reader:class()
  local negated = self:take("%^")
  local set = {}
  while not self:take("%]") do
    if self.at > #self.text then
      M.refuse("[ without its ]")
    end
    local first, class = self:member()
    local last = first
    if not self.text:find("^%-%]", self.at) and self:take("%-") then
      last = self.at <= #self.text and self:member() or nil
      if not first or not last then
        M.refuse("a range in brackets that has no first or last character")
      elseif first > last then
        M.refuse("a range in brackets whose last character is before its first")
      end
    end
    for _, edge in ipairs(class or { first, last }) do
      set[#set + 1] = edge
    end
  end
  return { set = negated and characters.complement(set) or set }
end

--- A group, after its parenthesis.
function Reader:group()
  if self:take("%?") and not self:take(":") then
    M.refuse(("of groups that begin with (? only (?: is known, not (?%s"):format(
      self.text:match("^<?[%p%a]?", self.at)))
  end
  self.depth = self.depth + 1
  if self.depth > MAX_DEPTH then
    M.refuse(("groups nested deeper than %d levels"):format(MAX_DEPTH))
  end
  local node = self:choices()
  self.depth = self.depth - 1
  return self:take("%)") and node or M.refuse("( without its )")
end

function Reader:atom()
  local mark = self:take("[][^$.(){}*+?\\]")
  if not mark then
    local code = self:take_code()
    return { set = { code, code } }
  elseif mark == "." then
    return { set = characters.NO_LINE_END }
  elseif mark == "^" then
    return { test = at_start }
  elseif mark == "$" then
    return { test = at_end }
  elseif mark == "(" then
    return self:group()
  elseif mark == "[" then
    return self:class()
  elseif mark == "\\" then
    if self:take("b") then
      return { test = at_boundary }
    elseif self:take("B") then
      return { test = inside }
    end
    local code, set = self:escape()
    return { set = set or { code, code } }
  elseif mark:find("[*+?]") then
    M.refuse(mark .. " with nothing to repeat")
  end
  M.refuse(("%s as a character is written \\%s"):format(mark, mark))
end

--- min, max of the quantifier that comes next, nil when none does.
function Reader:quantifier()
  if self:take("%*") then
    return 0, math.huge
  elseif self:take("%+") then
    return 1, math.huge
  elseif self:take("%?") then
    return 0, 1
  elseif self:take("{") then
    local min = tonumber(self:take("%d+") or M.refuse("{ as a character is written \\{"))
    local max = self:take(",") and (tonumber(self:take("%d+") or math.huge)) or min
    if not self:take("}") then
      M.refuse("{ without its }")
    elseif min > max then
      M.refuse("a count whose most is less than its least")
    elseif min > MAX_COUNT or (max > MAX_COUNT and max ~= math.huge) then
      M.refuse(("a count of more than %d"):format(MAX_COUNT))
    end
    return min, max
  end
end

function Reader:repeated()
  local node = self:atom()
  local min, max = self:quantifier()
  if not min then
    return node
  elseif node.test then
    M.refuse("an assertion that is repeated")
  end
  -- Lazy or not makes no difference to whether there is a match.
  self:take("%?")
  return { item = node, min = min, max = max }
end

function Reader:row()
  local list = {}
  while self.at <= #self.text and not self.text:find("^[|)]", self.at) do
    list[#list + 1] = self:repeated()
  end
  return { list = list }
end

function Reader:choices()
  local choices = { self:row() }
  while self:take("|") do
    choices[#choices + 1] = self:row()
  end
  return #choices == 1 and choices[1] or { choices = choices }
end

--- Reads a pattern. Raises { why } when it is none, or has what is not known here.
---@param pattern string
---@return table node
function M.read(pattern)
  if not core.is_utf8(pattern) then
    M.refuse("it is not UTF-8 text")
  end
  local reader = setmetatable({ text = pattern, at = 1, depth = 0 }, Reader)
  local node = reader:choices()
  return reader.at > #pattern and node or M.refuse(") without its (")
end

return M
