-- Commands and code: at once, as a stream, in a directory, with a time limit.
--
--     build/lbox --local examples/commands.lua
local lbox = require "lbox"

lbox.with_box({ env = { GREETING = "hello" } }, function(box)
  local run = box.exec:command("echo $GREETING; echo oops >&2; exit 3")
  print(run.exit_code, run.stdout:gsub("\n", ""), run.stderr)

  box.exec:command("mkdir -p project && echo 'print(6 * 7)' > project/answer.lua")
  box:cd("project")
  print(box.exec:command("ls").result)

  for chunk in box.exec:stream("for i in 1 2 3; do echo step $i; sleep 0.1; done; exit 4"):chunks() do
    if chunk.type == "output" then
      io.write(chunk.data)
    else
      print("exit code " .. chunk.exit_code)
    end
  end

  -- The time limit of code is the server's: it ends what still runs.
  local code = box.exec:code { lang = "js", code = "console.log([1, 2, 3].map((x) => x * x).join())", timeout = 10000 }
  print(code.result)
end)
