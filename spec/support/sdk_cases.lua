-- Runs a driver of an official SDK against a local server, and gives what it says of each of its cases.
local assert = require "luassert"
local json = require "lbox.json"
local support = require "spec.support.local"

local M = {}

--- Defines the specs of a driver: one for each case, and one that says that these are all.
---@param command string       the driver with what goes before the URL, the key and a directory to work in
---@param names string[]       its cases, in their order
---@param prepare fun()|nil    what has to be there
function M.define(command, names, prepare)
  local busted = require "busted"
  local it, setup, teardown = busted.it, busted.setup, busted.teardown
  local server, errors, unused, found

  setup(function()
    if prepare then
      prepare()
    end
    server = support.start()
    support.skill(server.dir .. "/data/skills/owner/repo/skill")
    local output, status = support.sh(("mkdir %s/work; timeout 100 %s %s %s %s/work"):format(server.dir, command,
      server.url, server.key, server.dir))
    assert(status == 0, output)
    errors, found = {}, {}
    for line in output:gmatch("[^\n]+") do
      local finding = json.decode(line)
      if type(finding) == "table" and finding.case then
        found[#found + 1] = finding.case
        errors[finding.case] = finding.error ~= json.null and finding.error or false
      elseif type(finding) == "table" then
        unused = finding.unused
      end
    end
  end)

  teardown(function()
    server:stop()
  end)

  for _, name in ipairs(names) do
    it(name, function()
      assert(errors[name] == false, errors[name] or "the driver does not know it")
    end)
  end

  it("every case is one of these, and every method of the SDK is in one", function()
    assert.are.same(names, found)
    assert.are.same({}, unused)
  end)
end

return M
