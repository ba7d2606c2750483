--- What is told of a box, or of all (box-api.md §1.2, §1.4).
local errors = require "lbox.errors"
local json = require "lbox.json"

-- Of all boxes, when nobody says how many.
local ALL = 200

local function number(request, name)
  local text = request.query[name]
  if text ~= nil and not (text:match("^%d+$") and #text <= 9) then
    errors.raise("api", ("%s %q: a whole number from 0 on"):format(name, text), { status_code = 400 })
  end
  return text and math.tointeger(tonumber(text))
end

local function list(server, request, params)
  local row = server.boxes:get(params.id)
  request:answer(200, { logs = json.array(server.logs:list(row.id, number(request, "offset"),
    number(request, "limit"))) })
end

local function all(server, request)
  request:answer(200, { logs = json.array(server.logs:all(number(request, "limit") or ALL)) })
end

return {
  { "GET", "/v2/box/logs", all },
  { "GET", "/v2/box/{id}/logs", list },
}
