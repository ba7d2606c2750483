--- Heads of HTTP/1 requests, read strictly: what two programs could read differently is refused.
local M = {}

---@class lbox.server.HttpHead
---@field line string                                    the request line
---@field method string
---@field target string
---@field fields { name: string, value: string, line: string }[]  names in lower case
local Head = {}
Head.__index = Head

--- A head, from its first byte to the empty line. Nil and what is wrong with it when it is none.
---@param text string
---@param to_proxy boolean|nil  the target need not be a path
---@return lbox.server.HttpHead|nil
---@return string|nil why
function M.parse(text, to_proxy)
  local lines = {}
  for line in text:gmatch("(.-)\r\n") do
    lines[#lines + 1] = line
  end
  for _, line in ipairs(lines) do
    if line:find("[%z\1-\8\10-\31\127]") then
      return nil, "a control character in the head"
    end
  end
  local method, target = (lines[1] or ""):match("^([%w!#$%%&'*+.^_`|~-]+) (%S+) HTTP/1%.[01]$")
  if not method then
    return nil, "no HTTP/1 request line"
  elseif not to_proxy and target:sub(1, 1) ~= "/" and target ~= "*" then
    return nil, "the target of the request must be a path"
  end
  local head = setmetatable({ line = lines[1], method = method, target = target, fields = {} }, Head)
  for i = 2, #lines - 1 do
    local name, value = lines[i]:match("^([%w!#$%%&'*+.^_`|~-]+):[ \t]*(.-)[ \t]*$")
    if not name then
      return nil, "a header without a name"
    end
    head.fields[i - 1] = { name = name:lower(), value = value, line = lines[i] }
  end
  return head
end

--- The value of a header; false when it is there more than once.
---@param name string  in lower case
---@return string|false|nil
function Head:get(name)
  local found
  for _, field in ipairs(self.fields) do
    if field.name == name then
      if found then
        return false
      end
      found = field.value
    end
  end
  return found
end

--- Whether one of a header's comma-separated words is this one.
---@param name string
---@param word string  both in lower case
---@return boolean
function Head:lists(name, word)
  for _, field in ipairs(self.fields) do
    if field.name == name then
      for each in field.value:lower():gmatch("[^,%s]+") do
        if each == word then
          return true
        end
      end
    end
  end
  return false
end

--- Takes a header out.
---@param name string
function Head:remove(name)
  for i = #self.fields, 1, -1 do
    if self.fields[i].name == name then
      table.remove(self.fields, i)
    end
  end
end

--- Puts a header at the end.
---@param name string
---@param value string
function Head:add(name, value)
  table.insert(self.fields, { name = name:lower(), value = value, line = name .. ": " .. value })
end

--- How long the body is: a number of bytes, or "chunked". Nil and what is wrong when it cannot be told.
---@return integer|"chunked"|nil
---@return string|nil why
function Head:body()
  local length, coding = self:get("content-length"), self:get("transfer-encoding")
  if length == nil and coding == nil then
    return 0
  elseif length == nil and coding and coding:lower() == "chunked" and self.line:sub(-1) == "1" then
    return "chunked"
  elseif coding == nil and length and length:match("^%d+$") and #length <= 15 then
    return math.tointeger(tonumber(length))
  end
  return nil, "the length of the body cannot be told"
end

--- The head as bytes.
---@return string
function Head:encode()
  local lines = { self.line }
  for i, field in ipairs(self.fields) do
    lines[i + 1] = field.line
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

return M
