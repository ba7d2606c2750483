--- JSON: decoding by lua-cjson (in Neovim by its sibling vim.json), encoding by a small canonical
--- encoder of our own: sorted keys, whole numbers as such, lists that are empty, 17 digits.
local M = {}

local MAX_DEPTH = 1000

local is_integer_lua = math.type ~= nil

local Array_mt = { __name = "lbox.array" }

--- Marks a table as a list, so that it encodes as [] even when it is empty.
---@param list table|nil
---@return table
function M.array(list)
  return setmetatable(list or {}, Array_mt)
end

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

--- On 5.4 the decoder gives floats only; whole ones become integers.
local function fix_numbers(value)
  for key, item in pairs(value) do
    local kind = math.type(item)
    if kind == "float" then
      if item % 1 == 0 and item >= -MAX_EXACT and item <= MAX_EXACT then
        value[key] = math.tointeger(item)
      end
    elseif type(item) == "table" then
      fix_numbers(item)
    end
  end
  return value
end

--- Decodes JSON text. JSON null is `json.null`; whole numbers are integers on Lua 5.4.
---@param text string
---@return any value  nil on bad input
---@return string|nil why
function M.decode(text)
  local ok, value = pcall(get_decoder().decode, text)
  if not ok then
    return nil, (tostring(value):gsub("^.-:%d+: ", ""))
  end
  if is_integer_lua then
    if type(value) == "table" then
      -- A number stands after a colon, a comma or a bracket; text without a digit there has none.
      if text:find("[%[:,]%s*-?%d") then
        fix_numbers(value)
      end
    elseif math.type(value) == "float" then
      return fix_numbers({ value })[1]
    end
  end
  return value
end

--- Decodes without looking at the numbers: for text with none that matter. Raises on bad input.
function M.decode_text(text)
  return get_decoder().decode(text)
end

--- Takes every `json.null` out of a decoded value: for fields that are either there or not.
function M.strip_nulls(value)
  if type(value) == "table" then
    local null = M.null
    for key, item in pairs(value) do
      if item == null then
        value[key] = nil
      else
        M.strip_nulls(item)
      end
    end
  end
  return value
end

-- ---------------------------------------------------------------------------------- encoding

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["/"] = "\\/", ["\b"] = "\\b", ["\f"] = "\\f",
  ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\127"] = "\\u007f" }

local function escape(char)
  return ESCAPES[char] or ("\\u%04x"):format(char:byte())
end

local function encode_string(text)
  if text:find('[%c"\\/\127]') then
    text = text:gsub('[%c"\\/\127]', escape)
  end
  return '"' .. text .. '"'
end

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
    keys[i] = encode_string(key) .. ":" .. encode_value(object[key], depth)
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
    return encode_string(value)
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

return M
