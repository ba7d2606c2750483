--- What a running harness writes: pieces of its stdout, or JSON lines; and the last it says on stderr.
local async = require "lbox.async"
local core = require "lbox.core"
local errors = require "lbox.errors"
local json = require "lbox.json"

local M = {}

local STDERR_KEPT = 4096
-- A line is taken apart as a whole, and others wait meanwhile.
local MAX_LINE = 16 * 1024 * 1024
-- So much is kept of a line that is shown.
local MAX_SHOWN = 500
-- What a terminal takes for colours.
local COLOUR = "\27%[[%d;]*m"

--- Whether a decoded value is a JSON object.
---@param value any
---@return boolean
function M.is_object(value)
  return type(value) == "table" and not json.is_array(value) and #value == 0
end

--- A field of such an object: the empty object when it is none, or null.
---@param value any
---@return table
function M.object(value)
  return type(value) == "table" and value or {}
end

--- A text in such an object: nil when it is none, or empty.
---@param value any
---@return string|nil
function M.text(value)
  return type(value) == "string" and value ~= "" and value or nil
end

--- A number in such an object: 0 when it is none.
---@param value any
---@return number
function M.number(value)
  return type(value) == "number" and value or 0
end

--- Calls `fn(bytes)` with each piece of the harness's stdout; returns the last line of its stderr.
---@param process lbox.server.Process
---@param fn fun(bytes: string)
---@return string|nil
function M.pieces(process, fn)
  local stderr = ""
  for name, bytes in process.read, process do
    if name == "stderr" then
      stderr = (stderr .. bytes):sub(-STDERR_KEPT)
    else
      fn(bytes)
    end
  end
  return stderr:gsub(COLOUR, ""):match("([^\n]+)%s*$")
end

---@class lbox.server.JsonLines
---@field parts string[]  of a line whose end has not come
---@field size integer
local Lines = {}
Lines.__index = Lines

--- A reader of JSON lines that calls `fn(object)` for each; what is no object is passed over and counted.
---@param fn fun(object: table)
---@return lbox.server.JsonLines
function M.json_lines(fn)
  return setmetatable({ fn = fn, parts = {}, size = 0, skipped = 0 }, Lines)
end

local function keep(self, bytes)
  self.size = self.size + #bytes
  if self.size > MAX_LINE then
    errors.raise("run", ("the harness wrote a line of more than %d bytes"):format(MAX_LINE))
  end
  self.parts[#self.parts + 1] = bytes
end

local function take(self)
  local text = core.utf8_repair(table.concat(self.parts))
  self.parts, self.size = {}, 0
  local value = json.decode(text)
  if M.is_object(value) then
    self.fn(value)
  elseif text:find("%S") then
    self.skipped, self.last_skipped = self.skipped + 1, text:sub(1, MAX_SHOWN)
  end
  async.checkpoint()
end

--- Takes bytes, however they are cut. Raises kind `run` when a line is too long.
---@param bytes string
function Lines:feed(bytes)
  local from = 1
  while true do
    local at = bytes:find("\n", from, true)
    if not at then
      return keep(self, bytes:sub(from))
    end
    keep(self, bytes:sub(from, at - 1))
    take(self)
    from = at + 1
  end
end

--- There is no more; a last line may lack its end.
function Lines:finish()
  take(self)
end

--- Reads the JSON lines of a harness to its end. Returns the last line of its stderr, else the last that was no
--- JSON, and how many those were.
---@param process lbox.server.Process
---@param fn fun(object: table)
---@return string|nil last_line
---@return integer skipped
function M.read_json_lines(process, fn)
  local lines = M.json_lines(fn)
  local last_line = M.pieces(process, function(bytes) lines:feed(bytes) end)
  lines:finish()
  return last_line or lines.last_skipped, lines.skipped
end

return M
