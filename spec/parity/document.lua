-- doc/parity.md: what of the Box API lbox has, and the specs that prove it. Made of the tables beside this
-- file; `build/lbox spec/parity/document.lua` writes it.
local features = require "spec.parity.features"
local groups = require "spec.parity.operations"

local M = { FILE = "doc/parity.md" }

local HEAD = [[
# Parity with the official SDKs

Made by `build/lbox spec/parity/document.lua` from the tables in `spec/parity`; a spec fails when it is not up to
date. Every operation below is performed through npm `@upstash/box` 0.5.5, PyPI `upstash-box` 0.4.0 and lbox against
one server that records what it is sent; method, path, query, body and key have to be equal, but for the differences
that are named. `script/test parity` does it.
]]

local SDKS = { { "ts", "TypeScript" }, { "py", "Python" } }

local function cell(text)
  return (text:gsub("|", "\\|"))
end

local function proof_of(feature, group)
  if feature.none then
    return "—", feature.none
  end
  local proofs = {}
  if group then
    proofs[1] = ("%d operation%s below"):format(#group, #group == 1 and "" or "s")
  end
  if feature[2] then
    proofs[#proofs + 1] = ("`%s`: %s"):format(feature[2], feature[3])
  end
  return "yes", table.concat(proofs, "; ")
end

--- How an SDK compares in an operation: "=" when it sends the same.
local function compared(operation, sdk)
  local difference = operation.differs and operation.differs[sdk]
  if not operation[sdk] then
    return "– " .. operation.absent[sdk]
  end
  return difference and "≠ " .. difference[1] or "="
end

--- The document's text.
function M.text()
  local by_feature = {}
  for _, group in ipairs(groups) do
    by_feature[group.feature] = group
  end
  local lines = { HEAD, "## Features", "", "| feature | lbox | proof |", "| --- | --- | --- |" }
  local function row(...)
    local cells = { ... }
    for i, text in ipairs(cells) do
      cells[i] = cell(text)
    end
    lines[#lines + 1] = "| " .. table.concat(cells, " | ") .. " |"
  end
  for _, feature in ipairs(features) do
    row(feature[1], proof_of(feature, by_feature[feature[1]]))
  end
  lines[#lines + 1] = "\n## Operations\n\n`=` sends the same, `≠` differs, `–` has no such operation."
  for _, feature in ipairs(features) do
    local group = by_feature[feature[1]]
    if group then
      lines[#lines + 1] = ("\n### %s\n\n| operation | lbox | %s | %s |\n| --- | --- | --- | --- |"):format(
        feature[1], SDKS[1][2], SDKS[2][2])
      for _, operation in ipairs(group) do
        local code = "`" .. operation.lua:gsub("%s+", " ") .. "`"
        row(operation[1], code, compared(operation, "ts"), compared(operation, "py"))
      end
    end
  end
  return table.concat(lines, "\n") .. "\n"
end

if arg and arg[0] and arg[0]:match("document%.lua$") then
  local file = assert(io.open(M.FILE, "w"))
  file:write(M.text())
  file:close()
end

return M
