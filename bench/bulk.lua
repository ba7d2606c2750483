-- What of a local box is much: output of a command, files up and down, snapshots and boxes made of them; each beside
-- a program of the host that does the same without a box.
local lbox = require "lbox"

local MB = 512
local FILES, BIG_MB = 50000, 1024

local function sh(command)
  assert(os.execute(command), command .. " failed")
end

local function seconds(fn)
  local started = lbox.now()
  fn()
  return (lbox.now() - started) / 1000
end

local function row(what, took, plain, by)
  print(("  %-32s %8.2f %8.2f  %s"):format(what, took, plain, by))
end

local function rows_of_bytes(box, dir)
  local zeros = ("head -c %d /dev/zero"):format(MB << 20)
  row(("output of %d MB"):format(MB), seconds(function()
    local read = 0
    for chunk in box.exec:stream(zeros):chunks() do
      read = read + #(chunk.data or "")
    end
    assert(read == MB << 20, "the output is not whole")
  end), seconds(function() sh(zeros .. " | cat >/dev/null") end), "cat")
  sh(("%s >%s/up"):format(zeros, dir))
  local plain = seconds(function() sh(("cat %s/up >%s/copy"):format(dir, dir)) end)
  row(("upload of %d MB"):format(MB), seconds(function()
    box.files:upload { { path = dir .. "/up", destination = "up" } }
  end), plain, "cat")
  assert(tonumber(box.files:stat("up").size) == MB << 20)
  row(("download of %d MB"):format(MB), seconds(function()
    box.files:download { folder = "up", to = dir .. "/down" }
  end), plain, "cat")
  sh(("rm %s/up %s/copy"):format(dir, dir))
  box.files:remove("up")
end

local function rows_of_trees(dir)
  for _, tree in ipairs {
    { ("%d files"):format(FILES), ("mkdir t; cd t; seq %d | split -a 4 -l 1"):format(FILES) },
    { ("1 file of %d MB"):format(BIG_MB), ("mkdir t; head -c %d /dev/urandom >t/big"):format(BIG_MB << 20) },
  } do
    local what, make = tree[1], tree[2]
    lbox.with_box({ base_url = "local" }, function(box)
      assert(box.exec:command(make).exit_code == 0)
      sh(("mkdir %s/plain; cd %s/plain; %s"):format(dir, dir, make))
      local plain = seconds(function() sh(("cp -a %s/plain %s/copy"):format(dir, dir)) end)
      local snapshot
      row("snapshot of " .. what, seconds(function() snapshot = box:snapshot { name = "bulk" } end), plain, "cp -a")
      row("box of that snapshot", seconds(function()
        lbox.Box.from_snapshot(snapshot.id, { base_url = "local" }):delete()
      end), plain, "cp -a")
      box:delete_snapshot(snapshot.id)
      sh(("rm -rf %s/plain %s/copy"):format(dir, dir))
    end)
  end
end

return function()
  local dir = os.getenv("LBOX_DATA") .. "/bulk"
  sh("mkdir " .. dir)
  print(("\n%-34s %8s %8s"):format("Much of a local box, seconds", "lbox", "plain"))
  lbox.with_box({ base_url = "local" }, function(box) rows_of_bytes(box, dir) end)
  rows_of_trees(dir)
end
