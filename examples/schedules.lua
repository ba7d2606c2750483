-- Schedules: a command every morning and an agent every Monday, in a box that stays.
--
--     build/lbox --local examples/schedules.lua
local lbox = require "lbox"

lbox.with_box({
  -- With a key: { harness = lbox.Agent.CLAUDE_CODE, model = lbox.ClaudeCode.SONNET_4_5 }
  agent = { harness = lbox.Agent.CUSTOM, custom_harness = { command = "lbox", args = { "/home/boxuser/agent.lua" } } },
}, function(box)
  local backup = box.schedule:exec { cron = "0 6 * * *", command = "tar czf backup.tgz project" }
  local report = box.schedule:agent {
    cron = "0 9 * * 1",
    prompt = "Summarise what changed in project last week, in report.md",
    timeout = 600000, -- of each run
  }
  print("made " .. backup.id .. " and " .. report.id)

  box.schedule:update(backup.id, { cron = "0 5 * * *" })
  box.schedule:pause(report.id)
  for _, schedule in ipairs(box.schedule:list()) do
    print(schedule.id, schedule.type, schedule.cron, schedule.status, schedule.total_runs .. " runs")
  end
  box.schedule:resume(report.id)
  box.schedule:delete(backup.id)
end)
