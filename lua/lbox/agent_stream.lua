--- What the events of an agent run mean: box-sse-v1 as chunks, and how a run whose stream broke off
--- is settled.
local async = require "lbox.async"
local errors = require "lbox.errors"
local failure = require "lbox.failure"
local json = require "lbox.json"
local runs = require "lbox.run"
local settle = require "lbox.settle"
local streams = require "lbox.stream"

local M = {}

local keep = streams.keep

-- Where agents put the id of a tool call.
local TOOL_ID_FIELDS = { "tool_call_id", "tool_use_id", "toolCallId", "id" }

local function text_of(value)
  return type(value) == "string" and value or nil
end

local function number_of(value)
  return type(value) == "number" and value or 0
end

local function tool_id(data)
  for _, field in ipairs(TOOL_ID_FIELDS) do
    if type(data[field]) == "string" then
      return data[field]
    end
  end
end

--- What the agent or the server said, fit for a message.
local function said(self, text)
  return failure.said(text, { self._link.client.settings.api_key })
end

--- Calls a callback of the user; an error in it cancels the run and is raised unchanged.
local function call_back(self, callback, argument)
  local ok, err = pcall(callback, argument)
  if not ok then
    self._error = err
    streams.cancel(self)
    error(err, 0)
  end
end

--- A piece of text as the next chunk; nothing when it is empty. What comes after the end of the run
--- is no part of its result.
local function text_chunk(self, text)
  if text and text ~= "" then
    if not self._over then
      keep(self, text)
    end
    return { type = "text-delta", text = text }
  end
end

--- The name that the server gave the run, if this event tells.
local function name_of(event, data)
  local value = event == "run_start" and json.decode(data or "")
  local id = type(value) == "table" and text_of(value.run_id)
  return id and id ~= "" and id or nil
end

--- The server told what the run cost.
local function set_cost(self, data)
  local told = runs.set_cost(self.cost, data)
  if self._entry and told then
    self._entry:cost(self.cost)
  end
end

local function named(self, id)
  self.id, self._run_id, self._known.run_id = id, id, id
  if self._entry then
    self._entry.run_id = id
  end
end

local events = {}

function events.run_start(self, data)
  local id = text_of(data.run_id)
  if id and id ~= "" then
    named(self, id)
  end
  return { type = "start", run_id = id or "" }
end

function events.text(self, data)
  return text_chunk(self, text_of(data.text))
end

local function reasoning_chunk(text)
  if text and text ~= "" then
    return { type = "reasoning", text = text }
  end
end

function events.thinking(_, data)
  return reasoning_chunk(text_of(data.text))
end

function events.tool(self, data)
  local id, name = tool_id(data), text_of(data.name) or ""
  local input = data.input
  if input == nil or input == json.null then
    input = {}
  end
  if self._on_tool_use then
    call_back(self, self._on_tool_use, { tool_call_id = id, name = name, input = input })
  end
  return { type = "tool-call", tool_call_id = id, tool_name = name, input = input }
end

function events.tool_result(self, data)
  local id = tool_id(data)
  if self._on_tool_result then
    call_back(self, self._on_tool_result, { tool_call_id = id, output = data.output })
  end
  return { type = "tool-result", tool_call_id = id, output = data.output }
end

local function finish_chunk(data, output)
  return {
    type = "finish",
    output = output or "",
    usage = {
      input_tokens = number_of(data.input_tokens),
      output_tokens = number_of(data.output_tokens),
      cached_input_tokens = number_of(data.cached_input_tokens),
    },
    session_id = text_of(data.session_id) or "",
  }
end

function events.done(self, data)
  if self._over then
    return nil
  end
  local output = text_of(data.output)
  streams.replace_text(self, output)
  set_cost(self, data)
  self._over = true
  self.status = "completed"
  return finish_chunk(data, output)
end

function events.stats(_, data)
  data.type, data.cpu_ns, data.memory_peak_bytes = "stats", number_of(data.cpu_ns), number_of(data.memory_peak_bytes)
  return json.strip_nulls(data)
end

function events.error(self, data)
  set_cost(self, data)
  self.status = "failed"
  local message = text_of(data.error)
  if not message or message == "" then
    message = "the agent reported an error and did not say which"
  end
  streams.fail(self, "failed", "run", said(self, message), { retryable = true })
end

--- An event as a chunk; nothing for one that has none. Where the core found nothing but a text in
--- the data, it gives that instead of the data.
local function translate(self, event, data, text)
  if text then
    return event == "text" and text_chunk(self, text) or event == "thinking" and reasoning_chunk(text) or nil
  end
  local value = json.decode(data)
  local known = events[event]
  if not known then
    return value ~= nil and { type = "unknown", event = event, data = value } or nil
  elseif value == nil and event ~= "error" then
    return nil -- not JSON: skipped, as every client does
  end
  return known(self, type(value) == "table" and value or {})
end

-- -------------------------------------------------------------------------------- settling

--- Waits for `fn(...)`, which asks the server about a stream that broke off; a cancel also cancels
--- the run. Returns false and the error when the server gave no answer.
local function ask(self, fn, ...)
  local ok, data, why = pcall(fn, ...)
  if not ok and not errors.is(data, "network") and not errors.is(data, "timeout")
    and not errors.is(data, "api") then
    streams.cancel(self)
    error(data, 0)
  end
  local at = self._deadline.at
  if self._req and at and async.now() >= at then
    streams.expire(self, false)
  end
  return ok, data, why
end

local function settle_run(self)
  local ok, data = ask(self, settle.look_up, self._link, self._run_id, self._deadline)
  if ok and data and not settle.is_over(data) and self._follow then
    ok, data = ask(self, settle.follow, self._link, self._run_id, self._deadline, data,
      function() return not self._req end)
  end
  return ok, data
end

--- The body ended without `done` or `error`: that alone is no success. The server's list decides.
local function at_end(self)
  local what = self._req:failure() and "the stream of the run was cut off"
    or "the stream ended without the end of the run"
  if not self._run_id then
    streams.fail(self, "failed", "stream", what .. ", before the run had an id",
      { retryable = true })
  end
  self._settling = true
  local ok, data = settle_run(self)
  if not self._req then
    return self:next() -- closed or cancelled meanwhile
  elseif not ok then
    streams.fail(self, "detached", "stream", what .. ", and the server could not be asked about it",
      { retryable = true, cause = data })
  elseif not data then
    streams.fail(self, "failed", "stream", what .. ", and the run is not in the server's list",
      { retryable = true })
  end
  if settle.is_over(data) then
    set_cost(self, data)
  end
  if data.status == "completed" then
    local output = text_of(data.output)
    streams.replace_text(self, output)
    streams.finish(self, "completed")
    return finish_chunk(data, output)
  elseif data.status == "running" then
    streams.fail(self, "detached", "stream", what .. "; the run goes on at the server",
      { retryable = true })
  end
  local reason = text_of(data.error_message)
  streams.fail(self, data.status == "cancelled" and "cancelled" or "failed", "stream",
    ("%s; the run %s%s"):format(what, data.status == "cancelled" and "was cancelled" or "failed",
      reason and reason ~= "" and ": " .. said(self, reason) or ""), { retryable = true })
end

---@class lbox.agent_stream.Options
---@field link lbox.Link
---@field spec lbox.client.Spec
---@field entry lbox.budget.Entry|nil  the run in the budgets it carries
---@field deadline lbox.Deadline
---@field idle_timeout number|nil
---@field follow boolean|nil  when the stream broke off, follow the run in the list to its end
---@field on_tool_use fun(tool: table)|nil
---@field on_tool_result fun(result: table)|nil

--- The stream ended, however.
local function ended(self)
  if self._entry then
    self._entry:ended(self.status)
  end
end

local kind = { translate = translate, at_end = at_end, text = runs.trim, ended = ended,
  name_of = name_of, named = named }

--- Starts a run and returns its stream.
---@param opts lbox.agent_stream.Options
---@return lbox.Stream
function M.open(opts)
  local entry = opts.entry
  local link, spec = opts.link, opts.spec
  spec.permit = entry and function() entry:check() end
  function spec.undo(transfer)
    local run_id = streams.end_run(link, transfer, name_of)
    if entry then
      entry.run_id = run_id
    end
  end
  local ok, self = pcall(streams.open, {
    link = link,
    type = "agent",
    kind = kind,
    spec = spec,
    send = entry and function(it)
      return entry:open(function() return link:send(it) end)
    end,
    deadline = opts.deadline,
    idle_timeout = opts.idle_timeout,
  })
  if not ok then
    local err = self
    if entry then
      entry:not_opened(err)
    end
    error(err, 0)
  end
  self._follow = opts.follow
  self._on_tool_use, self._on_tool_result = opts.on_tool_use, opts.on_tool_result
  if entry then
    self._entry = entry
    entry:opened(self)
  end
  return self
end

return M
