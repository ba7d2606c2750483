-- Performs the operations through each SDK against one recording server, and gives what each sent.
local compare = require "spec.parity.compare"
local fault = require "spec.support.fault"
local json = require "lbox.json"
local lbox = require "lbox"
local members = require "spec.parity.members"
local python_sdk = require "spec.support.python_sdk"
local support = require "spec.support.local"

local M = {}

--- Runs a command that has to succeed.
local function must(command)
  local text, status = support.sh(command)
  assert(status == 0, command .. ":\n" .. text)
  return text
end

--- Installs the official SDKs, of which the versions and hashes are fixed, where they are not yet.
local function install()
  if support.sh("test -d node_modules/@upstash/box && echo there") == "" then
    must "npm ci --no-audit --no-fund"
  end
  python_sdk.install()
end

--- The operations in their order, each with its number and feature.
function M.flat(groups)
  local all = {}
  for _, group in ipairs(groups) do
    for _, operation in ipairs(group) do
      operation.index, operation.name, operation.feature = #all + 1, operation[1], group.feature
      if operation.box == nil then
        operation.box = "b1"
      end
      all[#all + 1] = operation
    end
  end
  return all
end

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

--- A directory with the local files of the operations.
local function directory()
  local path = support.directory()
  write(path .. "/notes.txt", "some notes\n")
  write(path .. "/pic.png", "\137PNG\r\n\26\n\0\255")
  return path
end

--- The command that performs the operations of one SDK, and the file that will have its report.
local function driver(sdk, command, operations, server, tmp)
  local list = json.array {}
  for _, operation in ipairs(operations) do
    if operation[sdk] then
      list[#list + 1] = { index = operation.index, box = operation.box or nil, code = operation[sdk] }
    end
  end
  local file, report = ("%s/%s.json"):format(tmp, sdk), ("%s/%s.report"):format(tmp, sdk)
  write(file, json.encode(list))
  -- Each in a directory of its own: some write where they are.
  return ("{ mkdir %s/%s && cd %s/%s && timeout 60 %s %s %s %s %s >%s 2>&1; }"):format(
    tmp, sdk, tmp, sdk, command, server.url, fault.KEY, tmp, file, report), report
end

--- What a driver reported: the error of each operation, by its number, and the rest by name.
local function read_report(path)
  local errors, facts, said = {}, {}, {}
  for line in io.lines(path) do
    local report = line:sub(1, 1) == "{" and json.decode(line)
    if report and report.index then
      errors[report.index] = report.error ~= json.null and report.error or false
    elseif report then
      facts = report
    else
      said[#said + 1] = line
    end
  end
  assert(facts.members, "the driver did not get to its end:\n" .. table.concat(said, "\n"))
  facts.errors = errors
  return facts
end

local function read(stream)
  if type(stream) == "table" and stream.chunks then
    for _ in stream:chunks() do end
  end
end

--- Performs the operations through lbox, here.
local function perform_lua(operations, server, tmp)
  local errors = {}
  for _, operation in ipairs(operations) do
    local base = ("%s/lua/%d"):format(server.url, operation.index)
    lbox.configure { base_url = base, api_key = fault.KEY }
    local ok, err = pcall(function()
      local names = setmetatable({
        lbox = lbox, Box = lbox.Box, EphemeralBox = lbox.EphemeralBox, read = read, base = base, key = fault.KEY,
        tmp = tmp, box = operation.box and lbox.Box.get(operation.box) or nil,
      }, { __index = _G })
      assert(load(operation.lua, operation.name, "t", names))()
    end)
    errors[operation.index] = not ok and tostring(err)
  end
  lbox.configure { base_url = server.url .. "/lua/0", api_key = fault.KEY }
  local facts = { errors = errors, members = members.of_lbox() }
  lbox.configure { base_url = "", api_key = "" }
  return facts
end

--- What each SDK reports, by its name.
local function perform(operations, server, tmp)
  local root = must "pwd":match "[^\n]+"
  local ts, ts_report = driver("ts", ("node %s/spec/parity/ts.mjs"):format(root), operations, server, tmp)
  local py, py_report = driver("py", ("%s/%s -B %s/spec/parity/py.py"):format(root, python_sdk.PYTHON, root),
    operations, server, tmp)
  local others = assert(io.popen(("( %s & %s; wait )"):format(ts, py)))
  local results = { lua = perform_lua(operations, server, tmp) }
  others:close() -- which waits for them
  results.ts, results.py = read_report(ts_report), read_report(py_report)
  return results
end

--- Adds to each SDK's results what it sent, by operation.
local function attribute(requests, operations, results)
  for _, result in pairs(results) do
    result.sent = {}
  end
  for _, request in ipairs(requests) do
    local sent = request.operation and results[request.sdk].sent
    local operation = operations[request.operation]
    if sent and operation then
      local list = sent[operation.index] or {}
      sent[operation.index] = list
      if not list.ready and operation.box then
        list.ready = true -- the box was got
      else
        list[#list + 1] = compare.normalise(request)
      end
    end
  end
end

--- What each SDK sent: by its name { errors, sent = requests by operation, members, enums }.
function M.run(groups)
  install()
  local operations = M.flat(groups)
  local server, tmp = fault.start('routes = dofile "spec/parity/routes.lua"'), directory()
  local ok, results = pcall(perform, operations, server, tmp)
  local requests = ok and server:log()
  server:stop()
  support.sh("rm -rf " .. tmp)
  if not ok then
    error(results, 0)
  end
  attribute(requests, operations, results)
  return results
end

return M
