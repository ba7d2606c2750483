--- One box (box-api.md §1.2, §1.3).
local function get(server, request, params)
  request:answer(200, server.boxes:describe(server.boxes:get(params.id)))
end

local function status(server, request, params)
  request:answer(200, { status = server.boxes:status(server.boxes:get(params.id)) })
end

local function delete(server, request, params)
  server.boxes:delete(server.boxes:get(params.id))
  request:answer(200, {})
end

return {
  { "GET", "/v2/box/{id}", get },
  { "DELETE", "/v2/box/{id}", delete },
  { "GET", "/v2/box/{id}/status", status },
}
