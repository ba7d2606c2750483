--- Clients that speak HTTP/1 over a socket, to a public URL or to the proxy of a box: their next head, and a refusal
--- that reaches them.
local async = require "lbox.async"
local errors = require "lbox.errors"
local http_head = require "lbox.server.http_head"

local M = {}

local MAX_HEAD = 32 * 1024
-- How long a client may take for a head.
local HEAD_MS = 10000

local REASONS = { [400] = "Bad Request", [401] = "Unauthorized", [403] = "Forbidden",
  [431] = "Request Header Fields Too Large", [502] = "Bad Gateway", [504] = "Gateway Timeout" }

--- The next head: nil when there is no more, or status and text of what is wrong.
---@param client lbox.server.Socket
---@param to_proxy boolean|nil  the target need not be a path
---@return lbox.server.HttpHead|nil
---@return integer|nil status
---@return string|nil text
function M.read_head(client, to_proxy)
  local ok, text = pcall(async.timeout, HEAD_MS, client.take_until, client, "\r\n\r\n", MAX_HEAD)
  if not ok and not errors.is(text, "timeout") then
    error(text, 0)
  elseif not ok or (not text and #client.buffer <= MAX_HEAD) then
    return nil
  elseif not text then
    return nil, 431, ("the head of a request may have %d bytes"):format(MAX_HEAD)
  end
  local head, why = http_head.parse(text, to_proxy)
  if head then
    return head
  end
  return nil, 400, why
end

--- Answers that a request is not passed on, after which nothing more is.
---@param client lbox.server.Socket
---@param status integer
---@param text string         a sentence
---@param header string|nil   one more, whole
---@param is_head boolean|nil  a HEAD, whose answer has no body
function M.refuse(client, status, text, header, is_head)
  text = ("lbox: %s\n"):format(text)
  client:write(("HTTP/1.1 %d %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
    .. "Connection: close\r\n\r\n%s"):format(status, REASONS[status], header and header .. "\r\n" or "", #text,
    is_head and "" or text))
end

return M
