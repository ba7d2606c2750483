--- The harness `custom`: a program in the box that writes box-sse-v1 events (box-api.md §4.10).
local async = require "lbox.async"
local core = require "lbox.core"
local errors = require "lbox.errors"
local json = require "lbox.json"
local outputs = require "lbox.server.harness.output"
local prompts = require "lbox.server.harness.prompt"

local M = {}

-- An event is taken apart as a whole, and others wait meanwhile.
local MAX_EVENT = 1024 * 1024

--- The command of a run.
---@param ask lbox.server.Ask
---@return lbox.server.HarnessCommand
function M.command(ask)
  local argv, env = { ask.runner.command }, {}
  for _, word in ipairs(ask.runner.args or {}) do
    argv[#argv + 1] = word
  end
  if ask.schema then
    env.LBOX_JSON_SCHEMA = json.encode(ask.schema)
  end
  if ask.options then
    env.LBOX_AGENT_OPTIONS = json.encode(ask.options)
  end
  if ask.mcp_servers[1] then
    env.LBOX_MCP_SERVERS = json.encode(ask.mcp_servers)
  end
  local prompt = prompts.with_schema(prompts.with_files(ask.prompt, ask.files), ask.schema)
  for _, word in ipairs { "-p", prompt, "--model", ask.model or "custom", "--stream" } do
    argv[#argv + 1] = word
  end
  if ask.session_id then
    argv[#argv + 1] = "--session"
    argv[#argv + 1] = ask.session_id
  end
  return { argv = argv, env = env }
end

-- A client may take other names for known ones, blanks of Unicode being blanks to some.
local NAME = "^[%w_.%-]+$"
-- What a harness says last: if that cannot be read, nobody knows how the run ended.
local LAST = { done = true, error = true }

--- Reads a running harness: calls `emit(event, data, text)` for each of its events, in order, and
--- returns the last line of what it wrote to stderr. `text` is the data as JSON still: Lua cannot hold
--- every number. Another event than a last word without a plain name, or whose data is no JSON object, is
--- passed over, as the clients do (box-sse-v1). Raises kind `run` when an event is too large or a last word
--- cannot be read.
function M.read(process, emit)
  local parser = core.sse_parser(MAX_EVENT)
  local function drain()
    local event, data = parser:next()
    while event do
      local text = core.utf8_repair(data)
      local value, why = json.decode(text)
      if event:find(NAME) and outputs.is_object(value) then
        -- The decoder lets control characters by, which are not JSON.
        emit(event, value, text:find("%c") and json.encode(value) or text)
      elseif LAST[event] then
        errors.raise("run", ("the data of the harness's %s is no JSON object: %s"):format(event,
          why or text:sub(1, 80)))
      end
      async.checkpoint()
      event, data = parser:next()
    end
  end
  local last_line = outputs.pieces(process, function(bytes)
    if not parser:feed(bytes) then
      errors.raise("run", ("the harness wrote an event of more than %d bytes"):format(MAX_EVENT))
    end
    drain()
  end)
  parser:finish()
  drain()
  return last_line
end

return M
