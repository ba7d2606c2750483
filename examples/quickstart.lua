-- A tour of lbox in one minute: a box, files and commands, an agent with streaming and with typed
-- output, and the same work done in several boxes at once. Run it on local boxes, no key needed:
--
--     build/lbox --local examples/quickstart.lua
local lbox = require "lbox"
local Box = lbox.Box

local AGENT = "/home/boxuser/todo_report.lua"
local here = arg[0]:match("^(.*)/") or "."

local function read_local(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

local function step(number, title)
  print(("\n%d. %s"):format(number, title))
end

--- Creates a box whose agent is the Lua file examples/agents/todo_report.lua.
local function create_box(name)
  local box = Box.create {
    name = name,
    agent = {
      harness = lbox.Agent.CUSTOM,
      model = "no-model",
      custom_harness = { command = "lbox", args = { AGENT }, protocol = "box-sse-v1" },
    },
  }
  box.files:write { path = AGENT, content = read_local(here .. "/agents/todo_report.lua") }
  return box
end

local SOURCES = {
  ["src/main.lua"] = "-- TODO: read the configuration\nprint('hello')\n-- FIXME: exits with 0 on errors\n",
  ["src/util.c"] = "/* TODO: free the buffer */\nint f(void);\n",
  ["src/app.py"] = "print('nothing to do here')\n",
}

local started = lbox.now()

step(1, "A local box")
local box = create_box()
print("   created " .. box.id)

step(2, "Files and commands")
for path, content in pairs(SOURCES) do
  box.files:write { path = path, content = content }
end
print("   src/util.c: " .. box.files:read("src/util.c"):gsub("\n.*", ""))
print("   uname: " .. box.exec:command("uname -sr").result:gsub("\n", ""))
io.write("   counting, as it comes:")
for chunk in box.exec:stream("for i in 1 2 3; do echo \" $i\"; sleep 0.3; done"):chunks() do
  if chunk.type == "output" then
    io.write((chunk.data:gsub("\n", "")))
    io.flush()
  else
    print("   exit code " .. chunk.exit_code)
  end
end

step(3, "An agent, streamed (a Lua script in the box; no model is involved)")
for chunk in box.agent:stream({ prompt = "Report the TODOs below src" }):chunks() do
  if chunk.type == "text-delta" then
    io.write("   text    ", chunk.text)
  elseif chunk.type == "tool-call" then
    print(("   tool    %s %s"):format(chunk.tool_name, chunk.input.path))
  elseif chunk.type == "finish" then
    print(("   finish  %d tokens in, %d out"):format(
      chunk.usage.input_tokens, chunk.usage.output_tokens))
  end
end
print("   TODO.md has " .. select(2, box.files:read("TODO.md"):gsub("\n%-", "")) .. " items")

step(4, "The same agent with a schema: typed, validated output")
local Report = {
  summary = "string",
  files = "integer",
  items = { { file = "string", line = "integer", kind = "string", text = "string" } },
}
local run = box.agent:run { prompt = "Report the TODOs below src", response_schema = Report }
print("   " .. run.result.summary)
for _, item in ipairs(run.result.items) do
  print(("   %-14s line %d  %-5s  %s"):format(item.file, item.line, item.kind, item.text))
end

step(5, "Fan-out: three boxes at once")
local projects = { "alpha", "beta", "gamma" }
local boxes = {}
local rows = lbox.map(projects, function(project, index)
  local worker = create_box()
  boxes[index] = worker
  for i = 1, index do
    worker.files:write { path = ("src/%d.lua"):format(i), content = "-- TODO: part " .. i .. "\n" }
  end
  local report = worker.agent:run({ prompt = "Report the TODOs", response_schema = Report }).result
  return { project = project, box = worker.id, files = report.files, items = #report.items }
end, { concurrency = 3 })
print(("   %-8s %-26s %5s %5s"):format("project", "box", "files", "items"))
for _, row in ipairs(rows) do
  print(("   %-8s %-26s %5d %5d"):format(row.project, row.box, row.files, row.items))
end

step(6, "Clean-up")
boxes[#boxes + 1] = box
lbox.map(boxes, function(each)
  each:delete()
  print("   deleted " .. each.id)
end)

print(("\ndone in %.1f s"):format((lbox.now() - started) / 1000))
