-- Twenty reviews in twenty boxes at once, with one budget for all of them. One of the files is broken, so
-- one run fails; the others go on. Every box is deleted, however this ends: try Ctrl-C.
--
--     build/lbox --local examples/fanout.lua
local lbox = require "lbox"

local here = arg[0]:match("^(.*)/") or "."
local started = lbox.now()

local Review = { lines = "integer", remarks = { "string" } }

local AGENT = {
  harness = lbox.Agent.CUSTOM,
  custom_harness = { command = "lbox", args = { "/home/boxuser/lua_review.lua" } },
}

local function read_local(path)
  local file = assert(io.open(path))
  local text = file:read("a")
  file:close()
  return text
end

local agent_source = read_local(here .. "/agents/lua_review.lua")

--- A line of progress.
local function say(who, text, ...)
  print(("%5.1f s  %-9s %s"):format((lbox.now() - started) / 1000, who, text:format(...)))
end

-- What is to be reviewed.
local modules = {}
for i = 1, 20 do
  modules[i] = { name = ("part%02d"):format(i), source = ("local M = {}\nn = %d\nreturn M\n"):format(i) }
end
modules[13].source = "local M = {\nreturn M\n"

local budget = lbox.budget {
  usd = 0.24,
  ms = 120000,
  on_soft = function(report)
    say("budget", "%d runs have spent $%.2f, $%.2f are left", report.runs, report.usd, report.left.usd)
  end,
}

--- Reviews one module in a box of its own.
local function review(module)
  return lbox.with_box({ agent = AGENT }, function(box)
    say(module.name, "has box %s", box.id)
    box.files:write { path = "/home/boxuser/lua_review.lua", content = agent_source }
    box.files:write { path = module.name .. ".lua", content = module.source }
    local run = box.agent:run {
      prompt = ("Review %s.lua"):format(module.name),
      response_schema = Review,
      on_tool_use = function(tool) say(module.name, "%s %s", tool.name, tool.input.path) end,
    }
    say(module.name, "done for $%.2f", run.cost.total_usd)
    return run.result
  end)
end

local reviews, failures = lbox.map(modules, review, {
  concurrency = 20, budget = budget, on_error = "collect",
})

print()
for i, module in ipairs(modules) do
  if failures[i] then
    print(module.name, "failed: " .. failures[i].message)
  else
    print(module.name, reviews[i].lines .. " lines; " .. table.concat(reviews[i].remarks, ", "))
  end
end
print("\nspent: " .. tostring(budget))
