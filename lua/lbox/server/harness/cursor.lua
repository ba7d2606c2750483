--- The harness `cursor`: Cursor's CLI without its terminal, by the output format that its makers document. It has not
--- been tried with the real program, which talks to nobody but its own service.
local json = require "lbox.json"
local options = require "lbox.server.harness.options"
local outputs = require "lbox.server.harness.output"
local prompts = require "lbox.server.harness.prompt"

local M = {
  name = "Cursor",
  program = "cursor-agent",
  install = "curl -fsS https://cursor.com/install | bash",
  provider = "cursor",
  -- What it says about a session that is not there is not documented: after any failure the next run begins a new one.
  lost_session = "",
  -- It takes them from a file of the box's user only.
  mcp_file = "~/.cursor/mcp.json",
}

--- Raises 400 unless the options of agents are right.
function M.check_options(given)
  options.check(given, {}, M.name)
end

--- The command of a run. The prompt is its last word: there is no other way for it.
---@param ask lbox.server.Ask
---@return lbox.server.HarnessCommand
function M.command(ask)
  local argv = { ask.program, "--print", "--output-format=stream-json", "--force", "--model=" .. ask.model }
  if ask.session_id then
    argv[#argv + 1] = "--resume=" .. ask.session_id
  end
  local prompt = prompts.with_schema(prompts.with_files(ask.prompt, ask.files), ask.schema)
  argv[#argv + 1] = prompt:sub(1, 1) == "-" and " " .. prompt or prompt -- not an option
  return { argv = argv, env = { [ask.provider.key] = ask.key } }
end

-- ------------------------------------------------------------------------------------ its output

---@class lbox.server.Cursor
---@field begun table<string, true>  ids of tools that were told of
---@field last table                 its last word, as far as it is known
---@field ended boolean|nil          it has been said
local Reader = {}
Reader.__index = Reader

function Reader:assistant(line)
  for _, block in ipairs(outputs.object(outputs.object(line.message).content)) do
    local text = type(block) == "table" and block.type == "text" and outputs.text(block.text)
    if text then
      self.emit("text", { text = text })
    end
  end
end

--- Name and content of a tool's call: { readToolCall = { args, result } }, or { function = { name, arguments } }.
local function call_of(line)
  local name, call = next(outputs.object(line.tool_call))
  call = outputs.object(call)
  if name == "function" then
    return outputs.text(call.name) or name, outputs.object(json.decode(outputs.text(call.arguments) or "")), call
  end
  return tostring(name):gsub("ToolCall$", ""), outputs.object(call.args), call
end

function Reader:tool_call(line)
  local id = outputs.text(line.call_id)
  local name, input, call = call_of(line)
  if not self.begun[id or ""] then
    self.begun[id or ""] = id and true
    self.emit("tool", { tool_call_id = id, name = name, input = input })
  end
  if line.subtype == "completed" then
    local result = outputs.object(call.result)
    local well = result.success
    self.emit("tool_result", { tool_call_id = id, output = well == nil and call.result or well,
      is_error = (well == nil and next(result) ~= nil) or nil })
  end
end

function Reader:result(line)
  local last = self.last
  self.ended, last.output, last.error = true, nil, nil
  last.session_id = outputs.text(line.session_id)
  if line.subtype ~= "success" or line.is_error == true then
    last.error = outputs.text(line.result) or ("it ended with %s"):format(tostring(line.subtype))
  else
    last.output = outputs.text(line.result) or ""
  end
end

local HANDLERS = { assistant = Reader.assistant, tool_call = Reader.tool_call, result = Reader.result }

--- Reads a run: calls `emit(event, data)` for what is told. Returns the last line that was not part of that, and how
--- many lines could not be read. What a run used it does not say.
function M.read(process, emit, command)
  local reader = setmetatable({ emit = emit, begun = {}, last = {} }, Reader)
  local last_line, skipped = outputs.read_json_lines(process, function(line)
    local handler = HANDLERS[line.type]
    if handler then
      handler(reader, json.strip_nulls(line))
    end
  end)
  if reader.last.error then
    emit("error", reader.last)
  elseif reader.ended then
    reader.last.output = command.schema and prompts.bare_json(reader.last.output) or reader.last.output
    emit("done", reader.last)
  end
  return last_line, skipped
end

return M
