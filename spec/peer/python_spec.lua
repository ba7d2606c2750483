-- The official Python SDK, as published, against lbox serve: its sync and its async client.
local python_sdk = require "spec.support.python_sdk"
local sdk_cases = require "spec.support.sdk_cases"

-- Those of python.py.
local CASES = { "boxes are made, found and listed", "commands have their output and exit code", "output is streamed",
  "sessions have pipes and terminals", "files are all there is to them", "agents run",
  "a webhook hears of a run, and a run can be cancelled", "files go with a prompt", "git clones, commits and pushes",
  "schedules are kept", "labels and skills are kept", "ports are opened", "settings change",
  "variables reach boxes to come", "snapshots are taken and restored", "what happens is logged",
  "what is not there is said", "boxes are deleted" }

for _, kind in ipairs { "sync", "async" } do
  describe(("the %s client of upstash-box against lbox serve:"):format(kind), function()
    sdk_cases.define(("%s -B spec/peer/python.py %s"):format(python_sdk.PYTHON, kind), CASES, python_sdk.install)
  end)
end
