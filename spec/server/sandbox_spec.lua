-- Sandboxes below the server: how they start and end, and what is made of their roots.
local async = require "lbox.async"
local posix = require "lbox.server.posix"
local sandbox = require "lbox.server.sandbox"
local sandboxes = require "spec.support.sandbox"
local support = require "spec.support.local"

local end_of, open_fds, raised = sandboxes.end_of, sandboxes.open_fds, sandboxes.raised

describe("a sandbox", function()
  local dir
  local place = sandboxes.place()
  local new_box, sh = place.new_box, place.sh

  setup(function()
    place.start()
    dir = place.dir
  end)

  teardown(place.remove)

  describe("end", function()
    it("ends every process, tells who waits, and takes its commands along", function()
      local other = sandbox.start(new_box())
      local proc = other:spawn { argv = { "sleep", "71" }, cwd = "/", env = sandboxes.ENV }
      local told = 0
      table.insert(other.on_exit, function() told = told + 1 end)
      assert.is_true(other:has_processes())
      async.spawn(function()
        async.sleep(20)
        end_of(other)
      end)
      local result = async.timeout(5000, proc.wait, proc)
      assert.are.equal(137, result.exit_code)
      assert.is_true(result.stopped)
      repeat
        async.sleep(5)
      until other.ended
      assert.are.equal(1, told)
      assert.are.equal("", (support.sh("pgrep -f 'sleep [7]1' || true")))
      assert.is_true(raised("local", other.read_file, other, "/tmp/x", 1).code == "sandbox_ended")
    end)

    it("by a kill of pid 1 from outside is noticed", function()
      local box = new_box()
      local other = sandbox.start(box)
      local proc = other:spawn { argv = { "sleep", "72" }, cwd = "/", env = sandboxes.ENV }
      local pid = sandboxes.init_pid(box)
      posix.kill(math.tointeger(tonumber(pid)), "KILL")
      assert.is_true(async.timeout(5000, proc.wait, proc).exit_code == 137)
      other:run()
      assert.is_true(other.closed)
    end)

    it("leaves no descriptor and no child behind, also when the start was cancelled", function()
      end_of(sandbox.start(new_box()))
      async.sleep(50)
      local before = open_fds()
      for i = 1, 8 do
        local box = new_box()
        local task = async.spawn(function() end_of(sandbox.start(box)) end)
        async.sleep(i)
        task:cancel()
        pcall(task.await, task)
        end_of(sandbox.start(box)) -- waits for the lock, so for the end of the other
      end
      async.sleep(50)
      assert.are.equal(before, open_fds())
      assert.are.equal("1\n", (support.sh("pgrep -c -P " .. posix.getpid() .. " bwrap")))
    end)

    it("comes before the next start: two sandboxes of one box never run at once", function()
      local box = new_box()
      local first = sandbox.start(box)
      local second
      local task = async.spawn(function() second = sandbox.start(box) end)
      async.sleep(50)
      assert.is_nil(second)
      first:close()
      async.timeout(5000, task.await, task)
      assert.is_true(first.ended)
      end_of(second)
    end)
  end)

  describe("root", function()
    it("is put in order before a start, whatever the box made of it", function()
      local box = new_box()
      local outside = dir .. "/outside"
      support.sh(("mkdir %s && chmod 777 %s"):format(outside, outside))
      support.sh(([[cd %s && rmdir run dev proc etc usr && ln -s /oldroot%s run && ln -s ../outside dev &&
        touch proc && mkfifo etc && ln -s / usr && rm bin && mkdir -p bin/x && chmod 0 .]]):format(
        box.root, outside))
      local other = sandbox.start(box)
      assert.are.equal("lbox\n", (sh("ls /run", other)))
      assert.are.equal("usr/bin\n", (sh("readlink /bin", other)))
      end_of(other)
      assert.are.same({}, posix.listdir(outside))
      local kept
      for _, name in ipairs(posix.listdir(box.root)) do
        kept = kept or name:match("^bin%.moved%-%x+$")
      end
      assert.is_string(kept)
    end)

    it("takes no name with a slash, and no link in place of itself", function()
      local box = new_box()
      for _, name in ipairs { "a/b", "..", ".", "" } do
        local ok, _, errno = posix.mount_points(box.root, { name }, {})
        assert.is_nil(ok)
        assert.are.equal("EINVAL", errno)
      end
      assert(posix.symlink("/", box.root .. "-link"))
      local ok, _, errno = posix.mount_points(box.root .. "-link", { "x" }, {})
      assert.is_nil(ok)
      assert.are.equal("ENOTDIR", errno)
    end)

    it("is emptied with few descriptors also of a deep tree that nobody may write to", function()
      local box = new_box()
      local other = sandbox.start(box)
      local text = sh([[python3 -c '
import os
os.chdir("/tmp")
for i in range(3000):
    os.mkdir("deep", 0o755); os.chdir("deep")
    if i % 100 == 0: open("file", "w")
for i in range(3000):
    os.chmod(".", 0o555); os.chdir("..")
']], other)
      assert.are.equal("", text)
      end_of(other)
      local status
      text, status = support.sh(("%sprlimit --nofile=64 %s/lbox-init empty %s"):format(
        sandboxes.AS_BOX, box.bin, box.root))
      assert.are.equal(0, status, text)
      assert.are.same({}, posix.listdir(box.root))
    end)

    it("is emptied however deep, closed or full of links it is", function()
      local box = new_box()
      local outside = dir .. "/precious"
      support.sh(("mkdir %s && echo keep > %s/file && chmod 777 %s"):format(outside, outside, outside))
      local other = sandbox.start(box)
      local _, result = sh(([[
python3 -c '
import os
os.chdir("/tmp")
for i in range(3000):
    os.mkdir("deep"); os.chdir("deep")
'
ln -s %s link; ln -s / slash; mkdir closed; touch closed/x; chmod 0 closed; mkfifo fifo
i=0; while [ $i -lt 300 ]; do : > many-$i; i=$((i + 1)); done]]):format(outside), other)
      assert.are.equal(0, result.exit_code)
      end_of(other)
      sandbox.empty_root(box.root, sandboxes.uid, box.bin)
      assert.are.same({}, posix.listdir(box.root))
      assert.are.same({ "file" }, posix.listdir(outside))
    end)
  end)
end)
