-- A session: a command in a terminal that one writes to while it runs.
--
--     UPSTASH_BOX_API_KEY=… build/lbox examples/session.lua
local lbox = require "lbox"

lbox.with_box({}, function(box)
  local session = box.exec:session { argv = { "sh" }, tty = true, rows = 24, cols = 80, env = { PS1 = "> " } }
  print("started as " .. session.pid)

  session:write "echo $((6 * 7))\n"
  session:resize(40, 120)
  session:write "stty size; exit 3\n"

  for _, data in session:output() do
    io.write(data)
  end
  print("exit code " .. session:wait())

  -- Without a terminal stdout and stderr stay apart, and the input can end.
  local sort = box.exec:session { argv = { "sort" } }
  sort:write "pear\napple\n"
  sort:end_stdin()
  for source, data in sort:output() do
    print(source, (data:gsub("\n", " ")))
  end
end)
