-- An ephemeral box: made at once, deleted by the server after its time, whatever becomes of this script.
--
--     UPSTASH_BOX_API_KEY=… build/lbox examples/ephemeral.lua
local lbox = require "lbox"

local box = lbox.EphemeralBox.create { ttl = 120, labels = { "tool-call" } }
print("lives until " .. os.date("!%H:%M:%S", box.expires_at))

print(box.exec:command("echo untrusted code runs here").exit_code)
box.files:write { path = "input.txt", content = "42\n" }

-- It can do less than other boxes, and says so.
print(select(2, pcall(function() return box.git end)))

box:delete() -- it need not wait for its end
