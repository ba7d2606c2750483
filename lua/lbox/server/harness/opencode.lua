--- The harness `opencode`: OpenCode without its terminal, whose JSON lines become events.
local json = require "lbox.json"
local mcp = require "lbox.server.harness.mcp"
local options = require "lbox.server.harness.options"
local outputs = require "lbox.server.harness.output"
local prompts = require "lbox.server.harness.prompt"

local M = {
  name = "OpenCode",
  program = "opencode",
  install = "npm install -g opencode-ai",
  provider = "opencode",
  lost_session = "Session not found",
  -- Elsewhere it would work in that folder nevertheless, and never end.
  session_of_folder = true,
}

local OPTIONS = { reasoningEffort = { "low", "medium", "high" }, textVerbosity = { "low", "medium", "high" },
  reasoningSummary = { "auto", "concise", "detailed", "none" }, thinking = "object" }

--- Raises 400 unless the options of agents are right.
function M.check_options(given)
  options.check(given, OPTIONS, M.name)
end

--- The provider as OpenCode is to know it, and its id there. Where the box's environment says where it is, any server
--- will do that speaks its API: for OpenAI's, Chat Completions.
local function provider_of(ask)
  local provider = { models = { [ask.model] = { options = ask.options } } }
  local id, env = ask.provider.id, ask.env
  if id == "openai" and env.OPENAI_BASE_URL then
    id = "lbox"
    provider.npm = "@ai-sdk/openai-compatible"
    provider.options = { baseURL = env.OPENAI_BASE_URL, apiKey = ask.key or env[ask.provider.key] }
  elseif id == "anthropic" and env.ANTHROPIC_BASE_URL then
    provider.options = { baseURL = env.ANTHROPIC_BASE_URL:gsub("/$", "") .. "/v1" }
  elseif not ask.options then
    provider.models = nil -- it knows them
  end
  return id, provider
end

local function mcp_of(servers)
  local out = {}
  for _, server in ipairs(servers) do
    out[server.name] = server.source == "url"
      and { type = "remote", url = server.package_or_url, headers = server.headers, oauth = false }
      or { type = "local", command = mcp.command(server) }
    out[server.name].timeout = mcp.STARTUP_S * 1000
  end
  return out
end

--- The command of a run.
---@param ask lbox.server.Ask
---@return lbox.server.HarnessCommand
function M.command(ask)
  local id, provider = provider_of(ask)
  local argv = { ask.program, "run", "--format=json", "--auto", "--thinking", ("--model=%s/%s"):format(id, ask.model) }
  for _, file in ipairs(ask.files) do
    argv[#argv + 1] = "--file=" .. file.path
  end
  -- With a title none is asked from the model.
  argv[#argv + 1] = ask.session_id and "--session=" .. ask.session_id or "--title=lbox"
  local config = json.encode { autoupdate = false, share = "disabled", snapshot = false,
    provider = { [id] = provider }, mcp = mcp_of(ask.mcp_servers) }
  -- It puts variables and files in the place of {env:NAME} and {file:PATH}; here these mean themselves.
  config = config:gsub("{(%a+):", "\\u007b%1:")
  return { argv = argv, stdin = prompts.with_schema(ask.prompt, ask.schema), env = {
    [ask.provider.key] = ask.key, OPENCODE_CONFIG_CONTENT = config,
    -- Whoever is not the model is not talked to.
    OPENCODE_DISABLE_MODELS_FETCH = "1", OPENCODE_DISABLE_LSP_DOWNLOAD = "1", OPENCODE_DISABLE_AUTOUPDATE = "1",
  } }
end

-- ------------------------------------------------------------------------------------ its output

-- Why the last step ended when its answer is not all there is.
local CUT = { length = "the model's answer was cut off: it was too long",
  ["content-filter"] = "the model's answer was held back by a filter", error = "the model failed" }

---@class lbox.server.OpenCode
---@field said string[]       texts of the step
---@field last table          its last word, as far as it is known
---@field reason string|nil   why the last step ended
local Reader = {}
Reader.__index = Reader

local HANDLERS = {
  step_start = function(self)
    self.said, self.reason = {}, nil
  end,
  text = function(self, part)
    local text = outputs.text(part.text)
    if text then
      self.said[#self.said + 1] = text
      self.emit("text", { text = text })
    end
  end,
  reasoning = function(self, part)
    local text = outputs.text(part.text)
    if text then
      self.emit("thinking", { text = text })
    end
  end,
  -- It is told once it has ended.
  tool_use = function(self, part)
    local state = outputs.object(part.state)
    local failed = state.status == "error"
    self.emit("tool", { tool_call_id = part.callID, name = part.tool, input = outputs.object(state.input) })
    self.emit("tool_result", { tool_call_id = part.callID, output = failed and state.error or state.output,
      is_error = failed or nil })
  end,
  step_finish = function(self, part)
    local tokens, last = outputs.object(part.tokens), self.last
    local cache = outputs.object(tokens.cache)
    local cached = outputs.number(cache.read)
    self.reason = part.reason
    last.input_tokens = last.input_tokens + outputs.number(tokens.input) + cached + outputs.number(cache.write)
    last.cached_input_tokens = last.cached_input_tokens + cached
    last.output_tokens = last.output_tokens + outputs.number(tokens.output) + outputs.number(tokens.reasoning)
    last.total_cost_usd = last.total_cost_usd + outputs.number(part.cost)
  end,
}

function Reader:failed(line)
  local what = outputs.object(line.error)
  self.last.error = outputs.text(outputs.object(what.data).message) or outputs.text(what.name)
    or "it failed without words"
end

--- Reads a run: calls `emit(event, data)` for what is told. Returns the last line that was not part of that, and how
--- many lines could not be read.
function M.read(process, emit, command)
  local last = { input_tokens = 0, output_tokens = 0, cached_input_tokens = 0, total_cost_usd = 0 }
  local reader = setmetatable({ emit = emit, said = {}, last = last }, Reader)
  local last_line, skipped = outputs.read_json_lines(process, function(line)
    last.session_id = outputs.text(line.sessionID) or last.session_id
    local handler = HANDLERS[line.type]
    if handler then
      handler(reader, outputs.object(line.part))
    elseif line.type == "error" then
      reader:failed(line)
    end
  end)
  last.error = last.error or CUT[reader.reason]
  if last.error then
    emit("error", last)
  elseif outputs.text(reader.reason) and reader.reason ~= "tool-calls" then
    local text = table.concat(reader.said)
    last.output = command.schema and prompts.bare_json(text) or text
    emit("done", last)
  end
  return last_line, skipped
end

return M
