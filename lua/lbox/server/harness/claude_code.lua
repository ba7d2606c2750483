--- The harness `claude-code`: Claude Code without its terminal, whose JSON lines become events.
local json = require "lbox.json"
local mcp = require "lbox.server.harness.mcp"
local options = require "lbox.server.harness.options"
local outputs = require "lbox.server.harness.output"
local prompts = require "lbox.server.harness.prompt"

local M = {
  name = "Claude Code",
  program = "claude",
  install = "npm install -g @anthropic-ai/claude-code",
  provider = "anthropic",
  -- What it says about a session that is not there.
  lost_session = "No conversation found with session ID",
}

local THINKING = { "adaptive", "enabled", "disabled" }

local function check_thinking(name, value)
  local object = outputs.object(value)
  local known = object.type == THINKING[1] or object.type == THINKING[2] or object.type == THINKING[3]
  if not known or (object.budgetTokens ~= nil and math.type(object.budgetTokens) ~= "integer") then
    options.wrong(name, "must be { type = \"adaptive\", \"enabled\" (with budgetTokens) or \"disabled\" }")
  end
end

local OPTIONS = { maxTurns = "count", maxBudgetUsd = "amount", effort = { "low", "medium", "high", "xhigh", "max" },
  thinking = check_thinking, disallowedTools = "strings", agents = "object", promptSuggestions = "boolean",
  fallbackModel = "string", systemPrompt = "string" }

local FLAGS = { maxTurns = "--max-turns", maxBudgetUsd = "--max-budget-usd", effort = "--effort",
  agents = "--agents", promptSuggestions = "--prompt-suggestions", fallbackModel = "--fallback-model",
  disallowedTools = "--disallowed-tools" }

local function word(value)
  if type(value) ~= "table" then
    return tostring(value)
  end
  return value[1] and table.concat(value, ",") or json.encode(value)
end

local function add_options(argv, env, given)
  for name, value in pairs(given or {}) do
    if FLAGS[name] and not (type(value) == "table" and next(value) == nil) then
      argv[#argv + 1] = FLAGS[name] .. "=" .. word(value)
    end
  end
  local thinking = given and given.thinking
  if thinking and thinking.type ~= "adaptive" then
    env.MAX_THINKING_TOKENS = thinking.type == "disabled" and "0"
      or thinking.budgetTokens and tostring(thinking.budgetTokens) or nil
  end
end

--- The key, and where it is for: elsewhere than at Anthropic it is a bearer token.
local function add_key(env, ask)
  local provider = ask.provider
  if not ask.key then
    return
  elseif not provider.anthropic then
    env.ANTHROPIC_API_KEY = ask.key
    return
  end
  env.ANTHROPIC_API_KEY, env.ANTHROPIC_AUTH_TOKEN = "", ask.key
  env.ANTHROPIC_BASE_URL = not ask.env.ANTHROPIC_BASE_URL and provider.anthropic or nil
end

--- The system prompt, in a file: every user of the machine can read command lines.
local function add_system_prompt(argv, files, ask)
  local prompt = (ask.options or {}).systemPrompt
  if prompt then
    files[1] = { path = ask.dir .. ".system-prompt", bytes = prompt }
    argv[#argv + 1] = "--system-prompt-file=" .. files[1].path
  end
end

--- The MCP servers. It puts variables of its environment in the place of `${NAME}`: headers and URLs, which are or have
--- secrets, are there, and so is what has such a thing in it and means it.
local function add_mcp(argv, env, servers)
  if not servers[1] then
    return
  end
  local variable = mcp.variables(env)
  local function kept(text)
    return ("${%s}"):format(variable(text))
  end
  local function plain(text)
    return text:find("${", 1, true) and kept(text) or text
  end
  local told = {}
  for _, server in ipairs(servers) do
    if server.source == "url" then
      local headers = {}
      for name, value in pairs(server.headers or {}) do
        headers[name] = kept(value)
      end
      told[server.name] = { type = "http", url = kept(server.package_or_url), headers = headers }
    else
      local command = mcp.command(server)
      for i, each in ipairs(command) do
        command[i] = plain(each)
      end
      told[server.name] = { type = "stdio", command = table.remove(command, 1), args = command }
    end
  end
  env.MCP_TIMEOUT = tostring(mcp.STARTUP_S * 1000)
  argv[#argv + 1] = "--mcp-config=" .. json.encode { mcpServers = told }
end

--- Raises 400 unless the options of agents are right.
function M.check_options(given)
  options.check(given, OPTIONS, M.name)
end

--- The command of a run.
---@param ask lbox.server.Ask
---@return lbox.server.HarnessCommand
function M.command(ask)
  local argv = { ask.program, "--print", "--output-format=stream-json", "--verbose", "--include-partial-messages",
    "--dangerously-skip-permissions", "--model=" .. ask.model }
  -- Whoever is not the model is not talked to.
  local env, files = { DISABLE_AUTOUPDATER = "1", CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC = "1" }, {}
  add_options(argv, env, ask.options)
  add_system_prompt(argv, files, ask)
  add_key(env, ask)
  add_mcp(argv, env, ask.mcp_servers)
  if ask.schema then
    argv[#argv + 1] = "--json-schema=" .. json.encode(ask.schema)
  end
  if ask.session_id then
    argv[#argv + 1] = "--resume=" .. ask.session_id
  end
  return { argv = argv, env = env, files = files, stdin = prompts.with_files(ask.prompt, ask.files) }
end

-- ------------------------------------------------------------------------------------ its output

---@class lbox.server.ClaudeCode
---@field streamed table<string, true>  ids of messages whose text came in pieces
---@field last table                    its last word, as far as it is known
---@field ended boolean|nil             it has been said
local Reader = {}
Reader.__index = Reader

--- The beginning: MCP servers that could not be started or reached are told of, for the agent goes on without them.
function Reader:system(line)
  for _, server in ipairs(line.subtype == "init" and outputs.object(line.mcp_servers) or {}) do
    if type(server) == "table" and server.status == "failed" then
      self.emit("warning", { message = ("the MCP server %q cannot be used"):format(tostring(server.name)) })
    end
  end
end

--- A piece of a message. What a subagent says is told by its result.
function Reader:stream_event(line)
  local event = outputs.object(line.event)
  if outputs.text(line.parent_tool_use_id) then
    return
  elseif event.type == "message_start" then
    self.message_id = outputs.object(event.message).id
  elseif event.type == "content_block_delta" then
    local delta = outputs.object(event.delta)
    local text, thinking = outputs.text(delta.text), outputs.text(delta.thinking)
    if delta.type == "text_delta" and text then
      self.emit("text", { text = text })
    elseif delta.type == "thinking_delta" and thinking then
      self.emit("thinking", { text = thinking })
    else
      return
    end
    self.streamed[self.message_id or ""] = true
  end
end

--- A whole message, or a block of one. Its errors of the model are in the result, too.
function Reader:assistant(line)
  local message = outputs.object(line.message)
  local told = self.streamed[message.id] or message.model == "<synthetic>" or outputs.text(line.parent_tool_use_id)
  for _, block in ipairs(outputs.object(message.content)) do
    local text, thinking = outputs.text(block.text), outputs.text(block.thinking)
    if block.type == "tool_use" then
      self.emit("tool", { tool_call_id = block.id, name = block.name, input = block.input })
    elseif block.type == "text" and text and not told then
      self.emit("text", { text = text })
    elseif block.type == "thinking" and thinking and not told then
      self.emit("thinking", { text = thinking })
    end
  end
end

--- What a tool gave: a text, or blocks, which are a text when all of them are.
local function tool_output(content)
  local texts = {}
  for i, block in ipairs(outputs.object(content)) do
    if type(block) ~= "table" or block.type ~= "text" or type(block.text) ~= "string" then
      return content
    end
    texts[i] = block.text
  end
  return texts[1] and table.concat(texts, "\n") or content
end

function Reader:user(line)
  for _, block in ipairs(outputs.object(outputs.object(line.message).content)) do
    if type(block) == "table" and block.type == "tool_result" then
      self.emit("tool_result", { tool_call_id = block.tool_use_id, output = tool_output(block.content),
        is_error = block.is_error == true or nil })
    end
  end
end

--- Adds what was used since the last result, by every model. `total_cost_usd` would be that of the whole session.
local function add_usage(used, line)
  for _, model in pairs(outputs.object(line.model_usage_since_last_result or line.modelUsage)) do
    local cached = outputs.number(model.cacheReadInputTokens)
    used.input_tokens = used.input_tokens + outputs.number(model.inputTokens) + cached
      + outputs.number(model.cacheCreationInputTokens)
    used.cached_input_tokens = used.cached_input_tokens + cached
    used.output_tokens = used.output_tokens + outputs.number(model.outputTokens)
    used.total_cost_usd = used.total_cost_usd + outputs.number(model.costUSD)
  end
end

--- Why it failed, in its own words.
local function failure_of(line)
  local said = {}
  for _, each in ipairs(outputs.object(line.errors)) do
    said[#said + 1] = outputs.text(each)
  end
  return outputs.text(line.result) or said[1] and table.concat(said, "; ")
    or ("it ended with %s"):format(tostring(line.subtype))
end

--- How a turn ended. Mostly there is one; of several the last one counts.
function Reader:turn_ended(line)
  local last = self.last
  self.ended, last.output, last.error = true, nil, nil
  last.session_id = outputs.text(line.session_id)
  add_usage(last, line)
  local structured = line.structured_output
  if line.subtype ~= "success" or line.is_error == true then
    last.error = failure_of(line)
  elseif structured ~= nil and structured ~= json.null then
    last.output = json.encode(structured)
  else
    last.output = outputs.text(line.result) or ""
  end
end

local HANDLERS = { system = Reader.system, stream_event = Reader.stream_event, assistant = Reader.assistant,
  user = Reader.user, result = Reader.turn_ended }

--- Reads a run: calls `emit(event, data)` for what is told. Returns the last line that was not part of that, and how
--- many lines could not be read.
function M.read(process, emit)
  local last = { input_tokens = 0, output_tokens = 0, cached_input_tokens = 0, total_cost_usd = 0 }
  local reader = setmetatable({ emit = emit, streamed = {}, last = last }, Reader)
  local last_line, skipped = outputs.read_json_lines(process, function(line)
    local handler = HANDLERS[line.type]
    if handler then
      handler(reader, line)
    end
  end)
  if reader.ended then
    emit(last.error and "error" or "done", last)
  end
  return last_line, skipped
end

return M
