--- JSON: decoding by lua-cjson (in Neovim by its sibling vim.json), encoding by a small canonical
--- encoder of our own: sorted keys, whole numbers as such, lists that are empty, 17 digits.
local core = require "lbox.core"

local M = {}

local MAX_DEPTH = 1000

local is_integer_lua = math.type ~= nil

local Array_mt = { __name = "lbox.array" }

--- Marks a table as a list, so that it encodes as [] even when it is empty.
---@param list table|nil
---@return table
function M.array(list)
  if list ~= nil and type(list) ~= "table" then
    error("lbox.array takes a list, got " .. type(list), 2)
  end
  return setmetatable(list or {}, Array_mt)
end

--- A copy of a list that is one on the wire also when it is empty; nil stays nil.
---@param list table|nil
---@return table|nil
function M.list(list)
  if list == nil then
    return nil
  end
  local copy = M.array {}
  for i, item in ipairs(list) do
    copy[i] = item
  end
  return copy
end

--- Whether a table was marked by `array`, or decoded from an empty list.
function M.is_array(value)
  return getmetatable(value) == Array_mt
end

-- ---------------------------------------------------------------------------------- decoding

local decoder

--- { decode, null }, made on first use: requiring this module loads nothing of the host.
local function get_decoder()
  if decoder then
    return decoder
  end
  local vim = rawget(_G, "vim")
  if vim and vim.json then
    decoder = { decode = vim.json.decode, null = vim.NIL }
  else
    -- An instance of our own: settings of the shared module are the host's.
    local cjson = require("cjson").new()
    cjson.decode_max_depth(MAX_DEPTH)
    cjson.decode_invalid_numbers(false)
    decoder = { decode = cjson.decode, null = cjson.null }
  end
  return decoder
end

setmetatable(M, {
  __index = function(_, key)
    if key == "null" then
      local null = get_decoder().null
      rawset(M, "null", null)
      return null
    end
  end,
})

local MAX_EXACT = 2 ^ 53

--- A number as Lua has it: on 5.4, where the decoder gives floats only, whole ones become integers.
--- Raises when it is too large for a double.
local function fix_number(number)
  if number - number ~= 0 then
    error("a number is out of range", 0)
  elseif is_integer_lua and number % 1 == 0 and number >= -MAX_EXACT and number <= MAX_EXACT then
    return math.tointeger(number)
  end
  return number
end

-- The decoder gives the same for [] and {}. So an empty list gets one item, by which it is known.
local EMPTY_LIST, EMPTY_ITEM = '["\\u0000[]"]', "\0[]"

--- The text with items in its empty lists; strings are passed over.
local function fill_empty_lists(text)
  local parts, at, from = {}, 1, 1
  while true do
    local start, stop, char = text:find('(["%[])', at)
    if not start then
      parts[#parts + 1] = text:sub(from)
      return table.concat(parts)
    elseif char == "[" then
      stop = select(2, text:find("^%[%s*%]", start))
      if stop then
        parts[#parts + 1] = text:sub(from, start - 1) .. EMPTY_LIST
        from = stop + 1
      end
      at = (stop or start) + 1
    else
      repeat
        stop = text:find('["\\]', stop + 1)
        local escapes = stop and text:byte(stop) == 92
        stop = escapes and stop + 1 or stop
      until not escapes
      at = (stop or #text) + 1
    end
  end
end

local function fix(value)
  if type(value) == "number" then
    return fix_number(value)
  elseif type(value) == "table" then
    if value[1] == EMPTY_ITEM and #value == 1 then
      return M.array {}
    end
    for key, item in pairs(value) do
      local kind = type(item)
      if kind == "number" then
        value[key] = fix_number(item)
      elseif kind == "table" then
        value[key] = fix(item)
      end
    end
  end
  return value
end

--- Whether a text may have numbers that are to be fixed.
local function has_numbers(text)
  if is_integer_lua then
    -- A number stands after a colon, a comma or a bracket; text without a digit there has none.
    return text:find("^%s*-?%d") or text:find("[%[:,]%s*-?%d")
  end
  return text:find("[eE]%+?%d%d%d") or (#text > 300 and text:find(("%d"):rep(300)))
end

--- The text with U+FFFD for halves of surrogate pairs, which stand for no character and which the decoder
--- refuses: encoders write them when text was cut in the middle of one.
local function repair_surrogates(text)
  local at = text:find("\\", 1, true)
  local parts, from = {}, 1
  while at do
    local unit = text:match("^u([dD][89abAB]%x%x)", at + 1) or text:match("^u([dD][c-fC-F]%x%x)", at + 1)
    if unit and unit:find("^.[89abAB]") and text:find("^\\u[dD][c-fC-F]%x%x", at + 6) then
      at = at + 12
    elseif unit then
      parts[#parts + 1] = text:sub(from, at - 1) .. "\\ufffd"
      at = at + 6
      from = at
    else
      at = at + 2
    end
    at = text:find("\\", at, true)
  end
  return table.concat(parts) .. text:sub(from)
end

--- Decodes JSON text. JSON null is `json.null`, an empty list a `json.array`; whole numbers are integers
--- on Lua 5.4.
---@param text string
---@return any value  nil on bad input
---@return string|nil why
function M.decode(text)
  if text:find("\\u", 1, true) and text:find("\\u[dD][89a-fA-F]") then
    text = repair_surrogates(text)
  end
  local has_empty_lists = text:find("[", 1, true) and text:find("%[%s*%]")
  local ok, value = pcall(get_decoder().decode, has_empty_lists and fill_empty_lists(text) or text)
  if not ok and has_empty_lists then
    ok, value = pcall(get_decoder().decode, text) -- for where in this text it is wrong
  end
  if ok and (has_empty_lists or has_numbers(text)) then
    ok, value = pcall(fix, value)
  end
  if not ok then
    return nil, (tostring(value):gsub("^.-:%d+: ", ""))
  end
  return value
end

--- Decodes without looking at the numbers: for text with none that matter. Raises on bad input.
function M.decode_text(text)
  return get_decoder().decode(text)
end

--- Takes every `json.null` out of the objects of a decoded value: for fields that are either there or not.
function M.strip_nulls(value)
  if type(value) == "table" then
    local null = M.null
    for key, item in pairs(value) do
      if item ~= null then
        M.strip_nulls(item)
      elseif type(key) == "string" then
        value[key] = nil
      end
    end
  end
  return value
end

-- ---------------------------------------------------------------------------------- encoding

local function encode_number(number)
  if number ~= number or number == math.huge or number == -math.huge then
    error("a number that is not finite has no JSON form", 0)
  end
  if number % 1 == 0 and number >= -MAX_EXACT and number <= MAX_EXACT then
    return ("%.0f"):format(number)
  elseif is_integer_lua and math.type(number) == "integer" then
    return ("%d"):format(number)
  end
  for digits = 14, 17 do
    local text = ("%." .. digits .. "g"):format(number)
    if digits == 17 or tonumber(text) == number then
      return text
    end
  end
end

local encode_value

local function encode_list(list, n, depth)
  local out = {}
  for i = 1, n do
    out[i] = encode_value(list[i], depth)
  end
  return "[" .. table.concat(out, ",") .. "]"
end

local function encode_object(object, depth)
  local keys = {}
  for key in pairs(object) do
    if type(key) ~= "string" then
      error(("a table with the key %s is neither a list nor an object"):format(tostring(key)), 0)
    end
    keys[#keys + 1] = key
  end
  table.sort(keys)
  for i, key in ipairs(keys) do
    keys[i] = core.json_quote(key) .. ":" .. encode_value(object[key], depth)
  end
  return "{" .. table.concat(keys, ",") .. "}"
end

--- n when the table has exactly the keys 1..n, else nil.
local function list_length(value)
  local n = #value
  local count = 0
  for key in pairs(value) do
    count = count + 1
    if type(key) ~= "number" or key < 1 or key > n or key % 1 ~= 0 then
      return nil
    end
  end
  return count == n and n or nil
end

function encode_value(value, depth)
  local kind = type(value)
  if kind == "string" then
    return core.json_quote(value)
  elseif kind == "number" then
    return encode_number(value)
  elseif kind == "boolean" then
    return tostring(value)
  elseif value == nil or value == M.null then
    return "null"
  elseif kind ~= "table" then
    error(("a %s has no JSON form"):format(kind), 0)
  elseif depth >= MAX_DEPTH then
    error(("nested deeper than %d levels, or within itself"):format(MAX_DEPTH), 0)
  end
  if M.is_array(value) then
    return encode_list(value, #value, depth + 1)
  end
  local n = next(value) ~= nil and list_length(value) or nil
  return n and encode_list(value, n, depth + 1) or encode_object(value, depth + 1)
end

--- Encodes a value: keys in sorted order, an empty table as {} unless it is `json.array`.
---@param value any
---@return string
function M.encode(value)
  return encode_value(value, 0)
end

-- LuaJIT of 2022 (Debian 12) may compile `pairs` wrongly: it exchanges the halves of a result by an instruction of 32
-- bits, and what was a pointer ends the process. What goes through tables of any shape is left to its interpreter.
if rawget(_G, "jit") then
  for _, fn in ipairs { fix, M.strip_nulls, encode_object, list_length } do
    rawget(_G, "jit").off(fn)
  end
end

return M
