-- A model that says what a spec has written, by three APIs: Anthropic's Messages, OpenAI's Responses and Chat
-- Completions, all streamed. Run in the fault server (see model_server.lua). Every request that offers tools takes
-- the next turn; others, of titles and the like, are answered with a word. A turn is one of
--
--     { text = "…" }                       says that
--     { think = "…", text = "…" }          thinks before
--     { run = "…" }                        runs a shell command
--     { write = "path", content = "…" }    writes a file
--     { mcp = "server", call = "name", input = { … } }  calls a tool of an MCP server
--     { structured = { … } }               gives its answer in the form that was asked for
--     { status = 400, error = "…" }        fails, from then on
--     { hold = true }                      says one word and nothing more
--
-- and may have `wait`, ms before it says something. Each uses 100 tokens of input, 20 of them cached, and 5 of output.
local json = require "lbox.json"

local turns = {}
local called = 0
local STOP = "stop"

local function has_tool(body, name)
  for _, tool in ipairs(body.tools or {}) do
    if (tool.name or (tool["function"] or {}).name) == name then
      return true
    end
  end
  return false
end

--- Names the tool of an MCP server as the agent does.
local function call_mcp(body, turn)
  if has_tool(body, turn.mcp .. "_" .. turn.call) then
    turn.tool = turn.mcp .. "_" .. turn.call
  elseif has_tool(body, "mcp__" .. turn.mcp) then
    turn.namespace, turn.tool = "mcp__" .. turn.mcp, turn.call
  else
    turn.tool = ("mcp__%s__%s"):format(turn.mcp, turn.call)
  end
end

--- The next turn; a tool's call as name and input.
local function next_turn(body, tools)
  if not body.tools or #body.tools == 0 then
    return { text = "Title" }
  end
  local turn = turns[1] or { text = "There are no more turns." }
  if not turn.status then
    table.remove(turns, 1)
  end
  local run = turn.run
  if turn.write and has_tool(body, tools.write) then
    turn.tool, turn.input = tools.write, { [tools.path] = turn.write, content = turn.content }
  elseif turn.write then
    run = ("printf %%s '%s' >'%s'"):format(turn.content, turn.write)
  end
  if run then
    turn.tool, turn.input = tools.run, { [tools.command] = run, description = tools.described and "a command" or nil }
  end
  if turn.mcp then
    call_mcp(body, turn)
  end
  if turn.structured and has_tool(body, "StructuredOutput") then
    turn.tool, turn.input = "StructuredOutput", turn.structured
  elseif turn.structured then
    turn.text = json.encode(turn.structured)
  end
  called = called + 1
  turn.id = "call_" .. called
  return turn
end

--- Begins the answer; nil when the turn is none.
local function begin(reply, turn)
  if turn.wait then
    reply:sleep(turn.wait)
  end
  if turn.status then
    reply:json(turn.status, { type = "error", error = { type = "invalid_request_error", message = turn.error } })
    return nil
  end
  reply:begin(200, { ["Content-Type"] = "text/event-stream" })
  if turn.hold then
    turn.text = "Well"
  end
  return function(value, name)
    reply:chunk((name and "event: " .. name .. "\n" or "") .. "data: "
      .. (type(value) == "string" and value or json.encode(value)) .. "\n\n")
    if turn.hold and turn.said then
      reply:hold()
      error(STOP, 0)
    end
  end
end

local function answer(tools, say)
  return function(reply, request)
    local body = json.strip_nulls(assert(json.decode(request.body)))
    local turn = next_turn(body, tools)
    local send = begin(reply, turn)
    if send then
      local ok, err = pcall(say, send, turn, body)
      if ok then
        reply:finish()
      elseif err ~= STOP then
        error(err, 0)
      end
    end
  end
end

local function messages(send, turn, body)
  local function event(value)
    send(value, value.type)
  end
  local index = 0
  local function block(start, delta)
    event { type = "content_block_start", index = index, content_block = start }
    event { type = "content_block_delta", index = index, delta = delta }
    event { type = "content_block_stop", index = index }
    index = index + 1
  end
  event { type = "message_start", message = { id = turn.id or "title", type = "message", role = "assistant",
    model = body.model, content = json.array {},
    usage = { input_tokens = 80, cache_read_input_tokens = 20, cache_creation_input_tokens = 0, output_tokens = 1 } } }
  if turn.think then
    block({ type = "thinking", thinking = "", signature = "" }, { type = "thinking_delta", thinking = turn.think })
  end
  turn.said = true
  if turn.text then
    block({ type = "text", text = "" }, { type = "text_delta", text = turn.text })
  end
  if turn.tool then
    block({ type = "tool_use", id = turn.id, name = turn.tool, input = {} },
      { type = "input_json_delta", partial_json = json.encode(turn.input) })
  end
  event { type = "message_delta", delta = { stop_reason = turn.tool and "tool_use" or "end_turn" },
    usage = { output_tokens = 5 } }
  event { type = "message_stop" }
end

local function responses(send, turn)
  local function event(value)
    send(value, value.type)
  end
  local index = 0
  local function item(value, delta)
    event { type = "response.output_item.added", output_index = index, item = value }
    if delta then
      event { type = "response.output_text.delta", item_id = value.id, output_index = index, content_index = 0,
        delta = delta }
    end
    event { type = "response.output_item.done", output_index = index, item = value }
    index = index + 1
  end
  event { type = "response.created", response = { id = "resp_" .. turn.id } }
  if turn.think then
    item { type = "reasoning", id = "r_" .. turn.id,
      summary = json.array { { type = "summary_text", text = turn.think } } }
  end
  turn.said = true
  if turn.text then
    item({ type = "message", role = "assistant", id = "m_" .. turn.id,
      content = json.array { { type = "output_text", text = turn.text } } }, turn.text)
  end
  if turn.tool then
    item { type = "function_call", id = "f_" .. turn.id, call_id = turn.id, name = turn.tool,
      namespace = turn.namespace, arguments = json.encode(turn.input) }
  end
  event { type = "response.completed", response = { id = "resp_" .. turn.id, usage = { input_tokens = 100,
    input_tokens_details = { cached_tokens = 20 }, output_tokens = 5, output_tokens_details = { reasoning_tokens = 0 },
    total_tokens = 105 } } }
end

local function chat(send, turn, body)
  local function chunk(delta, reason, usage)
    send { id = turn.id or "title", object = "chat.completion.chunk", created = 1, model = body.model, usage = usage,
      choices = json.array { { index = 0, delta = delta, finish_reason = reason } } }
  end
  if turn.think then
    chunk { role = "assistant", reasoning_content = turn.think }
  end
  turn.said = true
  if turn.text then
    chunk { role = "assistant", content = turn.text }
  end
  if turn.tool then
    chunk { role = "assistant", tool_calls = json.array { { index = 0, id = turn.id, type = "function",
      ["function"] = { name = turn.tool, arguments = json.encode(turn.input) } } } }
  end
  chunk({}, turn.tool and "tool_calls" or "stop", { prompt_tokens = 100, completion_tokens = 5, total_tokens = 105,
    prompt_tokens_details = { cached_tokens = 20 } })
  send "[DONE]"
end

-- An MCP server that is reached by HTTP, by whoever has the header. Its tool `shout` gives `text` in capitals.
local function mcp(reply, request)
  local call = json.strip_nulls(assert(json.decode(request.body)))
  local result, failure
  if not (request.headers["x-mcp-key"] or ""):find("^Key mcp%-") then
    return reply:json(401, {})
  elseif call.id == nil then
    return reply:json(202, {})
  elseif call.method == "initialize" then
    result = { protocolVersion = call.params.protocolVersion, capabilities = { tools = {} },
      serverInfo = { name = "shouter", version = "1" } }
  elseif call.method == "tools/list" then
    result = { tools = json.array { { name = "shout", description = "Shouts.", inputSchema = { type = "object",
      properties = { text = { type = "string" } } } } } }
  elseif call.method == "tools/call" then
    result = { content = json.array { { type = "text", text = call.params.arguments.text:upper() } } }
  else
    failure = { code = -32601, message = "no such method" }
  end
  reply:json(200, { jsonrpc = "2.0", id = call.id, result = result, error = failure },
    { ["Content-Type"] = "application/json" })
end

return function(routes)
  routes["POST /_turns"] = function(reply, request)
    turns = assert(json.decode(request.body)).turns
    reply:json(200, {})
  end
  routes["POST /mcp"] = mcp
  routes["POST /v1/messages"] = answer({ write = "Write", path = "file_path", run = "Bash", command = "command",
    described = true }, messages)
  routes["POST /v1/responses"] = answer({ write = "write_file", path = "path", run = "exec_command",
    command = "cmd" }, responses)
  routes["POST /v1/chat/completions"] = answer({ write = "write", path = "filePath", run = "bash",
    command = "command", described = true }, chat)
end
