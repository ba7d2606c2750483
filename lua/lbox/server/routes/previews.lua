--- Public URLs, by their name on the wire (box-api.md §1.10, §4.12).
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"

local LAST_PORT = 65535
local MAX_URLS = 100

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

local function check_port(port, shown)
  if not port or port % 1 ~= 0 or port < 1 or port > LAST_PORT then
    refuse(400, ("port must be a whole number from 1 to %d, got %s"):format(LAST_PORT, shown))
  end
  return math.tointeger(port)
end

local CREATE = { port = "number!", bearer_token = "boolean", basic_auth = "boolean" }

local function create(server, request, params)
  local row = server.boxes:get(params.id)
  local body = fields.check(request:json(), CREATE)
  local port = check_port(body.port, tostring(body.port))
  if #server.public_urls:list(row.id) >= MAX_URLS then
    refuse(400, ("a box has at most %d public URLs"):format(MAX_URLS))
  end
  server.boxes:working(row, function() end) -- wakes it
  local made = server.public_urls:create(row.id, port, body)
  request:answer(200, { url = made.url, port = port, token = made.token,
    username = made.password and "user", password = made.password })
end

local function list(server, request, params)
  local row = server.boxes:get(params.id)
  request:answer_list(200, "previews", server.public_urls:list(row.id), function(url) return url end)
end

local function delete(server, request, params)
  local row = server.boxes:get(params.id)
  local port = check_port(tonumber(params.port), params.port)
  if not server.public_urls:delete(row.id, port) then
    refuse(404, ("port %d of the box %s has no public URL"):format(port, row.id))
  end
  request:answer(200, {})
end

return {
  { "POST", "/v2/box/{id}/preview", create },
  { "GET", "/v2/box/{id}/preview", list },
  { "DELETE", "/v2/box/{id}/preview/{port}", delete },
}
