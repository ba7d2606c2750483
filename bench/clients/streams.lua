-- Opens as many agent streams at once as the second argument says, leaves every other one unread until
-- the rest has been read, then reads those. Prints how many events it read, the seconds, and the
-- peak of its memory in bytes.
local lbox = require "lbox"

local url, n = arg[1], tonumber(arg[2])

local function peak_bytes()
  local file = io.open("/proc/self/status")
  local text = file:read("*a")
  file:close()
  return text:match("VmHWM:%s*(%d+)") * 1024
end

local box = lbox.Box.get("replay", { base_url = url, api_key = "box_bench" })
local numbers = {}
for i = 1, n do
  numbers[i] = i
end

local started = lbox.now()
local all_open, half_read = lbox.event(), lbox.event()
local open, read, events = 0, 0, 0
lbox.map(numbers, function(i)
  local stream = box.agent:stream { prompt = "replay" }
  open = open + 1
  if open == n then
    all_open:set()
  end
  all_open:wait()
  if i % 2 == 0 then
    half_read:wait()
  end
  for chunk in stream:chunks() do
    if chunk.type == "reasoning" then
      events = events + 1
    end
  end
  assert(stream.status == "completed")
  read = read + 1
  if read == math.ceil(n / 2) then
    half_read:set()
  end
end, { concurrency = math.max(n, 1) })
print(events, ("%.3f"):format((lbox.now() - started) / 1000), peak_bytes())
