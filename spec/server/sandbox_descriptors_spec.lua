-- Descriptors of sandboxes and of the server: none is left behind, and a shortage passes.
local async = require "lbox.async"
local init_link = require "lbox.server.init_link"
local lbox = require "lbox"
local posix = require "lbox.server.posix"
local sandbox = require "lbox.server.sandbox"
local sandboxes = require "spec.support.sandbox"
local support = require "spec.support.local"

local end_of, open_fds, raised = sandboxes.end_of, sandboxes.open_fds, sandboxes.raised

describe("a command of a sandbox", function()
  local sb
  local place = sandboxes.place()
  local new_box, sh, spawn = place.new_box, place.sh, place.spawn

  setup(function()
    sb = place.start()
  end)

  teardown(place.remove)

  -- Keeps a number of descriptors under way, in sockets that nobody reads from, until it is killed.
  local UNDER_WAY = [[
import array, resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
want, count, kept = int(sys.argv[1]), 0, []
fds = array.array('i', [0] * 250)
try:
    while count < want:
        kept.append(socket.socketpair())
        kept[-1][0].setblocking(False)
        try:
            while count < want:
                kept[-1][0].sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                count += len(fds)
        except BlockingIOError: pass
except OSError: pass
print('these are all', flush=True)
time.sleep(60)
]]

  local function start_under_way(box, want)
    box:write_file("/tmp/under-way.py", UNDER_WAY)
    local proc = box:spawn {
      argv = { "python3", "/tmp/under-way.py", tostring(want) }, cwd = "/", env = sandboxes.ENV,
    }
    assert.are.equal("stdout", (proc:read()))
    return proc
  end

  it("cannot have so many descriptors under way that files are read no more", function()
    local other = sandbox.start(new_box())
    local proc = start_under_way(other, 1000000)
    async.timeout(5000, other.write_file, other, "/tmp/x", "still")
    assert.are.equal("still", async.timeout(5000, other.read_file, other, "/tmp/x", 10))
    assert.are.equal("fine\n", (sh("echo fine", other)))
    proc:kill()
    proc:wait()
    end_of(other)
  end)

  it("has fewer descriptors than lbox-init, and as many as programs expect", function()
    local own = tonumber((support.sh("ulimit -Hn")))
    local soft, hard = sh("ulimit -Sn; ulimit -Hn"):match("^(%d+)\n(%d+)\n$")
    assert.is_true(tonumber(hard) <= own // 2)
    assert.are.equal(math.min(1024, tonumber(hard)), tonumber(soft))
  end)

  it("that makes lbox-init run short of descriptors gets its errors, nobody hangs, and it passes", function()
    local box = new_box()
    local other = sandbox.start(box)
    local pid = sandboxes.init_pid(box)
    local proc = start_under_way(other, 1000)
    local text, status = support.sh(sandboxes.AS_BOX .. "prlimit --nofile=200: --pid " .. pid)
    assert.are.equal(0, status, text)
    for _ = 1, 3 do
      local err = raised("local", async.timeout, 5000, other.read_file, other, "/tmp/under-way.py", 4096)
      assert.are.equal("ETOOMANYREFS", err.errno)
      err = raised("local", async.timeout, 5000, other.write_file, other, "/tmp/x", "x")
      assert.are.equal("ETOOMANYREFS", err.errno)
    end
    assert.is_false(other.closed)
    assert.are.same({ "under-way.py" }, posix.listdir(box.root .. "/tmp"))
    proc:kill()
    proc:wait()
    async.sleep(100) -- until the kernel has closed them all
    other:write_file("/tmp/x", "again")
    assert.are.equal("again", other:read_file("/tmp/x", 10))
    end_of(other)
  end)

  it("leaves no descriptor behind", function()
    sh("true")
    local before = open_fds()
    for _ = 1, 20 do
      sh("echo x; echo y >&2")
      spawn("no-such-program"):wait()
      local proc = spawn("sleep", "5")
      proc:kill()
      proc:close()
    end
    pcall(sb.read_file, sb, "/no/such", 100)
    raised("local", spawn, "a\0b")
    async.sleep(100)
    assert.are.equal(before, open_fds())
  end)
end)

describe("a server without descriptors", function()
  local sb, soft
  local taken = {}
  local place = sandboxes.place()
  local sh = place.sh

  local function limit(n)
    local text, status = support.sh(("prlimit --nofile=%s: --pid %d"):format(n, posix.getpid()))
    assert.are.equal(0, status, text)
  end

  --- Takes all descriptors there are, under a lower limit: else there may be very many.
  local function take_all()
    soft = support.sh("ulimit -Sn"):match("%S+")
    limit(256)
    local fd, _, errno
    repeat
      fd, _, errno = posix.open("/dev/null")
      taken[#taken + 1] = fd
    until not fd
    assert.are.equal("EMFILE", errno)
  end

  local function give_back()
    for _, fd in ipairs(taken) do
      posix.close(fd)
    end
    taken = {}
    limit(soft)
  end

  --- Number of descriptors of the box's lbox-init; nil when only root may know.
  local function fds_of_init(box)
    local fds = posix.listdir(("/proc/%s/fd"):format(sandboxes.init_pid(box)))
    return fds and #fds
  end

  setup(function()
    sb = place.start()
  end)

  teardown(place.remove)

  it("gets errors when it asks for files, the box lives on, and it passes", function()
    sb:write_file("/tmp/few/x", "one")
    local before, before_inside = open_fds(), fds_of_init(sb)
    take_all()
    finally(give_back)
    for _ = 1, 3 do
      for _, ask in ipairs { { sb.read_file, "/tmp/few/x", 10 }, { sb.write_file, "/tmp/few/x", "two" },
        { sb.list, "/tmp/few" } } do
        local err = raised("local", async.timeout, 5000, ask[1], sb, table.unpack(ask, 2))
        assert.are.equal("EMFILE", err.errno)
      end
    end
    assert.are.equal(3, sb:stat("/tmp/few/x").size)
    give_back()
    assert.are.equal("one", sb:read_file("/tmp/few/x", 10))
    assert.are.equal("x\n", (sh("ls -A /tmp/few"))) -- nothing half written
    sb:write_file("/tmp/few/x", "three")
    assert.are.equal("three", sb:read_file("/tmp/few/x", 10))
    assert.are.equal(before, open_fds())
    async.timeout(5000, function()
      while fds_of_init(sb) ~= before_inside do -- it may be about to close some
        async.sleep(5)
      end
    end)
  end)

  it("still believes no answer with descriptors that were not asked for", function()
    local ours, theirs = posix.socketpair()
    local link = init_link.new(ours, function() end)
    posix.send(theirs, string.pack("=I4i4", 0, 0))
    link:wait_ready()
    local task = async.spawn(raised, "local", link.ask, link, init_link.STAT, string.pack("=I4s4", 0, "/x"))
    async.sleep(1)
    take_all()
    finally(give_back)
    assert(posix.send(theirs, string.pack("=I4i4I1I8i8", 1, 0, 0, 0, 0), { theirs }))
    assert.are.equal("sandbox_ended", async.timeout(5000, task.await, task).code)
    posix.close(theirs)
  end)

  it("keeps none of a message when there is not room for all", function()
    local before = open_fds()
    local ours, theirs = posix.socketpair()
    take_all()
    finally(give_back)
    for _ = 1, 2 do
      posix.close(table.remove(taken))
    end
    for _ = 1, 3 do
      assert(posix.send(theirs, "x", { ours, ours, ours }))
      assert.are.same({ "x", {}, true }, { posix.recv(ours, 10) })
    end
    assert(posix.send(theirs, "y", { ours, ours }))
    local bytes, fds, lost = posix.recv(ours, 10)
    assert.are.equal("y", bytes)
    assert.are.equal(2, #fds)
    assert.is_false(lost)
    for _, fd in ipairs { ours, theirs, fds[1], fds[2] } do
      posix.close(fd)
    end
    give_back()
    assert.are.equal(before, open_fds())
  end)
end)

describe("a server that may have few descriptors at first", function()
  --- The soft and the hard limit of a process's descriptors.
  local function limits(pid)
    local file = assert(io.open(("/proc/%s/limits"):format(pid)))
    local soft, hard = file:read("a"):match("Max open files%s+(%S+)%s+(%S+)")
    file:close()
    return tonumber(soft), tonumber(hard) or math.huge
  end

  local function children(pid, name)
    local pids = {}
    for child in support.sh(("pgrep -P %s %s"):format(pid, name or "")):gmatch("%d+") do
      pids[#pids + 1] = child
    end
    return pids
  end

  it("has thirty boxes at work, and what it starts has no more than before", function()
    local server = support.start { prefix = "prlimit --nofile=64:" }
    finally(function() server:stop() end)
    local soft, hard = limits(server.pid)
    assert.are.equal(math.min(hard, 1 << 20), soft)
    local boxes, streams = {}, {}
    for i = 1, 30 do
      boxes[i] = lbox.Box.create(server:client())
      streams[i] = boxes[i].exec:stream("ulimit -Sn; exec sleep 60")
      assert.are.equal(math.min(1024, hard // 2) .. "\n", streams[i]:next().data)
    end
    for _, box in ipairs(boxes) do
      box.files:write { path = "x", content = box.id }
      assert.are.equal(box.id, box.files:read("x"))
    end
    local started = children(server.pid, "bwrap")
    assert.are.equal(30, #started)
    for _, pid in ipairs(started) do
      assert.are.same({ 64, hard }, { limits(pid) })
      assert.are.same({ hard, hard }, { limits(children(pid)[1]) })
    end
    for _, box in ipairs(boxes) do
      box:delete()
    end
  end)
end)
