--- Bodies of type multipart/form-data (RFC 7578), whole in memory.
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
---@field bytes string

--- The parts of a body, in their order. Raises `api` 400 for what is none.
---@param body string
---@param boundary string
---@return lbox.server.Part[]
function M.parse(body, boundary)
  local mark = "--" .. boundary
  local parts = {}
  local from, at = body:find(mark, 1, true)
  if from ~= 1 and (not from or body:sub(from - 2, from - 1) ~= "\r\n") then
    refuse("the multipart body does not begin with its boundary")
  end
  while body:sub(at + 1, at + 2) ~= "--" do
    local head_at = body:match("^[ \t]*\r\n()", at + 1)
    local head_end, content_at
    if head_at then
      head_end, content_at = body:find("\r\n\r\n", head_at - 2, true)
    end
    local next_from, next_at = body:find("\r\n" .. mark, content_at and content_at - 1 or #body, true)
    if not head_end or not next_from or head_end - head_at > MAX_HEAD then
      refuse("the multipart body is not whole")
    end
    local head = "\r\n" .. body:sub(head_at, head_end)
    local disposition = head:match("\n[Cc]ontent%-[Dd]isposition:%s*([^\r\n]*)") or ""
    local name = parameter(disposition, "name")
    if not name then
      refuse("a part of the multipart body has no name")
    elseif #parts == MAX_PARTS then
      refuse(("the multipart body has more than %d parts"):format(MAX_PARTS))
    end
    parts[#parts + 1] = {
      name = name,
      filename = parameter(disposition, "filename"),
      type = head:match("\n[Cc]ontent%-[Tt]ype:%s*([^\r\n]*)"),
      bytes = body:sub(content_at + 1, next_from - 1),
    }
    at = next_at
  end
  return parts
end

return M
