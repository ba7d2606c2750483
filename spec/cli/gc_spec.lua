-- What a killed script leaves, and that `lbox gc` finds exactly that.
local support = require "spec.support.local"

describe("lbox gc", function()
  local dir, env

  before_each(function()
    dir = support.directory()
    env = ("export LBOX_DATA=%s/data XDG_STATE_HOME=%s/state; "):format(dir, dir)
  end)

  after_each(function()
    support.sh(("pkill -f '[s]erve --data %s'; sleep 0.2; rm -rf %s"):format(dir, dir))
  end)

  local function lbox(arguments)
    return support.sh(env .. support.program .. " --local " .. arguments)
  end

  it("finds and deletes the boxes of a script that was killed in the middle of a fan-out", function()
    local script = dir .. "/fanout.lua"
    local file = assert(io.open(script, "w"))
    file:write([[
      lbox.Box.create { name = "the-users" }
      lbox.map({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20 }, function()
        lbox.with_box({}, function(box)
          box.exec:command("true")
          print("up")
          io.stdout:flush()
          lbox.sleep(60000)
        end)
      end, { concurrency = 20 })]])
    file:close()
    support.sh(("%s %s --local %s >%s/out 2>&1 & for i in $(seq 200); do "
      .. "[ $(grep -c up %s/out) = 20 ] && break; sleep 0.05; done"):format(env, support.program, script, dir, dir))
    assert.are.equal("", (lbox("gc"))) -- its owner lives
    support.sh(("kill -9 $(pgrep -f '[-]-local %s')"):format(script))
    local found = lbox("gc")
    assert.are.equal(20, select(2, found:gsub("left by process %d+\n", "")))
    assert.are.equal("21\n", (lbox("-e 'print(#lbox.Box.list())'")))
    local deleted, status = lbox("gc --yes")
    assert.are.equal(0, status)
    assert.are.equal(20, select(2, deleted:gsub("deleted\n", "")))
    assert.are.equal("1\tthe-users\n", (lbox("-e 'local l = lbox.Box.list() print(#l, l[1].name)'")))
    assert.are.equal("", (lbox("gc")))
    assert.are.equal("", (support.sh("ls " .. dir .. "/state/lbox/boxes")))
  end)

  it("has nothing to find after a script that ended", function()
    assert.are.equal("fine\n", (lbox("-e 'print(lbox.with_box({}, function() return \"fine\" end))'")))
    assert.are.equal("", (support.sh("ls " .. dir .. "/state/lbox/boxes")))
    assert.are.equal("700\n", (support.sh("stat -c %a " .. dir .. "/state/lbox/boxes")))
  end)

  it("keeps what it cannot look for, and says why", function()
    local entry = [[{"label":"lbox:x","base_url":"http://127.0.0.1:1","pid":"1","created_at":1}]]
    support.sh(("mkdir -p %s/state/lbox/boxes && cd %s/state/lbox/boxes && echo '{' >bad && echo '%s' >x"):format(dir,
      dir, entry))
    local text, status = support.sh(env .. support.program .. " --api-key k gc --yes")
    assert.are.equal(125, status)
    assert.matches("cannot connect to http://127.0.0.1:1", text)
    assert.are.equal("bad\nx\n", (support.sh("ls " .. dir .. "/state/lbox/boxes")))
  end)
end)
