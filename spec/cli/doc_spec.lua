-- The Lua in README.md and doc/*.md is true: every ```lua block runs in a lbox process of its own, on a
-- local box server, has to end well and to leave no box behind. A ```text block right after one is what
-- it prints, with … for what differs from run to run. What the word after ```lua says:
--
--     lua              runs as it stands
--     lua box          a box is there as the global `box`; its agent is the block marked `agent`
--     lua agent        runs as it stands, and is the agent of those boxes
--     lua recorded     runs against a server that only records, for what local boxes do not have yet
--     lua norun (why)  has only to compile
local fault = require "spec.support.fault"
local lbox = require "lbox"
local support = require "spec.support.local"
local Box = lbox.Box

local AGENT_PATH = "/home/boxuser/agent.lua"

local function slurp(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

--- The blocks of a document: { place, kind, code, expected }.
local function read_blocks(path)
  local blocks, open, last, number = {}, nil, nil, 0
  for line in (slurp(path) .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    local info = line:match("^```(.*)$")
    if open and info then
      local code = table.concat(open.lines, "\n") .. "\n"
      local word = open.info:match("^lua%f[%W] ?(.*)$")
      if word then
        last = { place = path .. ":" .. open.line, kind = word, code = code }
        blocks[#blocks + 1] = last
      elseif open.info == "text" and last then
        last.expected, last = code, nil
      else
        last = nil
      end
      open = nil
    elseif info then
      open = { info = info, line = number, lines = {} }
    elseif open then
      open.lines[#open.lines + 1] = line
    elseif line:find("%S") then
      last = nil
    end
  end
  assert(not open, path .. ": a block does not end")
  return blocks
end

local documents = { "README.md" }
for name in support.sh("ls doc/*.md"):gmatch("%S+") do
  documents[#documents + 1] = name
end
local blocks, agent = {}, nil
for _, path in ipairs(documents) do
  for _, block in ipairs(read_blocks(path)) do
    blocks[#blocks + 1] = block
    if block.kind == "agent" then
      agent = block.code
    end
  end
end

local function write_script(block)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(block.code)
  file:close()
  return path
end

--- Whether `text` is what was expected, … standing for anything within a line.
local function is_like(text, expected)
  local pattern = expected:gsub("%p", "%%%0"):gsub("…", "[^\n]*")
  return text:find("^" .. pattern .. "$") ~= nil
end

describe("a block of the documentation", function()
  local server, recorder

  setup(function()
    server = support.start()
    recorder = fault.start 'routes = dofile "spec/parity/routes.lua"'
  end)

  teardown(function()
    server:stop()
    recorder:stop()
  end)

  local function run(block, prelude, url)
    local path = write_script(block)
    local text, status = support.sh(("env -u LUA_INIT LBOX_DATA=%s/data UPSTASH_BOX_BASE_URL=%s "
      .. "UPSTASH_BOX_API_KEY=%s timeout 20 %s %s %s"):format(server.dir, url or server.url, server.key,
      support.program, prelude or "", path))
    os.remove(path)
    assert.are.equal(0, status, text)
    if block.expected and not is_like(text, block.expected) then
      assert.are.equal(block.expected, text)
    end
  end

  --- Ids of the boxes there are, which are deleted: one block's are not the next one's trouble.
  local function leftovers()
    local ids = {}
    for i, data in ipairs(Box.list(server:client())) do
      ids[i] = data.id
      Box.get(data.id, server:client()):delete()
    end
    return ids
  end

  local kinds = { [""] = run, agent = run }

  function kinds.box(block)
    local box = Box.create(server:client {
      agent = { harness = "custom", custom_harness = { command = "lbox", args = { AGENT_PATH } } },
    })
    box.files:write { path = AGENT_PATH, content = agent }
    local ok, err = pcall(run, block, ("-e 'box = lbox.Box.get(%q)'"):format(box.id))
    box:delete()
    if not ok then
      error(err, 0)
    end
  end

  function kinds.recorded(block)
    run(block, nil, recorder.url .. "/lua/1")
  end

  function kinds.norun(block)
    local path = write_script(block)
    local chunk, why = loadfile(path)
    os.remove(path)
    assert.is_truthy(chunk, why)
  end

  for _, block in ipairs(blocks) do
    local kind = block.kind:match("^norun %(.+%)$") and "norun" or block.kind
    it(("%s (%s)"):format(block.place, kind == "" and "as it stands" or kind), function()
      assert.is_truthy(kinds[kind], "no kind of block: " .. kind)
      local ok, err = pcall(kinds[kind], block)
      local left = leftovers()
      if not ok then
        error(err, 0)
      end
      assert.are.same({}, left)
    end)
  end
end)

describe("a link in the documentation", function()
  for _, path in ipairs(documents) do
    it("leads to something: " .. path, function()
      local directory = path:match("^(.*/)") or ""
      for target in slurp(path):gmatch("%]%(([^)%s#]+)[^)]*%)") do
        if not target:find("^%a+:") then
          local _, status = support.sh("test -e " .. directory .. target)
          assert.are.equal(0, status, target)
        end
      end
    end)
  end
end)
