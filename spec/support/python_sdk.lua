-- The official Python SDK, installed once, where only the specs see it.
local support = require "spec.support.local"

local M = {}

M.PYTHON = "build/parity/bin/python"

local PLACE, WANTED = "build/parity", "spec/parity/requirements.txt"

local function must(command)
  local text, status = support.sh(command)
  assert(status == 0, command .. ":\n" .. text)
end

--- Installs it, of which version and hashes are fixed, where it is not yet. M.PYTHON has it then.
function M.install()
  if select(2, support.sh(("cmp -s %s %s/installed"):format(WANTED, PLACE))) ~= 0 then
    must(("rm -rf %s && python3 -m venv %s"):format(PLACE, PLACE))
    must(("%s/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r %s"):format(
      PLACE, WANTED))
    must(("cp %s %s/installed"):format(WANTED, PLACE))
  end
end

return M
