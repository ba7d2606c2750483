-- The official TypeScript SDK, as published, against lbox serve.
local sdk_cases = require "spec.support.sdk_cases"
local support = require "spec.support.local"

-- Those of typescript.mjs.
local CASES = { "boxes are made, found and listed", "commands have their output and exit code", "output is streamed",
  "files are written, read, listed, sent and fetched", "agents run",
  "a webhook hears of a run, and a run can be cancelled", "files go with a prompt", "git clones, commits and pushes",
  "schedules are kept", "labels and skills are kept", "ports are opened", "settings change",
  "variables reach boxes to come", "snapshots are taken and restored", "what happens is logged",
  "what is not there is said", "boxes are deleted" }

describe("@upstash/box against lbox serve:", function()
  sdk_cases.define("node spec/peer/typescript.mjs", CASES, function()
    if support.sh("test -d node_modules/@upstash/box && echo there") == "" then
      local text, failed = support.sh("npm ci --no-audit --no-fund")
      assert(failed == 0, "npm ci failed:\n" .. text)
    end
  end)
end)
