--- What a run of an agent is asked for, and the command that comes of it.
local agent_keys = require "lbox.server.agent_keys"
local agent_programs = require "lbox.server.agent_programs"
local agent_sessions = require "lbox.server.agent_sessions"
local core = require "lbox.core"
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local harnesses = require "lbox.server.harness"
local ids = require "lbox.server.ids"
local json = require "lbox.json"
local mcp = require "lbox.server.harness.mcp"
local providers = require "lbox.server.harness.providers"

local M = {}

-- Linux takes no longer word in a command line.
local MAX_WORD = 120 * 1024
local MAX_FILES, MAX_FILE = 10, 10 * 1024 * 1024
-- Where files of prompts go. They stay: the agent may look at them again in the next run.
local FILES = "/home/boxuser/.lbox/prompts/"

---@class lbox.server.Ask
---@field prompt string
---@field model string
---@field schema table|nil
---@field options table|nil        checked
---@field session_id string|nil    to continue
---@field files { path: string, media_type: string }[]
---@field dir string               of the box: files of this run are in it, those for the harness have names that
---  begin with it and a dot
---@field mcp_servers lbox.server.McpServer[]
---@field env table<string, string>  of the box
---@field program string|nil       of the harness, in the box
---@field provider lbox.server.Provider|nil
---@field key string|nil          nil: the box's environment has it
---@field runner table|nil         of the harness custom

---@class lbox.server.HarnessCommand
---@field argv string[]
---@field env table<string, string>
---@field stdin string|nil
---@field files { path: string, bytes: string }[]|nil  to be written before it starts

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

local FIELDS = { prompt = "string!", folder = "string", json_schema = "object", agent_options = "object" }

local function check_sizes(body)
  if not body.prompt:find("%S") then
    refuse(400, "the field \"prompt\" must not be empty")
  elseif #body.prompt + #json.encode(body.json_schema or {}) > MAX_WORD then
    refuse(413, ("the prompt is larger than %d bytes: write it to a file in the box and say so"):format(MAX_WORD))
  elseif #json.encode(body.agent_options or {}) > MAX_WORD then
    refuse(413, ("agent_options are larger than %d bytes"):format(MAX_WORD))
  end
end

--- A name for a file in a box; the same name twice becomes two names.
local function file_name(given, number, taken)
  local name = type(given) == "string" and given:match("[^/\\]*$"):gsub("[%c]", "_"):sub(-100) or ""
  if name == "" or name == "." or name == ".." or taken[name] then
    name = ("%d-%s"):format(number, name:gsub("^%.+", ""))
  end
  taken[name] = true
  return name
end

--- The files of a prompt: where they go, and what is to be written there.
local function prompt_files(given, dir)
  local told, written, taken = {}, {}, {}
  if given == nil then
    return told, written
  elseif type(given) ~= "table" or (next(given) ~= nil and #given == 0) then
    refuse(400, "the field \"files\" must be a list")
  elseif #given > MAX_FILES then
    refuse(400, ("at most %d files with a prompt, got %d"):format(MAX_FILES, #given))
  end
  for i, file in ipairs(given) do
    local bytes = type(file) == "table"
      and (file.bytes or type(file.data) == "string" and core.base64_decode(file.data))
    if not bytes then
      refuse(400, ("files[%d] must be { data = base64, media_type, filename }"):format(i - 1))
    elseif #bytes > MAX_FILE then
      refuse(413, ("files[%d] is larger than %d bytes"):format(i - 1, MAX_FILE))
    end
    local path = dir .. "/" .. file_name(file.filename, i, taken)
    told[i] = { path = path, media_type = type(file.media_type) == "string" and file.media_type or "" }
    written[i] = { path = path, bytes = bytes }
  end
  return told, written
end

--- What the CLI of a harness needs besides.
local function complete(server, row, harness, ask)
  ask.provider, ask.model = providers.of(ask.model or "", harness.provider)
  harness.check_options(ask.options)
  mcp.check_harness(harness, ask.mcp_servers)
  agent_programs.need(server, row.config.agent)
  ask.program = agent_programs.path(harness)
  ask.key = agent_keys.of(server, row.config, ask.provider, harness)
end

--- What must not be told, should the agent say it.
local function secrets_of(ask)
  local secrets = mcp.secrets(ask.mcp_servers)
  secrets[#secrets + 1] = ask.provider and (ask.key or ask.env[ask.provider.key])
  return secrets
end

--- What runs of a box with a session have used.
local function used(server, row, session_id)
  local sums = server.store:rows("SELECT session_id, sum(input_tokens) AS input_tokens, sum(output_tokens) AS "
    .. "output_tokens, sum(cached_input_tokens) AS cached_input_tokens FROM runs WHERE box_id = ? AND session_id = ? "
    .. "GROUP BY session_id", row.id, session_id)
  return sums[1]
end

--- The command of the run that a request, or a schedule, asks for. Raises what is wrong with it.
---@param server table
---@param row table   the box
---@param body table
---@param model string|nil  instead of the box's
---@return table command  of Sandbox:spawn, and harness, files, schema, used and secrets besides
---@return string|nil model
function M.command(server, row, body, model)
  local config = row.config
  local harness = harnesses.get(config.agent)
  if not harness then
    refuse(400, "no agent is configured for this box")
  end
  fields.check(body, FIELDS)
  check_sizes(body)
  model = model or config.model
  local folder = server.boxes.folder(body.folder)
  local session_id = agent_sessions.of(server, row, harness, folder)
  local dir = FILES .. ids.run()
  local told, written = prompt_files(body.files, dir)
  local ask = { prompt = body.prompt, model = model, schema = body.json_schema, options = body.agent_options,
    session_id = session_id, files = told, dir = dir, mcp_servers = config.mcp_servers or {},
    env = config.env_vars or {}, runner = config.custom_runner }
  if harness.program then
    complete(server, row, harness, ask)
  end
  local made = harness.command(ask)
  table.move(made.files or {}, 1, #(made.files or {}), #written + 1, written)
  return { argv = made.argv, cwd = folder, stdin = made.stdin, files = written,
    env = server.boxes.environment(row, made.env), harness = harness, schema = body.json_schema,
    used = harness.counts_session and session_id and used(server, row, session_id) or nil,
    secrets = secrets_of(ask) }, model
end

return M
