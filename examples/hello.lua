local lbox = require "lbox"

local box = lbox.Box.create()
box.files:write { path = "hello.txt", content = "hello from the box\n" }
print(box.exec:command("cat hello.txt && uname -s").result)

for chunk in box.exec:stream("for i in 1 2 3; do echo $i; sleep 0.2; done"):chunks() do
  if chunk.type == "output" then io.write(chunk.data) end
end
box:delete()
