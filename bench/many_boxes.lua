-- Fifty local boxes at work at once, each with commands and an open stream: whether all of it goes well, how long it
-- takes, and the memory of the server and of all that runs in the boxes.
local lbox = require "lbox"
local posix = require "lbox.server.posix"

local BOXES, COMMANDS = 50, 5
-- What it may take at most, on a machine of 4 GB.
local MOST_MB = 4000

local function read(path)
  local file = io.open(path, "rb")
  local text = file and file:read("a") or ""
  if file then
    file:close()
  end
  return text
end

--- Memory of processes in MB, what is shared divided among those that share it: of the server of the data directory,
--- and of what sees a directory of it or is named by one.
local function memory(dir)
  local server, boxes, processes = 0, 0, 0
  for _, pid in ipairs(posix.listdir("/proc")) do
    local cmdline = pid:find("^%d+$") and read("/proc/" .. pid .. "/cmdline") or ""
    if cmdline ~= "" and tonumber(pid) ~= posix.getpid() then
      local pss = (tonumber(read("/proc/" .. pid .. "/smaps_rollup"):match("\nPss:%s+(%d+)")) or 0) / 1024
      if cmdline:find("serve%z.*" .. dir:gsub("%p", "%%%0")) then
        server = pss
      elseif cmdline:find(dir, 1, true) or read("/proc/" .. pid .. "/mountinfo"):find(dir, 1, true) then
        boxes, processes = boxes + pss, processes + 1
      end
    end
  end
  return server, boxes, processes
end

--- Calls `fn(box, number)` in as many boxes at once, and keeps them all, and the stream it may return, until the last
--- has come as far. Returns how many ms that took, and the memory then.
local function in_boxes(fn)
  local started, ready, looked = lbox.now(), 0, lbox.event()
  local numbers, measured = {}, nil
  for i = 1, BOXES do
    numbers[i] = i
  end
  lbox.map(numbers, function(number)
    lbox.with_box({ base_url = "local" }, function(box)
      local stream = fn(box, number)
      ready = ready + 1
      if ready == BOXES then
        measured = { lbox.now() - started, memory(os.getenv("LBOX_DATA")) }
        looked:set()
      end
      looked:wait()
      if stream then
        stream:cancel()
      end
    end)
  end, { concurrency = BOXES })
  return table.unpack(measured)
end

return function()
  -- First, for the server keeps what it once took.
  local _, idle_server, idle_boxes = in_boxes(function(box) assert(box.exec:command("true").exit_code == 0) end)
  local took, server, boxes, processes = in_boxes(function(box, number)
    local stream = box.exec:stream("echo open; exec sleep 600")
    assert(stream:next().data == "open\n")
    for i = 1, COMMANDS do
      local word = ("%d of %d"):format(i, number)
      assert(box.exec:command("echo " .. word).result == word .. "\n")
    end
    return stream
  end)
  assert(server > 0 and server + boxes < MOST_MB, "more memory than there may be")
  print(("\n%d local boxes at once, %d commands and an open stream each"):format(BOXES, COMMANDS))
  print(("  %-32s %8.1f"):format("seconds", took / 1000))
  print(("  %-32s %8.1f"):format("MB of the server", server))
  print(("  %-32s %8.1f"):format(("MB of the boxes (%d processes)"):format(processes), boxes))
  print(("  %-32s %8.2f"):format("MB of a box", boxes / BOXES))
  print(("  %-32s %8.1f"):format("MB of the server, all idle", idle_server))
  print(("  %-32s %8.2f"):format("MB of an idle box", idle_boxes / BOXES))
end
