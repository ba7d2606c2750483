--- The harness `codex`: Codex without its terminal, whose JSON lines become events.
local json = require "lbox.json"
local mcp = require "lbox.server.harness.mcp"
local options = require "lbox.server.harness.options"
local outputs = require "lbox.server.harness.output"
local prompts = require "lbox.server.harness.prompt"

local M = {
  name = "Codex",
  program = "codex",
  install = "npm install -g @openai/codex",
  provider = "openai",
  lost_session = "no rollout found for thread id",
  -- What it says it used is what the whole session did.
  counts_session = true,
}

local function check_web_search(name, value)
  if type(value) ~= "boolean" and value ~= "live" then
    options.wrong(name, "must be \"live\", true or false")
  end
end

local OPTIONS = { model_reasoning_effort = { "none", "minimal", "low", "medium", "high", "xhigh" },
  model_reasoning_summary = { "auto", "concise", "detailed", "none" },
  personality = { "friendly", "pragmatic", "none" }, web_search = check_web_search }

--- Raises 400 unless the options of agents are right.
function M.check_options(given)
  options.check(given, OPTIONS, M.name)
end

--- A setting as `-c` takes it. But for the escaped slash, a string of JSON is one of TOML.
local function set(argv, name, value)
  argv[#argv + 1] = "-c"
  argv[#argv + 1] = ("%s=%s"):format(name, (json.encode(value):gsub("\\/", "/")))
end

--- Codex talks to the provider of the model, or to where the box's environment says.
local function set_provider(argv, ask)
  local url = ask.env.OPENAI_BASE_URL or ask.provider.openai
  set(argv, "model_provider", "lbox")
  set(argv, "model_providers.lbox.name", ask.provider.id)
  set(argv, "model_providers.lbox.base_url", url)
  set(argv, "model_providers.lbox.env_key", ask.provider.key)
  set(argv, "model_providers.lbox.wire_api", "responses")
end

--- The MCP servers; headers, which are secrets, are in its environment. It takes a URL from its settings only, which
--- would be a file that a killed run leaves behind, or words of its command line.
local function set_mcp(argv, env, servers)
  local variable = mcp.variables(env)
  for _, server in ipairs(servers) do
    local name = "mcp_servers." .. server.name
    set(argv, name .. ".startup_timeout_sec", mcp.STARTUP_S)
    set(argv, name .. ".required", true)
    if server.source == "npm" then
      local command = mcp.command(server)
      set(argv, name .. ".command", table.remove(command, 1))
      set(argv, name .. ".args", json.array(command))
    else
      set(argv, name .. ".url", server.package_or_url)
    end
    local headers = {}
    for header, value in pairs(server.headers or {}) do
      headers[#headers + 1] = ("%s=%s"):format(json.encode(header), json.encode(variable(value)))
    end
    if headers[1] then
      argv[#argv + 1] = "-c"
      argv[#argv + 1] = ("%s.env_http_headers={%s}"):format(name, table.concat(headers, ","))
    end
  end
end

local function set_options(argv, given)
  for name, value in pairs(given or {}) do
    if name == "web_search" then
      value = value and "live" or "disabled"
    end
    set(argv, name, value)
  end
end

--- A schema as the model takes it: nothing besides the properties that it names. What matches this, matches the one
--- it is made of.
local function closed(schema)
  if type(schema) ~= "table" then
    return schema
  end
  local out = json.is_array(schema) and json.array {} or {}
  for key, value in pairs(schema) do
    out[key] = closed(value)
  end
  if schema.type == "object" and type(schema.properties) == "table" and schema.additionalProperties == nil then
    out.additionalProperties = false
  end
  return out
end

--- The command of a run.
---@param ask lbox.server.Ask
---@return lbox.server.HarnessCommand
function M.command(ask)
  local argv, files = { ask.program, "exec" }, {}
  if ask.session_id then
    argv[#argv + 1] = "resume"
  end
  local others = {}
  for _, file in ipairs(ask.files) do
    if file.media_type:match("^image/") then
      argv[#argv + 1] = "--image=" .. file.path
    else
      others[#others + 1] = file
    end
  end
  for _, word in ipairs { "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox",
    "--model=" .. ask.model } do
    argv[#argv + 1] = word
  end
  set_provider(argv, ask)
  -- Whoever is not the model is not talked to; where there is no way out, that would be tried for seconds.
  set(argv, "analytics.enabled", false)
  set(argv, "check_for_update_on_startup", false)
  -- That would write its environment, the key and all, to a file, which stays when the run is cancelled.
  set(argv, "features.shell_snapshot", false)
  set_options(argv, ask.options)
  local env = { [ask.provider.key] = ask.key, RUST_BACKTRACE = "0" }
  set_mcp(argv, env, ask.mcp_servers)
  if ask.schema then
    local path = ask.dir .. ".schema.json"
    argv[#argv + 1] = "--output-schema=" .. path
    files[1] = { path = path, bytes = json.encode(closed(ask.schema)) }
  end
  argv[#argv + 1] = ask.session_id
  argv[#argv + 1] = "-" -- the prompt is on stdin
  return { argv = argv, env = env, files = files, stdin = prompts.with_files(ask.prompt, others) }
end

-- ------------------------------------------------------------------------------------ its output

---@class lbox.server.Codex
---@field begun table<string, true>  ids of tools that were told of
---@field last table                 its last word, as far as it is known
---@field ended boolean|nil          it has been said
local Reader = {}
Reader.__index = Reader

--- What a tool was given and what came of it, by the type of its item.
local TOOLS = {
  command_execution = function(item)
    return item.type, { command = item.command },
      { output = item.aggregated_output, exit_code = item.exit_code, status = item.status }
  end,
  file_change = function(item)
    return item.type, { changes = item.changes }, { status = item.status }
  end,
  mcp_tool_call = function(item)
    return ("mcp__%s__%s"):format(tostring(item.server), tostring(item.tool)), item.arguments,
      { result = item.result, error = item.error, status = item.status }
  end,
  web_search = function(item)
    return item.type, { query = item.query }, { query = item.query }
  end,
  todo_list = function(item)
    return item.type, { items = item.items }, { items = item.items }
  end,
}

function Reader:tool(item, completed)
  local name, input, output = TOOLS[item.type](json.strip_nulls(item))
  if not self.begun[item.id] then
    self.begun[item.id] = true
    self.emit("tool", { tool_call_id = item.id, name = name, input = outputs.object(input) })
  end
  if completed then
    self.emit("tool_result", { tool_call_id = item.id, output = output })
  end
end

function Reader:item(line)
  local item, completed = outputs.object(line.item), line.type == "item.completed"
  local text = outputs.text(item.text)
  if TOOLS[item.type] and outputs.text(item.id) then
    self:tool(item, completed)
  elseif completed and item.type == "agent_message" and text then
    self.last.output = text
    self.emit("text", { text = text })
  elseif completed and item.type == "reasoning" and text then
    self.emit("thinking", { text = text })
  end
end

--- A message about an error: mostly what the model's server answered, as it is.
local function error_text(message)
  local text = outputs.text(message) or "it failed without words"
  local told = outputs.object(json.decode(text))
  return outputs.text(outputs.object(told.error).message) or outputs.text(told.message) or text
end

local HANDLERS = {
  ["item.started"] = Reader.item,
  ["item.completed"] = Reader.item,
  ["thread.started"] = function(self, line)
    self.last.session_id = outputs.text(line.thread_id)
  end,
  -- It may be tried again: whether that was the end, the end tells.
  error = function(self, line)
    self.complaint = error_text(line.message)
  end,
  ["turn.completed"] = function(self, line)
    local usage, last = outputs.object(line.usage), self.last
    self.ended, last.error = true, nil
    last.input_tokens = outputs.number(usage.input_tokens)
    last.cached_input_tokens = outputs.number(usage.cached_input_tokens)
    last.output_tokens = outputs.number(usage.output_tokens)
  end,
  ["turn.failed"] = function(self, line)
    self.ended, self.last.error = true, error_text(outputs.object(line.error).message)
  end,
}

--- Leaves what this run used of what its session did. What a failed run used counts with the next: it is not told
--- before.
local function subtract(last, before)
  for name, count in pairs(last.session_id == before.session_id and before or {}) do
    if type(last[name]) == "number" then
      last[name] = math.max(0, last[name] - count)
    end
  end
end

--- Reads a run: calls `emit(event, data)` for what is told. Returns the last line that was not part of that, and how
--- many lines could not be read. `command.used` is what the session had used before.
function M.read(process, emit, command)
  local reader = setmetatable({ emit = emit, begun = {}, last = {} }, Reader)
  local last_line, skipped = outputs.read_json_lines(process, function(line)
    local handler = HANDLERS[line.type]
    if handler then
      handler(reader, line)
    end
  end)
  subtract(reader.last, command.used or {})
  if reader.ended then
    emit(reader.last.error and "error" or "done", reader.last)
  end
  return last_line or reader.complaint, skipped
end

return M
