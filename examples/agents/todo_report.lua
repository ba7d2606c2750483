#!/usr/bin/env lbox
-- A custom harness: an agent that is a Lua file. It runs inside the box, started by the server as
-- `lbox todo_report.lua -p PROMPT --model … --stream`, and tells what it does as it does it.
--
-- No model is involved: it reads every source file below the folder it was started in, collects the
-- comments that say TODO or FIXME, and writes TODO.md. Put a call to a model where the work is done
-- and you have an agent of your own.
local harness = require("lbox").harness
local json = require "lbox.json"

local MARKS = { "TODO", "FIXME" }

--- Source files below `dir`, sorted.
local function source_files(dir)
  local pipe = assert(io.popen(
    "find " .. dir .. " -type f \\( -name '*.lua' -o -name '*.c' -o -name '*.py' -o -name '*.js' \\) | sort"))
  local files = {}
  for path in pipe:lines() do
    files[#files + 1] = (path:gsub("^%./", ""))
  end
  pipe:close()
  return files
end

--- Appends to `items` the marks found in one file; returns how many lines it has.
local function scan(path, items)
  local number = 0
  for line in io.lines(path) do
    number = number + 1
    for _, mark in ipairs(MARKS) do
      local text = line:match("%f[%w]" .. mark .. "[:%s]+(.-)%s*$")
      if text then
        items[#items + 1] = { file = path, line = number, kind = mark, text = text }
      end
    end
  end
  return number
end

local function write_report(path, items)
  local file = assert(io.open(path, "w"))
  file:write("# Open work\n\n")
  for _, item in ipairs(items) do
    file:write(("- **%s** %s:%d: %s\n"):format(item.kind, item.file, item.line, item.text))
  end
  file:close()
end

harness.run(function(ctx, emit)
  emit.text("todo_report here: I am a plain Lua script, no model is involved.\n")

  local files, items, lines = source_files("."), {}, 0
  for i, path in ipairs(files) do
    local id = "read-" .. i
    emit.tool { tool_call_id = id, name = "read", input = { path = path } }
    local before = #items
    local count = scan(path, items)
    lines = lines + count
    emit.tool_result { tool_call_id = id, output = { lines = count, found = #items - before } }
  end

  emit.tool { tool_call_id = "write", name = "write", input = { path = "TODO.md" } }
  write_report("TODO.md", items)
  emit.tool_result { tool_call_id = "write", output = { items = #items } }

  local summary = ("%d open items in %d files (%d lines)"):format(#items, #files, lines)
  emit.text(summary .. "; the report is in TODO.md.\n")

  local output
  if ctx.json_schema then
    output = json.encode { summary = summary, files = #files, items = json.array(items) }
  end
  -- A model would report tokens here; this agent used none.
  return { output = output, input_tokens = 0, output_tokens = 0 }
end)
