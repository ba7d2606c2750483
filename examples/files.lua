-- Sends a file into a box, has it worked on there, and fetches the results. Both ways are streams: files
-- of any size take no memory, and a file that is fetched appears whole or not at all.
--
--     build/lbox --local examples/files.lua
local lbox = require "lbox"

local here = os.tmpname()
os.remove(here)

lbox.with_box({}, function(box)
  box.files:upload({ { path = arg[0], destination = "in/script.lua" } }, {
    progress = function(sent, total) print(("sent %d of %d bytes"):format(sent, total)) end,
  })

  box.exec:command "mkdir -p out/parts && wc in/script.lua > out/counts && split -l 10 in/script.lua out/parts/"

  print(("out is a %s"):format(box.files:stat("out").type))
  for _, path in ipairs(box.files:download { folder = "out", to = here }) do
    print("fetched " .. path:sub(#here + 2))
  end
  box.files:remove("out", { recursive = true })
end)

os.execute("rm -r " .. here)
