--- What a prompt says besides what was asked: files that go with it, and the form of the answer.
local json = require "lbox.json"

local M = {}

--- Adds that the answer has to be JSON, for a harness that cannot be told otherwise.
---@param prompt string
---@param schema table|nil
---@return string
function M.with_schema(prompt, schema)
  return schema and prompt .. "\n\nAnswer with one JSON value that matches this JSON Schema, and nothing else:\n"
    .. json.encode(schema) or prompt
end

--- Adds where in the box the files of the prompt are.
---@param prompt string
---@param files { path: string }[]|nil
---@return string
function M.with_files(prompt, files)
  if not files or not files[1] then
    return prompt
  end
  local lines = { prompt, "", "Files that go with this:" }
  for _, file in ipairs(files) do
    lines[#lines + 1] = "- " .. file.path
  end
  return table.concat(lines, "\n")
end

--- The JSON in an answer that was to be nothing else; the answer as it is when there is none.
---@param text string
---@return string
function M.bare_json(text)
  local bare = text:match("^%s*(.-)%s*$")
  bare = bare:match("^```%w*[ \t]*\r?\n(.-)\r?\n```$") or bare
  return json.decode(bare) ~= nil and bare or text
end

return M
