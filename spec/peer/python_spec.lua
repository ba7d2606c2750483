-- The official Python SDK, as published, against lbox serve: its sync and its async client.
local json = require "lbox.json"
local python_sdk = require "spec.support.python_sdk"
local support = require "spec.support.local"

-- The cases of python.py, in their order.
local CASES = { "boxes_are_made_found_and_listed", "commands_have_their_output_and_exit_code", "output_is_streamed",
  "sessions_have_pipes_and_terminals", "files_are_all_there_is_to_them", "agents_run",
  "a_webhook_hears_of_a_run_and_a_run_can_be_cancelled", "files_go_with_a_prompt", "git_clones_commits_and_pushes",
  "schedules_are_kept", "labels_and_skills_are_kept", "ports_are_opened", "settings_change",
  "variables_reach_boxes_to_come", "snapshots_are_taken_and_restored", "what_happens_is_logged",
  "what_is_not_there_is_said", "boxes_are_deleted" }

for _, kind in ipairs { "sync", "async" } do
  describe(("the %s client of upstash-box against lbox serve:"):format(kind), function()
    local server, errors, unused, names

    setup(function()
      local python = python_sdk.install()
      server = support.start()
      support.skill(server.dir .. "/data/skills/owner/repo/skill")
      local output, status = support.sh(("mkdir %s/work; timeout 100 %s -B spec/peer/python.py %s %s %s %s/work")
        :format(server.dir, python, kind, server.url, server.key, server.dir))
      assert(status == 0, output)
      errors, names = {}, {}
      for line in output:gmatch("[^\n]+") do
        local finding = json.decode(line)
        if type(finding) == "table" and finding.case then
          names[#names + 1] = finding.case
          errors[finding.case] = finding.error ~= json.null and finding.error or false
        elseif type(finding) == "table" then
          unused = finding.unused
        end
      end
    end)

    teardown(function()
      server:stop()
    end)

    for _, name in ipairs(CASES) do
      it((name:gsub("_", " ")), function()
        assert.is_false(errors[name], errors[name] or nil)
      end)
    end

    it("every case is one of these, and every method of the SDK is in one", function()
      assert.are.same(CASES, names)
      assert.are.same({}, unused)
    end)
  end)
end
