-- A sandbox that stands still for a while, below the server.
local async = require "lbox.async"
local sandboxes = require "spec.support.sandbox"
local support = require "spec.support.local"

describe("a sandbox that stands still", function()
  local sb
  local place = sandboxes.place()
  local sh, spawn = place.sh, place.spawn

  setup(function()
    sb = place.start()
  end)

  teardown(place.remove)

  local function count()
    return tonumber((sb:read_file("/tmp/count", 100))) or 0
  end

  --- Waits until what counts has gone on.
  local function goes_on()
    local at = count()
    return async.timeout(5000, function()
      while count() <= at do
        async.sleep(10)
      end
    end)
  end

  it("changes nothing, whatever runs in it, and goes on where it was", function()
    sh("cat > /tmp/count.py <<'EOF'\nimport os, threading\nfor each in range(4):\n"
      .. "  threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()\nn = 0\nwhile True:\n"
      .. "  n += 1\n  open('/tmp/new', 'w').write(str(n))\n  os.rename('/tmp/new', '/tmp/count')\nEOF")
    sh("nohup setsid python3 /tmp/count.py & while ! test -e /tmp/count; do sleep 0.01; done")
    for _ = 1, 5 do
      sb:freeze()
      local at = count()
      async.sleep(50)
      assert.are.equal(at, count())
      sb:thaw()
      goes_on()
    end
  end)

  it("starts no command and begins no file until it goes on", function()
    sb:freeze()
    local order = {}
    local later = { async.spawn(function()
      sh("true")
      table.insert(order, "run")
    end), async.spawn(function()
      sb:mkdir("/tmp/made")
      table.insert(order, "made")
    end) }
    async.sleep(100)
    assert.are.same({}, order)
    assert.is_false(pcall(sb.stat, sb, "/tmp/made"))
    sb:thaw()
    for _, task in ipairs(later) do
      task:await()
    end
    assert.are.equal(2, #order)
    assert.are.equal("directory", sb:stat("/tmp/made").type)
  end)

  it("ends what is killed meanwhile, and nothing else goes on by that", function()
    local proc = spawn("sh", "-c", "setsid sleep 3217 & sleep 3217")
    async.sleep(100)
    sb:freeze()
    local at = count()
    proc:kill()
    assert.are.equal(137, async.timeout(5000, proc.wait, proc).exit_code)
    async.timeout(5000, function()
      while support.sh("pgrep -f '[s]leep 3217'") ~= "" do
        async.sleep(20)
      end
    end)
    async.sleep(100)
    assert.are.equal(at, count())
    sb:thaw()
    goes_on()
  end)

  it("leaves stopped what was stopped before", function()
    local proc = spawn("sh", "-c", "kill -STOP $$; echo on")
    async.sleep(100)
    sb:freeze()
    sb:thaw()
    goes_on()
    assert.is_nil(proc.result)
    sh("kill -CONT " .. proc.pid)
    assert.are.equal("stdout", (proc:read()))
    assert.are.equal(0, proc:wait().exit_code)
  end)

  it("may be stopped or let go twice, and ends as always", function()
    sb:thaw()
    sb:freeze()
    sb:freeze()
    sb:thaw()
    goes_on()
    sb:freeze()
    sandboxes.end_of(sb)
    assert.are.equal("", (support.sh("pgrep -f '[c]ount.py'")))
    sb:thaw()
  end)
end)
