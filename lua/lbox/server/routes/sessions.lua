--- Exec sessions: the WebSocket of a command (box-api.md §2.3).
local errors = require "lbox.errors"
local session = require "lbox.server.session"
local websocket = require "lbox.server.websocket"

-- Of one box, at once.
local MAX_SESSIONS = 64

local function open(server, request, params)
  websocket.check(request)
  local row = server.boxes:get(params.id)
  local live = server.boxes:live_state(row.id)
  live.sessions = live.sessions or 0
  if live.sessions >= MAX_SESSIONS then
    errors.raise("api", ("a box has at most %d sessions at once"):format(MAX_SESSIONS), { status_code = 429 })
  end
  live.sessions = live.sessions + 1
  local ok, err = pcall(function()
    session.serve(server, row, websocket.accept(request))
  end)
  live.sessions = live.sessions - 1
  if not ok and not errors.is(err, "network") then
    error(err, 0)
  end
end

return {
  { "GET", "/v2/box/{id}/exec-session", open },
}
