-- What the recording server answers: every endpoint of the Box API, in the documented shapes. Run by
-- spec/support/fault_server.lua, whose log is the record. A base URL of /SDK/N puts the requests of one
-- operation under one name; here that is cut off the path, and noted as `sdk` and `operation`.
local core = require "lbox.core"
local json = require "lbox.json"

local NOW = 1790000000

local function merge(...)
  local all = {}
  for _, each in ipairs { ... } do
    for key, value in pairs(each) do
      all[key] = value
    end
  end
  return all
end

-- ---------------------------------------------------------------------------------- what there is

local CUSTOM = { agent = "custom", model = "custom" }

-- A box is what its id says.
local BOXES = {
  keep = { keep_alive = true },
  custom = CUSTOM,
  codex = { agent = "codex", model = "openai/gpt-5.4" },
  opencode = { agent = "opencode", model = "opencode/o3" },
  ephemeral = { ephemeral = true, expires_at = NOW + 3600 },
}

local function box(id, more)
  return merge({
    id = id, customer_id = "c1", name = id, status = "idle", size = "small", agent = "claude-code",
    model = "anthropic/claude-sonnet-4-5", created_at = NOW, updated_at = NOW, labels = json.array { "team:a" },
    enabled_skills = json.array { "owner/repo/skill" },
  }, BOXES[id] or {}, more or {})
end

local function new_box(body)
  if body.ephemeral then
    return box("ephemeral", { name = body.name })
  end
  -- A slow one is creating until it is asked for.
  return box(body.name == "slow" and "slow" or "new", {
    name = body.name, agent = body.agent, model = body.model, status = body.name == "slow" and "creating" or "idle",
  })
end

local function snapshot(id, status)
  return { id = id, name = id, box_id = "b1", size_bytes = 1, status = status or "ready", created_at = NOW }
end

local function schedule(body)
  return merge({
    id = "sch1", box_id = "b1", type = "exec", cron = "* * * * *", status = "active", total_runs = 0,
    total_failures = 0, created_at = NOW, updated_at = NOW,
  }, body and body.type and { type = body.type, cron = body.cron } or {})
end

local function recording(id, status)
  return {
    id = id, box_id = "b1", status = status or "completed", started_at = NOW * 1000, expires_at = NOW,
    markers = json.array {},
  }
end

local CONTENT = { title = "Title", url = "https://example.com/", text = "text" }
local TAB = { id = "tab1", url = "https://example.com/", title = "Title" }
local RUN = {
  id = "r1", box_id = "b1", customer_id = "c1", type = "agent", status = "completed", input_tokens = 1,
  output_tokens = 1, cost_usd = 0.01, duration_ms = 5, created_at = NOW, completed_at = NOW,
}
local DONE = { exit_code = 0, output = "out\n", error = "" }

-- -------------------------------------------------------------------------------------- the streams

local function agent_run(reply, request, body)
  if body.prompt == "flaky" and request.count == 1 then
    return reply:json(500, { error = "try again" })
  end
  reply:begin(200, { ["Content-Type"] = "text/event-stream" })
  reply:event("run_start", { run_id = "r1" })
  reply:event("tool", { tool_call_id = "t1", name = "Bash", input = { command = "ls" } })
  reply:event("tool_result", { tool_call_id = "t1", output = "out" })
  reply:event("text", { text = '{"name":"Ada"}' })
  reply:event("done", { output = "", input_tokens = 1, output_tokens = 1, total_cost_usd = 0.01, session_id = "s" })
  reply:event("stats", { cpu_ns = 1, memory_peak_bytes = 1 })
  return reply:finish()
end

local function exec_stream(reply)
  reply:begin(200)
  reply:chunk("out\nevent: exit\ndata: {\"exit_code\":0,\"cpu_ns\":9}\n\n")
  return reply:finish()
end

--- A session: its frames are noted, and its command ends with its input, or when that says "exit".
local function exec_session(reply, request)
  local ws, frames = reply:websocket(request), json.array {}
  request.entry.frames = frames
  for frame in ws.receive do
    frames[#frames + 1] = frame
    if frame.type == "start" then
      ws:send { type = "started", pid = 7, execId = "e1" }
    elseif frame.type == "stdin_close" or (frame.type == "stdin" and core.base64_decode(frame.data):find("exit")) then
      ws:send { type = "stdout", data = "YWJj" }
      ws:send { type = "stderr", data = "YWJj" }
      ws:send { type = "exit", code = 0 }
    end
  end
end

-- ---------------------------------------------------------------------------------------- endpoints

-- { method, pattern of the path after /v2/box, answer }. An answer is a table, or a function of the decoded
-- body, what the pattern captured, and the query. One that `streams` is given the reply and answers by itself.
local ENDPOINTS = {
  { "POST", "", new_box },
  { "GET", "", function() return json.array { box("b1") } end },
  { "DELETE", "", {} },
  { "POST", "/from%-snapshot", new_box },
  { "DELETE", "/snapshots", { deleted = 2 } },
  { "GET", "/settings/env", { env_vars = { TOKEN = "****" } } },
  { "GET", "/([^/]+)", function(_, id) return box(id) end },
  { "GET", "/[^/]+/status", { status = "idle" } },
  { "GET", "/[^/]+/startup", { init_command = "npm start" } },
  { "POST", "/[^/]+/config/labels", { labels = json.array { "team:a" } } },
  { "DELETE", "/[^/]+/config/labels/.+", { labels = json.array {} } },
  { "PUT", "/[^/]+/config/git", { git_user_name = "Ada", git_user_email = "ada@example.com" } },
  { "PUT", "/[^/]+/git%-config", { git_user_name = "Ada", git_user_email = "ada@example.com" } },
  { "POST", "/[^/]+/snapshots", function(body)
    return snapshot("snap1", body.name == "slow" and "creating" or "ready")
  end },
  { "GET", "/[^/]+/snapshots", { snapshots = json.array { snapshot("snap1") } } },
  { "GET", "/[^/]+/logs", { logs = json.array {
    { timestamp = NOW, level = "info", source = "system", message = "started" },
  } } },
  { "GET", "/[^/]+/runs", { runs = json.array { RUN } } },
  { "POST", "/[^/]+/run", { status = "accepted", run_id = "r1" } },
  { "POST", "/[^/]+/run/stream", agent_run, streams = true },
  { "POST", "/[^/]+/exec", DONE },
  { "POST", "/[^/]+/code", DONE },
  { "POST", "/[^/]+/exec%-stream", exec_stream, streams = true },
  { "POST", "/[^/]+/code%-stream", exec_stream, streams = true },
  { "GET", "/[^/]+/exec%-session", exec_session, streams = true },
  { "GET", "/[^/]+/files/read", { content = "YWJj" } },
  { "GET", "/[^/]+/files/list", { files = json.array {
    { name = "a.txt", path = "/workspace/home/out/a.txt", size = 3, is_dir = false, mod_time = "2026-01-01T00:00:00Z" },
  } } },
  { "GET", "/[^/]+/files/stat", function(_, _, query)
    return {
      type = query:find("out&", 1, true) and "directory" or "file", size = 3, mod_time = "2026-01-01T00:00:00Z",
      inode = 7, version = "v1",
    }
  end },
  { "GET", "/[^/]+/files/download", function(reply)
    reply:text(200, "abc", { ["Content-Type"] = "application/octet-stream" })
  end, streams = true },
  { "GET", "/[^/]+/git/diff", { diff = "" } },
  { "GET", "/[^/]+/git/status", { status = "" } },
  { "POST", "/[^/]+/git/commit", { sha = "abc", message = "m" } },
  { "POST", "/[^/]+/git/create%-pr", { url = "https://example.com/1", number = 1, title = "t", base = "main" } },
  { "POST", "/[^/]+/git/create%-issue", { url = "https://example.com/1", number = 1, title = "t" } },
  { "POST", "/[^/]+/git/exec", { output = "", exit_code = 0 } },
  { "POST", "/[^/]+/schedules", schedule },
  { "GET", "/[^/]+/schedules", function() return json.array { schedule() } end },
  { "GET", "/[^/]+/schedules/[^/]+", schedule },
  { "PATCH", "/[^/]+/schedules/[^/]+", schedule },
  { "POST", "/[^/]+/preview", function(body) return { url = "https://b1.example.com", port = body.port } end },
  { "GET", "/[^/]+/preview", { previews = json.array {
    { id = "b1-80", port = 80, url = "https://b1.example.com", created_at = NOW, basic_auth = false,
      bearer_token = false },
  } } },
  { "POST", "/[^/]+/browser/tabs", TAB },
  { "GET", "/[^/]+/browser/tabs", { tabs = json.array { TAB } } },
  { "POST", "/[^/]+/browser/goto", CONTENT },
  { "GET", "/[^/]+/browser/content", CONTENT },
  { "GET", "/[^/]+/browser/screenshot", { data = "YWJj" } },
  { "POST", "/[^/]+/browser/extract", { data = { name = "Ada" } } },
  { "POST", "/[^/]+/browser/observe", { elements = json.array { { description = "a button", selector = "#a" } } } },
  { "POST", "/[^/]+/browser/act", {
    success = true, message = "done", action_description = "clicked", actions = json.array {},
  } },
  { "POST", "/[^/]+/browser/connect", { cdp_url = "wss://example.com/?token=t" } },
  { "POST", "/[^/]+/browser/screencast", { screencast_url = "https://example.com/?token=t" } },
  { "POST", "/[^/]+/browser/recordings", function() return recording("rec1", "recording") end },
  { "POST", "/[^/]+/browser/recordings/stop", function() return recording("rec1") end },
  { "GET", "/[^/]+/browser/recordings", function(_, _, query)
    local last = query:find("cursor=", 1, true)
    return { recordings = json.array { recording("rec1") }, next_cursor = not last and "page 2" or nil }
  end },
  { "GET", "/[^/]+/browser/recordings/([^/]+)", function(_, id)
    return recording(id, id == "rec1" and "recording" or "completed")
  end },
  { "GET", "/[^/]+/browser/recordings/[^/]+/download", function(reply)
    reply:text(200, "mp4", { ["Content-Type"] = "video/mp4" })
  end, streams = true },
}

-- ---------------------------------------------------------------------------------------- recording

--- The parts of a multipart body, which may be bytes that JSON does not carry.
local function parts_of(request)
  local boundary = (request.headers["content-type"] or ""):match('^multipart/form%-data;.*boundary="?([^";]+)')
  if not boundary then
    return nil
  end
  local parts, mark = json.array {}, "--" .. boundary
  local at = select(2, assert(request.body:find(mark, 1, true)))
  while request.body:sub(at + 1, at + 2) == "\r\n" do
    local stop, next_at = assert(request.body:find("\r\n" .. mark, at, true))
    local head, content = request.body:sub(at + 1, stop - 1):match("^(.-\r\n)\r\n(.*)$")
    parts[#parts + 1] = {
      name = head:match('[; ]name="([^"]*)"'),
      filename = head:match('filename="([^"]*)"'),
      type = head:match("[Cc]ontent%-[Tt]ype: ([^\r]*)"),
      content = content,
    }
    at = next_at
  end
  return parts
end

local function answer(reply, request)
  local sdk, operation, path = request.path:match("^/(%l+)/(%d+)/v2/box(.*)$")
  if not sdk then
    return reply:json(404, { error = "no operation " .. request.name })
  end
  local entry = request.entry
  entry.sdk, entry.operation, entry.path = sdk, tonumber(operation), "/v2/box" .. path
  entry.parts = parts_of(request)
  if entry.parts then
    request.body, entry.body = "", ""
  end
  local body = json.decode(request.body) or {}
  for _, endpoint in ipairs(ENDPOINTS) do
    local captures = { path:match("^" .. endpoint[2] .. "$") }
    local found = endpoint[1] == request.method and captures[1]
    if found and endpoint.streams then
      return endpoint[3](reply, request, body)
    elseif found then
      local value = endpoint[3]
      if type(value) == "function" then
        value = value(body, captures[1], request.query)
      end
      return reply:json(200, value)
    end
  end
  return reply:json(200, {})
end

return setmetatable({}, { __index = function() return answer end })
