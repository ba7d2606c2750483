--- The harnesses: programs that run an agent. Each is a module that makes the command of a run and turns what that
--- writes into events.
local M = {}

---@class lbox.server.Harness
---@field name string|nil          as its makers write it
---@field program string|nil       its CLI; nil: the box brings it
---@field install string|nil       how the CLI is installed
---@field provider string|nil      who serves a model that does not say so
---@field lost_session string|nil  what it says when the session to continue is not there
---@field mcp_file string|nil      where its MCP servers have to be: it cannot be told of them otherwise
---@field session_of_folder boolean|nil  a session is of use in the folder only that it began in
---@field counts_session boolean|nil  the tokens that it tells of are those of the whole session
---@field check_options nil|fun(given: table|nil)
---@field command fun(ask: lbox.server.Ask): lbox.server.HarnessCommand
---@field read fun(process: lbox.server.Process, emit: fun(name: string, data: table, text: string|nil),
---  command: table): (string|nil, integer|nil)

local MODULES = { ["claude-code"] = "claude_code", codex = "codex", cursor = "cursor", custom = "custom",
  opencode = "opencode" }

--- The harness of that name; nil when there is none.
---@param name string|nil
---@return lbox.server.Harness|nil
function M.get(name)
  return MODULES[name] and require("lbox.server.harness." .. MODULES[name])
end

--- All names, in order.
---@return string[]
function M.names()
  local names = {}
  for name in pairs(MODULES) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

return M
