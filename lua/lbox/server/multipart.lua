--- Bodies of type multipart/form-data (RFC 7578), read while they come: of a file's content no more is held than a
--- piece.
local errors = require "lbox.errors"

local M = {}

local MAX_PARTS = 1000
local MAX_HEAD = 16 * 1024
local MAX_BOUNDARY = 70

local function refuse(message)
  errors.raise("api", message, { status_code = 400 })
end

--- The boundary that a Content-Type names; nil when it is of another type.
---@param content_type string|nil
---@return string|nil
function M.boundary(content_type)
  local parameters = (content_type or ""):match("^%s*[Mm]ultipart/[Ff]orm%-[Dd]ata%f[;%s%z](.*)$")
  if not parameters then
    return nil
  end
  local boundary = parameters:match('[Bb]oundary="([^"]*)"') or parameters:match("[Bb]oundary=([^%s;]+)")
  if not boundary or boundary == "" or #boundary > MAX_BOUNDARY then
    refuse("the request body is multipart/form-data without a usable boundary")
  end
  return boundary
end

--- A value of a Content-Disposition. Browsers write a quote as %22, others as \".
local function parameter(head, name)
  local quoted = head:match("[;%s]" .. name .. '="(.-[^\\])"') or head:match("[;%s]" .. name .. '="()"') and ""
  if quoted then
    return (quoted:gsub('\\(["\\])', "%1"):gsub("%%22", '"'):gsub("%%0[dD]", "\r"):gsub("%%0[aA]", "\n"))
  end
  return head:match("[;%s]" .. name .. "=([^%s;]+)")
end

---@class lbox.server.Part
---@field name string
---@field filename string|nil  nil: a field, not a file
---@field type string|nil      the Content-Type it came with
local Part = {}
Part.__index = Part

--- What was received and not yet made use of.
---@class lbox.server.multipart.Source
---@field buffer string
---@field next fun(): string|nil
local Source = {}
Source.__index = Source

--- Takes in another piece; the end of the body comes too early.
function Source:more()
  local bytes = self.next()
  if not bytes then
    refuse("the multipart body is not whole")
  end
  self.buffer = self.buffer .. bytes
end

--- At least `n` bytes in the buffer.
function Source:need(n)
  while #self.buffer < n do
    self:more()
  end
end

--- What comes before `mark`, which is left out too; nil when that is more than `max`.
function Source:up_to(mark, max)
  local from, to
  local seen = 1
  repeat
    from, to = self.buffer:find(mark, seen, true)
    if not from then
      if #self.buffer > max + #mark then
        return nil
      end
      seen = math.max(1, #self.buffer - #mark + 2)
      self:more()
    end
  until from
  local before = self.buffer:sub(1, from - 1)
  self.buffer = self.buffer:sub(to + 1)
  return #before <= max and before or nil
end

--- The next piece of the part's content, nil at its end.
---@return string|nil
function Part:read()
  local source, mark = self.source, self.mark
  while not self.ended do
    local from, to = source.buffer:find(mark, 1, true)
    -- What could be the beginning of the mark stays.
    local sure = from and from - 1 or #source.buffer - #mark + 1
    local bytes = sure > 0 and source.buffer:sub(1, sure) or ""
    if from then
      self.ended = true
      source.buffer = source.buffer:sub(to + 1)
    elseif sure > 0 then
      source.buffer = source.buffer:sub(sure + 1)
    else
      source:more()
    end
    if bytes ~= "" then
      return bytes
    end
  end
end

--- The whole content. `hold(n)` hears of the bytes that are held for it, and may raise.
---@param hold (fun(n: integer))|nil
---@return string
function Part:all(hold)
  local pieces = {}
  for bytes in self.read, self do
    if hold then
      hold(#bytes)
    end
    pieces[#pieces + 1] = bytes
  end
  return table.concat(pieces)
end

local function begin(source, mark)
  local blanks = source:up_to("\r\n", MAX_HEAD)
  local head = blanks and not blanks:find("[^ \t]") and source:up_to("\r\n\r\n", MAX_HEAD)
  if not head then
    refuse("the multipart body is not whole")
  end
  head = "\r\n" .. head .. "\r\n"
  local disposition = head:match("\n[Cc]ontent%-[Dd]isposition:%s*([^\r\n]*)") or ""
  local name = parameter(disposition, "name")
  if not name then
    refuse("a part of the multipart body has no name")
  end
  return setmetatable({ name = name, filename = parameter(disposition, "filename"),
    type = head:match("\n[Cc]ontent%-[Tt]ype:%s*([^\r\n]*)"), source = source, mark = mark }, Part)
end

--- Calls `fn(part)` for one part of a body after the other, each before its content has come. What `fn` does not
--- read of it is passed over. Raises `api` 400 for what is no such body.
---@param next fun(): string|nil  the next piece of the body, nil at its end
---@param boundary string
---@param fn fun(part: lbox.server.Part)
function M.read(next, boundary, fn)
  local source = setmetatable({ buffer = "\r\n", next = next }, Source)
  local mark = "\r\n--" .. boundary
  if not source:up_to(mark, MAX_HEAD) then
    refuse("the multipart body does not begin with its boundary")
  end
  local count = 0
  while true do
    source:need(2)
    if source.buffer:sub(1, 2) == "--" then
      break
    end
    count = count + 1
    if count > MAX_PARTS then
      refuse(("the multipart body has more than %d parts"):format(MAX_PARTS))
    end
    local part = begin(source, mark)
    fn(part)
    while part:read() do end
  end
  while next() do end
end

return M
