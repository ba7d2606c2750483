--- Helper for custom harnesses: agents that are Lua files. The server starts one inside the box as
--- `command args… -p PROMPT --model MODEL --stream [--session ID]` and reads box-sse-v1 events from
--- its standard output.
local errors = require "lbox.errors"
local json = require "lbox.json"

local M = {}

local WITH_VALUE = { ["-p"] = "prompt", ["--prompt"] = "prompt", ["--model"] = "model",
  ["--session"] = "session_id" }

---@class lbox.harness.Context
---@field prompt string
---@field model string
---@field session_id string|nil  nil for a new session
---@field stream boolean
---@field args string[]  everything as it was given
---@field json_schema table|nil  the JSON Schema the output has to match

local function parse(argv)
  local ctx = { prompt = "", model = "custom", stream = false, args = {} }
  for i = 1, #argv do
    ctx.args[i] = argv[i]
  end
  local i = 1
  while i <= #argv do
    local field = WITH_VALUE[argv[i]]
    if field then
      i = i + 1
      ctx[field] = argv[i] or ctx[field]
    elseif argv[i] == "--stream" then
      ctx.stream = true
    end
    i = i + 1
  end
  if ctx.session_id == "" then
    ctx.session_id = nil
  end
  local schema = os.getenv("LBOX_JSON_SCHEMA")
  if schema and schema ~= "" then
    ctx.json_schema = json.decode(schema)
  end
  return ctx
end

local function write_stdout(text)
  io.stdout:write(text)
  io.stdout:flush()
end

--- The input of a tool, which is an object on the wire, also when it is empty.
local function tool_input(input)
  if input == nil or input == json.null then
    return {}
  elseif type(input) ~= "table" then
    errors.raise("usage", "emit.tool: input must be a table with names, got a " .. type(input))
  end
  for name in pairs(input) do
    if type(name) ~= "string" then
      errors.raise("usage", ("emit.tool: input must be a table with names, got one with the key %s"):format(
        tostring(name)))
    end
  end
  return next(input) ~= nil and input or {}
end

local function emitter(write)
  local emit = {}

  --- Writes one event.
  function emit.emit(event, data)
    write(("event: %s\ndata: %s\n\n"):format(event, json.encode(data ~= nil and data or {})))
  end
  function emit.text(text)
    emit.emit("text", { text = text })
  end
  function emit.reasoning(text)
    emit.emit("thinking", { text = text })
  end
  function emit.tool(tool)
    emit.emit("tool", { toolCallId = tool.tool_call_id, name = tool.name, input = tool_input(tool.input) })
  end
  function emit.tool_result(result)
    emit.emit("tool_result", { toolCallId = result.tool_call_id, output = result.output })
  end
  function emit.done(done)
    emit.emit("done", {
      output = done.output,
      input_tokens = done.input_tokens or 0,
      output_tokens = done.output_tokens or 0,
      cached_input_tokens = done.cached_input_tokens,
      total_cost_usd = done.total_cost_usd,
      session_id = done.session_id,
    })
  end
  function emit.error(err, fields)
    local data = {}
    for key, value in pairs(fields or {}) do
      data[key] = value
    end
    data.error = errors.is(err) and err.message or tostring(err)
    emit.emit("error", data)
  end
  return emit
end

--- Runs `fn(ctx, emit)`. A returned string or table is the `done` event (with the incoming session
--- unless it names one); nothing means that `fn` emitted its own. An error becomes an `error` event,
--- then exit code 1. `opts` is for tests: the command line instead of `arg`, and what to call instead of
--- writing to standard output.
---@param fn fun(ctx: lbox.harness.Context, emit: table): string|table|nil
---@param opts { argv: string[]|nil, write: fun(text: string)|nil }|nil
function M.run(fn, opts)
  opts = opts or {}
  local ctx = parse(opts.argv or rawget(_G, "arg") or {})
  local emit = emitter(opts.write or write_stdout)
  local ok, result = pcall(fn, ctx, emit)
  if not ok then
    emit.error(result)
    io.stderr:write(tostring(result), "\n")
    os.exit(1, true)
  end
  if type(result) == "string" then
    result = { output = result }
  end
  if type(result) == "table" then
    local done = { session_id = ctx.session_id }
    for key, value in pairs(result) do
      done[key] = value
    end
    emit.done(done)
  end
end

return M
