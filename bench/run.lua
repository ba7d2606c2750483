-- Runs the benchmarks, or those named (events, streams, box, many, bulk), and prints one table each. Every figure
-- of the two SDKs comes from the same server, on the same machine, in turn; what is shown is the median of the rounds.
local lbox = require "lbox"
local posix = require "lbox.server.posix"
local processes = require "bench.processes"

local ROUNDS = 5
local EVENTS = 200000
local STREAM_EVENTS = 1000 -- of each of very many streams
local LATENCY_SAMPLES = 100

local program = posix.exe_path()
local start, read_until, run, stop = processes.start, processes.read_until, processes.run, processes.stop

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

local function percentile(list, p)
  table.sort(list)
  return list[math.max(1, math.ceil(#list * p))]
end

--- Starts a replay server; returns it and its address.
local function replay(events, kind)
  local server = start { program, "spec/support/replay_server.lua", tostring(events), "40", kind }
  return server, "http://127.0.0.1:" .. read_until(server, function(text) return text:find("\n") end):match("%d+")
end

local function bench_events()
  local server, url = replay(EVENTS, "text")
  local clients = {
    { name = "lbox", argv = { program, "bench/clients/events.lua", url } },
    { name = "@upstash/box", argv = { "/usr/bin/env", "node", "bench/clients/events.mjs", url } },
  }
  for _, client in ipairs(clients) do
    client.rate, client.cpu, client.memory = {}, {}, {}
  end
  for _ = 1, ROUNDS do
    for _, client in ipairs(clients) do
      local text, usage = run(client.argv)
      local events, _, seconds = text:match("(%d+)%s+(%d+)%s+([%d.]+)")
      assert(tonumber(events) == EVENTS, client.name .. " read " .. tostring(events) .. " events")
      client.rate[#client.rate + 1] = EVENTS / tonumber(seconds)
      client.cpu[#client.cpu + 1] = usage.cpu_ns / 1e9
      client.memory[#client.memory + 1] = usage.memory_peak_bytes / 1e6
    end
  end
  stop(server)

  print(("\nOne agent stream, %d text events (median of %d rounds; CPU and memory of the whole process)")
    :format(EVENTS, ROUNDS))
  print(("  %-14s %14s %10s %10s"):format("client", "events/s", "CPU s", "peak MB"))
  for _, client in ipairs(clients) do
    client.rate, client.cpu, client.memory =
      median(client.rate), median(client.cpu), median(client.memory)
    print(("  %-14s %14.0f %10.2f %10.1f"):format(client.name, client.rate, client.cpu, client.memory))
  end
  local ours, theirs = clients[1], clients[2]
  print(("  %-14s %13.1fx %9.1fx %9.1fx"):format("ratio", ours.rate / theirs.rate,
    theirs.cpu / ours.cpu, theirs.memory / ours.memory))
end

--- Reads many streams at once through `argv`. Returns events a second and the bytes of memory that
--- each stream took more than none.
local function read_streams(argv, url, streams)
  local function measured(n)
    local words = { table.unpack(argv) }
    words[#words + 1], words[#words + 2] = url, tostring(n)
    local events, seconds, peak = run(words):match("(%d+)%s+([%d.]+)%s+(%d+)")
    assert(tonumber(events) == n * STREAM_EVENTS, words[1] .. " read " .. tostring(events) .. " events")
    return tonumber(events) / tonumber(seconds), tonumber(peak)
  end
  local _, without = measured(0)
  local rate, with = measured(streams)
  return rate, (with - without) / streams
end

local function bench_streams()
  local server, url = replay(STREAM_EVENTS, "thinking")
  local lbox_argv = { program, "bench/clients/streams.lua" }
  local node_argv = { "/usr/bin/env", "node", "bench/clients/streams.mjs" }
  print(("\nMany agent streams of %d events at once, every other one left unread until the rest is read")
    :format(STREAM_EVENTS))
  print(("  %-14s %8s %14s %16s"):format("client", "streams", "events/s", "KB per stream"))
  local rates, bytes = {}, {}
  for i, client in ipairs {
    { "lbox", lbox_argv, 1000 }, { "@upstash/box", node_argv, 1000 }, { "lbox", lbox_argv, 10000 },
  } do
    rates[i], bytes[i] = read_streams(client[2], url, client[3])
    print(("  %-14s %8d %14.0f %16.1f"):format(client[1], client[3], rates[i], bytes[i] / 1024))
  end
  print(("  %-14s %8d %13.1fx %15.1fx"):format("ratio", 1000, rates[1] / rates[2], bytes[2] / bytes[1]))
  stop(server)
end

local function numbers(line)
  local list = {}
  for word in line:gmatch("%S+") do
    list[#list + 1] = tonumber(word)
  end
  assert(#list == LATENCY_SAMPLES)
  return list
end

local function timed(times, fn)
  local list = {}
  for i = 1, times do
    local started = lbox.now()
    fn()
    list[i] = lbox.now() - started
  end
  return list
end

local function bench_local_box()
  local dir = os.getenv("LBOX_DATA")
  assert(dir, "LBOX_DATA names the data directory of the benchmark's own server")
  local server, by = processes.serve(dir)
  local ours, theirs, made = {}, {}, {}
  ours[1] = timed(LATENCY_SAMPLES, function()
    local box = lbox.Box.create(by)
    assert(box.exec:command("echo hi").result == "hi\n")
    made[#made + 1] = box
  end)
  for _, box in ipairs(made) do
    box:delete()
  end
  local box = lbox.Box.create(by)
  ours[2] = timed(LATENCY_SAMPLES, function() assert(box.exec:command("true").exit_code == 0) end)
  box:delete()
  local text = run { "/usr/bin/env", "node", "bench/clients/box.mjs", by.base_url, by.api_key,
    tostring(LATENCY_SAMPLES) }
  for line in text:gmatch("[^\n]+") do
    theirs[#theirs + 1] = numbers(line)
  end
  local bare = timed(LATENCY_SAMPLES, function()
    run { "/usr/bin/bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "/bin/true" }
  end)
  stop(server)
  print(("\nLocal box, %d times each, milliseconds"):format(LATENCY_SAMPLES))
  print(("  %-46s %8s %8s"):format("", "p50", "p99"))
  local function row(what, list)
    print(("  %-46s %8.1f %8.1f"):format(what, percentile(list, 0.5), percentile(list, 0.99)))
  end
  for i, what in ipairs { "create to first command's result", "one command, round trip" } do
    row(what .. ", lbox", ours[i])
    row(what .. ", @upstash/box", theirs[i])
  end
  row("bubblewrap alone, a program's start to end", bare)
end

local ROWS = { "events", "streams", "box", "transfers", "many", "bulk" }
local rows = { events = bench_events, streams = bench_streams, box = bench_local_box,
  transfers = require "bench.transfers", many = require "bench.many_boxes", bulk = require "bench.bulk" }
for _, name in ipairs(#arg > 0 and arg or ROWS) do
  assert(rows[name], ("bench: %s, not %s"):format(table.concat(ROWS, ", "), name))()
end
