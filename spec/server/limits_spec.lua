-- What boxes may use, and how many there may be: what is done about it, and what is said.
local lbox = require "lbox"
local limits = require "lbox.server.limits"
local support = require "spec.support.local"
local Box = lbox.Box

local function refused(fn, ...)
  local ok, err = pcall(fn, ...)
  assert(not ok, "no error was raised")
  return err.status_code, err.message
end

describe("a limit", function()
  it("is written as people write sizes", function()
    for text, bytes in pairs { ["64M"] = 64 * 1024 * 1024, ["1.5G"] = 1536 * 1024 * 1024, ["10"] = 10, ["2k"] = 2048,
      ["1GiB"] = 1024 * 1024 * 1024, ["0"] = 0 } do
      assert.are.equal(bytes, limits.bytes(text), text)
    end
    for _, wrong in ipairs { "", "M", "-1", "1X", "1e9", "0x10", "99999999T", "1 G" } do
      assert.is_nil(limits.bytes(wrong), wrong)
    end
    for _, wrong in ipairs { "memory", "memory=", "cpu=1", "disk=x", "disk=0", "=1", "memory=4",
      "processes=2" } do
      local limit, why = limits.parse(wrong)
      assert.is_nil(limit)
      assert.matches("^%-%-limit", why)
    end
  end)

  it("that is none is refused at the start", function()
    for option, what in pairs { ["--limit cpu=3"] = "memory=SIZE", ["--max-boxes 0"] = "from 1 on",
      ["--max-disk much"] = "no size", ["--disk-floor 1Y"] = "no size", ["--limit memory=4"] = "at least 16 MB" } do
      local text, status = support.sh(support.program .. " serve " .. option)
      assert.are_not.equal(0, status)
      assert.matches(what, text)
    end
  end)
end)

describe("the limits of a box", function()
  local server, box

  setup(function()
    server = support.start { args = "--limit memory=96M --limit disk=24M --limit processes=100" }
    box = Box.create(server:client())
  end)

  teardown(function()
    server:stop()
  end)

  local function run(command)
    return box.exec:command(command, { timeout = 20000 })
  end

  local function logged(pattern)
    for _ = 1, 100 do
      for _, entry in ipairs(box:logs()) do
        if entry.message:find(pattern) then
          return entry
        end
      end
      lbox.sleep(20)
    end
    error("not in the logs: " .. pattern)
  end

  it("end a process that takes too much memory, with a word in the logs", function()
    assert.are.equal("alive\n", run("echo alive").stdout)
    local result = run("python3 -c 'x = []\nwhile True: x.append(bytearray(1000000))'; exit $?")
    assert.are.equal(137, result.exit_code)
    local entry = logged("memory limit of 96 MB: killed process \"python3\", which had %d+")
    assert.are.same({ "error", "system" }, { entry.level, entry.source })
    assert.matches("memory limit of 96 MB", server:said())
  end)

  it("count memory that processes share once", function()
    -- Sixty megabytes that eight processes see.
    local result = run([[python3 -c '
import mmap, os, time
m = mmap.mmap(-1, 60000000)
for i in range(60): m.write(b"x" * 1000000)
for i in range(7):
    if os.fork() == 0: sum(m[::4096]); time.sleep(0.6); os._exit(0)
sum(m[::4096])
for i in range(7): os.wait()
print("whole")']])
    assert.are.equal("whole\n", result.stdout)
  end)

  it("bound what is kept in memory as files", function()
    assert.matches("No space left", run("cd /dev/shm; head -c 15M /dev/zero > a; head -c 15M /dev/zero > b")
      .stderr)
    run("rm /dev/shm/*")
    assert.matches("Read%-only", run("echo x > /dev/x").stderr)
  end)

  it("end a command that writes too much, in many files, with a word in the logs", function()
    local result = run("for i in $(seq 500); do head -c 1000000 /dev/zero > f$i || exit 1; sleep 0.01; done; exit 3")
    assert.are.equal(137, result.exit_code)
    logged("disk limit of 24 MB: the box has [%d.]+ MB on disk; killed")
    local code, why = refused(box.files.write, box.files, { path = "more", content = ("x"):rep(1000000) })
    assert.are.equal(507, code)
    assert.matches("disk limit of 24 MB: the box has [%d.]+ MB on disk", why)
    assert.are.equal("", run("rm f*").stderr)
    -- Only what is there counts, and it is counted again.
    local ok
    for _ = 1, 100 do
      ok = pcall(box.files.write, box.files, { path = "more", content = ("x"):rep(1000000) })
      if ok then
        break
      end
      lbox.sleep(50)
    end
    assert.is_true(ok)
  end)

  it("let no file grow beyond them, whatever makes it", function()
    for _, command in ipairs { "head -c 90000000 /dev/zero > big", "fallocate -l 90M big", "truncate -s 90M big" } do
      assert.are_not.equal(0, run(command .. "; code=$?; rm -f big; exit $code").exit_code, command)
    end
  end)

  it("bound processes, and others of the same user do not count", function()
    local result = run("i=0; while [ $i -lt 150 ]; do sleep 1 & i=$((i+1)); done")
    assert.matches("Cannot fork", result.stderr)
    local other = Box.create(server:client())
    assert.are.equal("there\n", other.exec:command("sleep 0.1 & sleep 0.1 & echo there").stdout)
    other:delete()
  end)

  it("are told of a size that there is not", function()
    local code, body = server:ask("POST", "/v2/box", '{"size":"huge"}')
    assert.are.equal(400, code)
    assert.matches("small, medium or large", body)
  end)
end)

describe("the limits of all boxes together", function()
  local server

  after_each(function()
    server:stop()
  end)

  it("refuse a box more than there may be", function()
    server = support.start { args = "--max-boxes 2" }
    local first = Box.create(server:client())
    Box.create(server:client())
    local code, why = refused(Box.create, server:client())
    assert.are.equal(429, code)
    assert.matches("limit reached: there are 2 boxes, and may be 2", why)
    first:delete()
    assert.is_string(Box.create(server:client()).id)
  end)

  it("refuse what is more on disk than there may be, also of boxes from before", function()
    server = support.start()
    Box.create(server:client()).files:write { path = "a", content = ("x"):rep(3000000) }
    server:kill()
    server = support.start { dir = server.dir, args = "--max-disk 2M" }
    local code, why
    for _ = 1, 100 do
      code, why = server:ask("POST", "/v2/box", "{}")
      if code ~= 200 then
        break
      end
      lbox.sleep(20)
    end
    assert.are.equal(507, code)
    assert.matches("%-%-max%-disk", why)
    local old = Box.list(server:client())
    local kept = Box.get(old[#old].id, server:client())
    assert.are.equal(507, (refused(kept.snapshot, kept, { name = "s" })))
    assert.are.equal("a\n", kept.exec:command("ls").stdout)
    kept:delete()
    assert.is_string(Box.create(server:client()).id)
  end)

  it("keep some of the disk free: nothing is added, and what is there can be read and deleted", function()
    server = support.start()
    local box = Box.create(server:client())
    box.files:write { path = "a", content = "x" }
    server:kill()
    server = support.start { dir = server.dir, args = "--disk-floor 1000000T" }
    box = Box.get(box.id, server:client())
    local code, why = refused(Box.create, server:client())
    assert.are.equal(507, code)
    assert.matches("the disk of this machine has less than", why)
    assert.are.equal(507, (refused(box.files.write, box.files, { path = "b", content = "x" })))
    assert.are.equal("x", box.files:read("a"))
    lbox.sleep(300)
    local result = box.exec:command("head -c 60000000 /dev/zero > big; sleep 5; echo whole", { timeout = 20000 })
    assert.are.equal(137, result.exit_code)
    local told = box:logs()
    assert.matches("less than 1000000 TB left: the box has", told[#told - 1].message)
    box:delete()
  end)

  if support.sh("id -u"):match("^0") then
    it("keep it also from a snapshot that is being copied, and note that as soon as there is room", function()
      local dir = support.directory()
      server = support.start { dir = dir, args = "--disk-floor 40M", prefix = ("unshare -m --propagation private sh -c "
        .. "'mount -t tmpfs -o size=200m none %s && mount -o remount,exec,suid,mode=711 %s && exec \"$@\"' sh"):format(
        dir, dir) }
      local box = Box.create(server:client())
      box.exec:command("head -c 90000000 /dev/zero | tr '\\0' x > big")
      local ok, snapshot = pcall(box.snapshot, box, { name = "s" })
      assert.is_false(ok, snapshot)
      local statuses = {}
      for i, each in ipairs(box:list_snapshots()) do
        statuses[i] = each.status
      end
      assert.are.same({ "error" }, statuses)
      assert.matches("has less than 40 MB left", server:said())
      assert.are.equal("90000000\n", box.exec:command("stat -c %s big").stdout)
    end)
  end
end)
