-- Output of a command and files up and down, through lbox and through the official SDK, of one server and one box
-- each; in turn, and the median of the rounds.
local lbox = require "lbox"
local posix = require "lbox.server.posix"
local processes = require "bench.processes"

local ROUNDS, MB = 3, 128
local ROWS = { "output", "upload", "download" }

local function seconds(fn)
  local started = lbox.now()
  fn()
  return (lbox.now() - started) / 1000
end

--- What bench/clients/transfers.mjs does.
local function ours(by, dir)
  return lbox.with_box(by, function(box)
    local output = seconds(function()
      local read = 0
      for chunk in box.exec:stream(("yes 0123456 | head -c %d"):format(MB << 20)):chunks() do
        read = read + #(chunk.data or "")
      end
      assert(read == MB << 20, "the output is not whole")
    end)
    local up = seconds(function() box.files:upload { { path = dir .. "/file", destination = "up/file" } } end)
    local down = seconds(function() box.files:download { folder = "up", to = dir .. "/down" } end)
    return { output, up, down }
  end)
end

local function theirs(by, dir)
  local text = processes.run { "/usr/bin/env", "node", "bench/clients/transfers.mjs", by.base_url, by.api_key,
    dir, tostring(MB << 20) }
  local output, up, down = text:match("^([%d.]+) ([%d.]+) ([%d.]+)\n$")
  return { tonumber(output), tonumber(up), tonumber(down) }
end

--- The content that came back is the one that was sent.
local function check(dir, file)
  assert(os.execute(("cmp %s/file %s && rm %s"):format(dir, file, file)), "what was downloaded is another file")
end

local function median(rounds, row)
  local list = {}
  for i, each in ipairs(rounds) do
    list[i] = each[row]
  end
  table.sort(list)
  return list[(#list + 1) // 2]
end

return function()
  local dir = os.getenv("LBOX_DATA") .. "/transfers"
  assert(posix.mkdir(dir, 0x1c0))
  assert(os.execute(("head -c %d /dev/urandom >%s/file"):format(MB << 20, dir)))
  local server, by = processes.serve(os.getenv("LBOX_DATA"))
  local lbox_rounds, sdk_rounds = {}, {}
  for i = 1, ROUNDS do
    lbox_rounds[i] = ours(by, dir)
    check(dir, dir .. "/down/file")
    sdk_rounds[i] = theirs(by, dir)
    check(dir, dir .. "/up/file")
  end
  processes.stop(server)
  print(("\n%-34s %8s %14s %8s"):format(("%d MB of a local box, seconds"):format(MB), "lbox", "@upstash/box",
    "ratio"))
  for i, what in ipairs(ROWS) do
    local a, b = median(lbox_rounds, i), median(sdk_rounds, i)
    print(("  %-32s %8.2f %14.2f %7.1fx"):format(what, a, b, b / a))
  end
end
