-- Files of a sandbox, below the server.
local async = require "lbox.async"
local posix = require "lbox.server.posix"
local sandbox = require "lbox.server.sandbox"
local sandboxes = require "spec.support.sandbox"

local end_of, raised = sandboxes.end_of, sandboxes.raised

describe("a file of a sandbox", function()
  local sb
  local place = sandboxes.place()
  local new_box, sh, spawn = place.new_box, place.sh, place.spawn

  setup(function()
    sb = place.start()
  end)

  teardown(place.remove)

  it("is written whole, with the directories it needs, and read back", function()
    local bytes = ("\0\1\255 text\n"):rep(200000)
    sb:write_file("/workspace/home/a/b/c.bin", bytes)
    assert.are.equal(bytes, sb:read_file("/workspace/home/a/b/c.bin", #bytes))
    assert.are.same({ type = "file", size = #bytes }, {
      type = sb:stat("/workspace/home/a/b/c.bin").type, size = sb:stat("/workspace/home/a/b/c.bin").size,
    })
    assert.are.equal("boxuser 644\n", (sh("stat -c '%U %a' a/b/c.bin")))
    assert.are.equal("c.bin\n", (sh("ls -A a/b")))
  end)

  it("keeps its mode when it is replaced, and a link to it stays a link", function()
    sh("echo old > script; chmod 755 script; ln -s script link")
    sb:write_file("/workspace/home/link", "new")
    assert.are.equal("new", sb:read_file("/workspace/home/script", 10))
    assert.are.equal("755\n", (sh("stat -c %a script")))
    assert.are.equal("symlink", sb:stat("/workspace/home/link").type)
    assert.are.equal("file", sb:stat("/workspace/home/link", true).type)
  end)

  it("that a dangling link names is made, and the link stays", function()
    sh("mkdir -p far/to; ln -s ../one far/two; ln -s far/two three; ln -s nowhere/x lost")
    sb:write_file("/workspace/home/three", "x")
    assert.are.equal("symlink", sb:stat("/workspace/home/three").type)
    assert.are.equal("symlink", sb:stat("/workspace/home/far/two").type)
    assert.are.equal("x", sb:read_file("/workspace/home/one", 10))
    assert.are.equal("boxuser 644\n", (sh("stat -c '%U %a' one")))
    -- As for any program, the directory has to be there.
    assert.are.equal("ENOENT", raised("local", sb.write_file, sb, "/workspace/home/lost", "x").errno)
    sh("rm -r far one three lost")
  end)

  it("is written also when hundreds are at once", function()
    local tasks = {}
    for i = 1, 200 do
      tasks[i] = async.spawn(sb.write_file, sb, "/tmp/many/" .. i, ("%d\n"):format(i):rep(100000))
    end
    for _, task in ipairs(tasks) do
      task:await()
    end
    assert.are.equal("200\n", (sh("ls -A /tmp/many | wc -l")))
    assert.are.equal(("200\n"):rep(100000), sb:read_file("/tmp/many/200", 1e6))
    sh("rm -r /tmp/many")
  end)

  it("of a directory with too many is not listed, and nothing waits for it", function()
    local text = sh("python3 -c 'import os\nos.mkdir(\"/dev/shm/full\")\n"
      .. "for i in range(50000): os.mknod(f\"/dev/shm/full/{i}\")'")
    assert.are.equal("", text)
    assert.are.equal(50000, #sb:list("/dev/shm/full"))
    sb:write_file("/dev/shm/full/one more", "")
    local err = raised("local", sb.list, sb, "/dev/shm/full")
    assert.are.equal("EFBIG", err.errno)
    assert.matches("entries", err.message)
    sh("rm -r /dev/shm/full")
  end)

  it("larger than what was asked for is an error", function()
    sh("truncate -s 100G big")
    assert.are.equal("EFBIG", raised("local", sb.read_file, sb, "/workspace/home/big", 1000).errno)
  end)

  it("lists, makes, renames and removes", function()
    sb:mkdir("/workspace/home/d/e", true)
    assert.are.equal("EEXIST", raised("local", sb.mkdir, sb, "/workspace/home/d").errno)
    sb:write_file("/workspace/home/d/f", "12345")
    sh("ln -s f d/link; mkfifo d/fifo")
    local names = {}
    for i, entry in ipairs(sb:list("/workspace/home/d")) do
      names[i] = ("%s %s"):format(entry.name, entry.type)
    end
    assert.are.same({ "e directory", "f file", "fifo other", "link symlink" }, names)
    sb:rename("/workspace/home/d/f", "/workspace/home/d/g")
    sb:remove("/workspace/home/d/g")
    sb:remove("/workspace/home/d/e")
    assert.are.equal("ENOENT", raised("local", sb.stat, sb, "/workspace/home/d/g").errno)
    assert.are.equal("ENOTEMPTY", raised("local", sb.remove, sb, "/workspace/home/d").errno)
  end)

  it("that is none is refused, and nothing waits for it", function()
    sh("mkfifo fifo; ln -s fifo to-fifo; ln -s loop loop; mkdir -p dir")
    local started = async.now()
    for path, errno in pairs {
      ["/workspace/home/fifo"] = "EINVAL", ["/workspace/home/to-fifo"] = "EINVAL", ["/dev/zero"] = "EINVAL",
      ["/dev/tty"] = "ENXIO", ["/workspace/home/loop"] = "ELOOP", ["/workspace/home/dir"] = "EISDIR",
      ["/proc/1/mem"] = "EACCES", ["/etc/shadow"] = "ENOENT", ["relative"] = "EINVAL", ["/a\0b"] = "EINVAL",
      ["/" .. ("a"):rep(300)] = "ENAMETOOLONG", [("/a"):rep(9000)] = "ENAMETOOLONG",
    } do
      assert.are.equal(errno, raised("local", sb.read_file, sb, path, 1000).errno, path:sub(1, 40))
    end
    for path, errno in pairs {
      ["/workspace/home/fifo"] = "EINVAL", ["/workspace/home/dir"] = "EISDIR", ["/usr/x"] = "EROFS",
      ["/workspace/home/fifo/x"] = "ENOTDIR", ["/workspace/home/loop/x"] = "ELOOP", ["/proc/x"] = "ENOENT",
      ["/workspace/home/"] = "EISDIR", ["/etc/passwd"] = "EROFS",
    } do
      assert.are.equal(errno, raised("local", sb.write_file, sb, path, "x").errno, path)
    end
    assert.is_true(async.now() - started < 5000)
  end)

  it("cannot be put under a lease, which would hold up who opens it", function()
    local proc = spawn("python3", "-c", [[
import fcntl
for path, mode in (('/tmp/leased', 'w'), ('/etc/hosts', 'r')):
    try: fcntl.fcntl(open(path, mode), fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except PermissionError: print('refused', end=' ', flush=True)]])
    local said = ""
    for _, bytes in proc.read, proc do
      said = said .. bytes
    end
    assert.are.equal("refused refused ", said)
  end)

  it("of /proc is not read, which may take as long as the box likes", function()
    for _, path in ipairs { "/proc/self/smaps", "/proc/cpuinfo" } do
      assert.are.equal("EINVAL", raised("local", sb.read_file, sb, path, 1000000).errno)
    end
  end)

  it("that was being written when the box ended leaves nothing", function()
    local box = new_box()
    local other = sandbox.start(box)
    local link = require "lbox.server.init_link"
    local code, fd = other.link:ask(link.CREATE, string.pack("=s4", "/workspace/home/half"))
    assert.are.equal(0, code)
    posix.close(fd)
    assert.matches("%.lbox%-write%-", (sh("ls -A", other)))
    end_of(other)
    assert.are.same({}, posix.listdir(box.root .. "/workspace/home"))
  end)
end)
