-- Snapshots: a box that is set up once, and copies of it to work in.
--
--     UPSTASH_BOX_API_KEY=… build/lbox examples/snapshots.lua
local lbox = require "lbox"

local snapshot = lbox.with_box({ runtime = "node" }, function(box)
  box.exec:command "echo '{}' > package.json" -- npm install, downloads, whatever takes its time
  return box:snapshot { name = "ready" }
end)
print(("%s is %s"):format(snapshot.name, snapshot.status))

-- Three boxes that begin where it left off, at once; each is deleted in the end.
local results = lbox.map({ "one", "two", "three" }, function(name)
  return lbox.with_box({ snapshot = snapshot.id, env = { NAME = name } }, function(box)
    return box.exec:command("ls package.json && echo $NAME").exit_code
  end)
end, { concurrency = 3 })
print("exit codes: " .. table.concat(results, " "))

lbox.Box.delete_snapshots { snapshot_ids = snapshot.id }
