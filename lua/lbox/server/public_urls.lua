--- The public URLs of all boxes: remembered, opened again at the next start, and led to their boxes.
local async = require "lbox.async"
local errors = require "lbox.errors"
local public_url = require "lbox.server.public_url"
local secret = require "lbox.server.secret"

local M = {}

-- How long a request waits for a port of a box that it woke, and how often one looks.
local WAKE_MS, LOOK_MS = 30000, 50

---@class lbox.server.PublicUrls
local PublicUrls = {}
PublicUrls.__index = PublicUrls

local function key(box_id, port)
  return ("%s-%d"):format(box_id, port)
end

--- A connection to the port of a box, which is woken for that.
local function connect(self, box_id, port)
  local boxes = self.server.boxes
  local row = boxes:get(box_id)
  local live = boxes:live_state(box_id)
  if not live.sandbox or live.sandbox.closed then
    self.waking[box_id] = async.now() + WAKE_MS
  end
  return boxes:working(row, function(box)
    while true do
      local fd, errno = box:connect(port)
      if fd then
        return fd
      elseif errno ~= "ECONNREFUSED" then
        return nil, ("port %d of the box %s cannot be reached: %s"):format(port, box_id, errno)
      elseif async.now() >= (self.waking[box_id] or 0) then
        self.waking[box_id] = nil
        return nil, ("nothing listens on port %d of the box %s"):format(port, box_id)
      end
      async.sleep(LOOK_MS)
    end
  end)
end

local function open(self, row, host_port)
  return public_url.open {
    port = host_port, token = row.token, password = row.password, scope = self.server.scope, log = self.server.log,
    connect = function() return connect(self, row.box_id, row.port) end,
  }
end

--- Opens those there were. One whose port somebody else has by now gets another.
local function reopen(self, row)
  local url, why = open(self, row, row.host_port)
  if not url then
    url = open(self, row, 0)
  end
  if not url then
    return self.server.log(("port %d of the box %s has no public URL any more: %s"):format(row.port, row.box_id, why))
  elseif url.port ~= row.host_port then
    self.server.log(("port %d of the box %s is at %s from now on: %d: %s"):format(row.port, row.box_id, url.url,
      row.host_port, why))
    -- When that is not kept, it gets yet another one next time.
    pcall(self.server.store.write, self.server.store, "UPDATE previews SET host_port = ? WHERE box_id = ? AND port = ?",
      url.port, row.box_id, row.port)
  end
  self.urls[key(row.box_id, row.port)] = url
end

---@param server table  boxes, store, scope, log
---@return lbox.server.PublicUrls
function M.new(server)
  local self = setmetatable({ server = server, urls = {}, waking = {} }, PublicUrls)
  for _, row in ipairs(server.store:rows("SELECT * FROM previews ORDER BY created_at, port")) do
    reopen(self, row)
  end
  return self
end

--- Makes the public URL of a port, or gives the one there is new credentials.
---@param box_id string
---@param port integer
---@param want { bearer_token: boolean|nil, basic_auth: boolean|nil }
---@return { url: string, token: string|nil, password: string|nil }
function PublicUrls:create(box_id, port, want)
  local row = { box_id = box_id, port = port, token = want.bearer_token and secret.new() or nil,
    password = want.basic_auth and secret.new() or nil }
  local url = self.urls[key(box_id, port)]
  local made, why, errno
  if not url then
    made, why, errno = open(self, row, 0)
    if not made then
      errors.raise("local", "no port for a public URL: " .. why, { errno = errno })
    end
  end
  local ok, err = pcall(self.server.store.write, self.server.store, "INSERT OR REPLACE INTO previews "
    .. "(box_id, port, host_port, token, password, created_at) VALUES (?, ?, ?, ?, ?, ?)", box_id, port,
    (url or made).port, row.token, row.password, os.time())
  if not ok then
    if made then
      made:close()
    end
    error(err, 0)
  elseif url then
    url:set_credentials(row.token, row.password)
  end
  self.urls[key(box_id, port)] = url or made
  return { url = (url or made).url, token = row.token, password = row.password }
end

--- Those of a box, without their secrets, as the wire has them.
---@param box_id string
---@return table[]
function PublicUrls:list(box_id)
  local list = {}
  for _, row in ipairs(self.server.store:rows("SELECT * FROM previews WHERE box_id = ? ORDER BY port", box_id)) do
    local url = self.urls[key(box_id, row.port)]
    if url then
      list[#list + 1] = { id = key(box_id, row.port), port = row.port, url = url.url, created_at = row.created_at,
        basic_auth = row.password ~= nil, bearer_token = row.token ~= nil }
    end
  end
  return list
end

--- Closes one. False when there is none.
---@return boolean
function PublicUrls:delete(box_id, port)
  local url = self.urls[key(box_id, port)]
  if not url then
    return false
  end
  self.server.store:write("DELETE FROM previews WHERE box_id = ? AND port = ?", box_id, port)
  self.urls[key(box_id, port)] = nil
  url:close()
  return true
end

--- A box is gone, and its rows with it.
function PublicUrls:forget(box_id)
  for id, url in pairs(self.urls) do
    if id:sub(1, #box_id + 1) == box_id .. "-" then
      self.urls[id] = nil
      url:close()
    end
  end
  self.waking[box_id] = nil
end

--- Whether anybody's request is at a port of the box.
---@param box_id string
---@return boolean
function PublicUrls:in_use(box_id)
  for id, url in pairs(self.urls) do
    if id:sub(1, #box_id + 1) == box_id .. "-" and url.uses > 0 then
      return true
    end
  end
  return false
end

--- Whether there is any.
---@return boolean
function PublicUrls:busy()
  return next(self.urls) ~= nil
end

return M
