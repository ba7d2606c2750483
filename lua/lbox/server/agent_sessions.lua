--- Sessions of agents: what the next run in a box goes on with.
local M = {}

--- The session for a run: the box's, or, of a harness whose sessions belong to a folder, that of the folder.
---@param server table
---@param row table  the box
---@param harness lbox.server.Harness
---@param folder string
---@return string|nil
function M.of(server, row, harness, folder)
  if not harness.session_of_folder then
    return row.session_id
  end
  local found = server.store:rows("SELECT session_id FROM folder_sessions WHERE box_id = ? AND folder = ?", row.id,
    folder)[1]
  return found and found.session_id
end

--- Keeps the session that a run had.
---@param session_id string
function M.keep(server, row, harness, folder, session_id)
  server.store:set_box(row.id, "session_id", session_id)
  if harness.session_of_folder then
    server.store:write("INSERT OR REPLACE INTO folder_sessions (box_id, folder, session_id) VALUES (?, ?, ?)", row.id,
      folder, session_id)
  end
end

--- Forgets one that the harness no longer finds.
function M.forget(server, row, folder)
  server.store:set_box(row.id, "session_id", nil)
  server.store:write("DELETE FROM folder_sessions WHERE box_id = ? AND folder = ?", row.id, folder)
end

return M
