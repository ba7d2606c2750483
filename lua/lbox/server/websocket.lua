--- WebSockets of clients, whose messages are JSON objects: the handshake, and frames both ways.
local async = require "lbox.async"
local core = require "lbox.core"
local errors = require "lbox.errors"
local json = require "lbox.json"

local M = {}

-- How often a client that is not listened to is looked after.
local LOOK_MS = 500

---@class lbox.server.WebSocket
---@field there fun(): boolean  whether the client has not hung up, as far as can be seen without reading
local WebSocket = {}
WebSocket.__index = WebSocket

local function has_word(text, word)
  return ("," .. (text or ""):lower():gsub("%s", "") .. ","):find("," .. word .. ",", 1, true) ~= nil
end

--- Raises `api` 426 unless a request asks for a WebSocket, 400 or 405 when it does not say so as it must.
---@param request lbox.server.Request
function M.check(request)
  local key = request:header("Sec-WebSocket-Key")
  if request:is_head() then
    errors.raise("api", "this is a WebSocket: the request has to be a GET", { status_code = 405 })
  elseif not (has_word(request:header("Upgrade"), "websocket") and has_word(request:header("Connection"), "upgrade"))
  then
    errors.raise("api", "this is a WebSocket: the request has to ask for an upgrade", { status_code = 426 })
  elseif request:header("Transfer-Encoding") or (request:header("Content-Length") or "0") ~= "0" then
    errors.raise("api", "the request for a WebSocket must have no body", { status_code = 400 })
  elseif request:header("Sec-WebSocket-Version") ~= "13" then
    errors.raise("api", "the version of the WebSocket must be 13", { status_code = 400 })
  elseif not key or not key:match("^[%w+/]+==$") or #key ~= 24 then
    errors.raise("api", "the request has no usable Sec-WebSocket-Key", { status_code = 400 })
  end
end

--- Makes a WebSocket of a request that was checked. It ends with the request.
---@param request lbox.server.Request
---@return lbox.server.WebSocket
function M.accept(request)
  local socket = request:upgrade { Upgrade = "websocket",
    ["Sec-WebSocket-Accept"] = core.websocket_accept(request:header("Sec-WebSocket-Key")) }
  return setmetatable({ socket = socket, peer = core.websocket_peer(), turn = async.semaphore(1), unsent = "",
    there = function() return not request:gone() end }, WebSocket)
end

--- Sends what is framed, if that is anything: one after the other, or two frames could mix. A frame of which a part
--- was sent when its task was cancelled is sent on by the next. Who has nothing to send does not wait for who has.
local function flush(self)
  local framed = self.peer:output()
  if framed == "" then
    return
  end
  self.unsent = self.unsent .. framed
  self.turn:with(function()
    while self.unsent ~= "" do
      local n = self.socket:write_some(self.unsent, 1)
      self.unsent = self.unsent:sub(n + 1)
    end
  end)
end

--- Sends a message; waits while the client does not take it. Raises kind `network` when it is gone.
---@param value table
function WebSocket:send(value)
  self.peer:send(json.encode(value))
  flush(self)
end

--- The next message that is a JSON object, others are passed over; nil when the client hung up or broke the rules.
---@return table|nil
function WebSocket:receive()
  while self.there() do -- else nobody wants any more what was still sent
    local kind, bytes = self.peer:next()
    flush(self) -- of a ping or a close, the answer
    if kind == "message" then
      local value = json.decode(bytes)
      if type(value) == "table" and not json.is_array(value) then
        return json.strip_nulls(value)
      end
    elseif kind then
      return nil
    else
      local input = self.socket:take()
      if not input or not self.peer:feed(input) then
        return nil
      end
    end
  end
end

--- Calls `fn`, which waits for something else while the client is not listened to. Raises kind `network` when it hangs
--- up meanwhile.
---@param fn fun()
function WebSocket:meanwhile(fn)
  async.race(fn, function()
    while self.there() do
      -- Behind bytes that are not taken a hang-up does not come through. What is sent to a client that is gone does,
      -- and comes back as a reset.
      if self.unsent == "" then
        self.peer:ping()
        flush(self)
      end
      async.sleep(LOOK_MS)
    end
    errors.raise("network", "the client went away")
  end)
end

--- Says that nothing more is sent.
function WebSocket:hang_up()
  self.peer:hang_up()
  flush(self)
end

return M
