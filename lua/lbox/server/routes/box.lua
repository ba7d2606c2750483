--- One box (box-api.md §1.2, §1.3, §1.4).
local errors = require "lbox.errors"

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

--- Ends what runs in the box; its files stay. Whatever is asked of it next starts it again.
local function pause(server, request, params)
  local row = server.boxes:get(params.id)
  if row.config.keep_alive then
    errors.raise("api", "Keep-alive boxes cannot be paused", { status_code = 409 })
  end
  server.boxes:pause(row)
  request:answer(200, {})
end

local function resume(server, request, params)
  server.boxes:sandbox(server.boxes:get(params.id))
  request:answer(200, {})
end

return {
  { "GET", "/v2/box/{id}", get },
  { "DELETE", "/v2/box/{id}", delete },
  { "GET", "/v2/box/{id}/status", status },
  { "POST", "/v2/box/{id}/pause", pause },
  { "POST", "/v2/box/{id}/resume", resume },
}
