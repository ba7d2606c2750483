-- The data directory: whose it must be, what is put in order at the start, what a full disk does.
local lbox = require "lbox"
local support = require "spec.support.local"
local Box = lbox.Box

describe("a data directory", function()
  local dir

  before_each(function()
    dir = support.directory()
  end)

  after_each(function()
    support.sh("rm -rf " .. dir)
  end)

  --- What `lbox serve` says when it does not start.
  local function refused(prefix)
    local text, status = support.sh(("%s timeout 5 %s serve --data %s/data"):format(prefix or "", support.program, dir))
    assert.are.equal(125, status)
    return text
  end

  local function started_once()
    support.start({ dir = dir }):kill()
  end

  it("is made with the directories above it", function()
    local text = support.sh(("LBOX_DATA=%s/fresh/home/.local/lbox %s --local -e 'print(#lbox.Box.list())'; "
      .. "pkill -f '[s]erve --data %s/fresh'"):format(dir, support.program, dir))
    assert.are.equal("0\n", text)
  end)

  it("is not used when it is somebody else's, or others can change it", function()
    support.sh(("mkdir -m 777 %s/data"):format(dir))
    assert.matches("data can be changed by others: .* chmod go%-rwx", refused())
    support.sh(("chmod 755 %s/data"):format(dir))
    if support.sh("id -u") == "0\n" then
      support.sh(("chown 12345 %s/data"):format(dir))
      assert.matches("data belongs to user 12345 and not to 0", refused())
    end
  end)

  it("is not used when somebody else could replace it", function()
    support.sh(("mkdir -m 777 %s/open"):format(dir))
    dir = dir .. "/open"
    assert.matches("whoever can change .*/open could replace the data directory", refused())
    support.sh(("chmod 1777 %s"):format(dir))
    started_once()
    if support.sh("id -u") == "0\n" then
      support.sh(("chmod 755 %s; chown 12345 %s"):format(dir, dir))
      assert.matches("whoever can change .*/open could replace", refused())
    end
    dir = dir:gsub("/open$", "")
  end)

  it("is not used when what it holds is not what it should be", function()
    started_once()
    support.sh(("mv %s/data/boxes %s/elsewhere; ln -s %s/elsewhere %s/data/boxes"):format(dir, dir, dir, dir))
    assert.matches("data/boxes is a symlink, not a directory", refused())
    support.sh(("rm %s/data/boxes; mv %s/elsewhere %s/data/boxes; echo box_known > %s/data/key"):format(
      dir, dir, dir, dir))
    assert.matches("data/key holds no key: remove it", refused())
    support.sh(("chmod 644 %s/data/key"):format(dir))
    assert.matches("data/key can be read by others", refused())
    support.sh(("rm %s/data/key; ln -s /etc/hostname %s/data/key"):format(dir, dir))
    assert.matches("data/key is a symlink", refused())
  end)

  it("says why it cannot be locked", function()
    support.sh(("mkdir -p %s/data/lock; chmod 700 %s/data"):format(dir, dir))
    assert.matches("cannot lock .*/data/lock: Is a directory", refused())
  end)

  -- Only root can become somebody else, and mount a small disk.
  local by_root = it
  if support.sh("id -u") ~= "0\n" then
    by_root = pending
    print("  not run: two specs of data directories, for which one has to be root")
  end

  by_root("with too long a path for a socket needs another place for it", function()
    local long = dir .. "/" .. ("long"):rep(30)
    support.sh(("mkdir -p %s"):format(long))
    local server = support.start { dir = long }
    assert.matches("socket /run/user/0/lbox/%x+%.sock", server:said())
    assert.are.equal(0, #Box.list(server:client()))
    server:kill()
    support.sh(("rm -rf %s/data; chown 12345 %s"):format(long, long))
    local text = support.sh(("setpriv --reuid 12345 --regid 12345 --clear-groups %s serve --data %s/data"):format(
      support.program, long))
    assert.matches("is too long a path for a socket in it: use a shorter one", text)
  end)

  it("loses what was half made or half deleted when the server was killed, and nothing else", function()
    local server = support.start { dir = dir }
    local boxes = lbox.map({ "half-made", "half-deleted", "whole" }, function(name)
      return Box.create(server:client { name = name })
    end)
    server:kill("KILL")
    support.sh(("cd %s/data/boxes && mv %s .new-%s && mv %s .deleted-%s && mkdir -p stray/root "
      .. "&& ln -s / .deleted-link"):format(dir, boxes[1].id, boxes[1].id, boxes[2].id, boxes[2].id))
    server = support.start { dir = dir }
    local left = Box.list(server:client())
    assert.are.equal(1, #left)
    assert.are.equal("whole", left[1].name)
    lbox.timeout(5000, function()
      while support.sh(("ls -A %s/data/boxes"):format(dir)):find("%.new") do
        lbox.sleep(20)
      end
    end)
    local names = {}
    for name in support.sh(("ls -A %s/data/boxes"):format(dir)):gmatch("%S+") do
      names[name] = true
    end
    assert.are.same({ [boxes[3].id] = true, stray = true, [".deleted-link"] = true }, names)
    assert.matches("stray is of no box that is known, and is left alone", server:said())
    assert.matches("link is not the server's and is left alone", server:said())
    server:kill()
  end)

  it("has nothing left of a box that was deleted while it started", function()
    local server = support.start { dir = dir }
    for _ = 1, 5 do
      Box.create(server:client()):delete()
    end
    lbox.timeout(5000, function()
      while support.sh(("ls -A %s/data/boxes"):format(dir)) ~= "" do
        lbox.sleep(20)
      end
    end)
    assert.not_matches("cannot remove", server:said())
    server:kill()
  end)

  it("that was removed ends its server on demand, which leaves another's socket alone", function()
    local env = ("LBOX_DATA=%s/data %s --local -e "):format(dir, support.program)
    assert.are.equal("0\n", (support.sh(env .. "'print(#lbox.Box.list())'")))
    local first = support.sh(("pgrep -f '[s]erve --data %s/data --on-demand'"):format(dir)):match("%d+")
    support.sh(("rm -rf %s/data"):format(dir))
    assert.are.equal("0\n", (support.sh(env .. "'print(#lbox.Box.list())'")))
    support.sh(("for i in $(seq 300); do kill -0 %s 2>/dev/null || break; sleep 0.02; done"):format(first))
    assert.are_not.equal(0, select(2, support.sh("kill -0 " .. first)))
    assert.are.equal("0\n", (support.sh(env .. "'print(#lbox.Box.list())'")))
    local second = support.sh(("pgrep -f '[s]erve --data %s/data --on-demand'"):format(dir))
    assert.matches("^%d+\n$", second)
    support.sh("kill " .. second)
  end)

  by_root("on a full disk refuses with 507, and still deletes boxes", function()
    local mount = ("unshare -m --propagation private sh -c 'mount -t tmpfs -o size=12m none %s "
      .. "&& exec \"$@\"' -"):format(dir)
    local server = support.start { dir = dir, prefix = mount, args = "--disk-floor 0" }
    local box = Box.create(server:client())
    local function fails(fn, ...)
      local ok, err = pcall(fn, ...)
      assert.is_false(ok)
      assert.are.equal(507, err.status_code)
      assert.matches("full", err.message)
    end
    fails(box.exec.command, box.exec, "head -c 30000000 /dev/zero > /home/boxuser/big")
    fails(Box.create, server:client())
    box:delete()
    local other = Box.create(server:client())
    assert.are.equal("fine\n", other.exec:command("echo fine").result)
    server:kill()
  end)
end)
