-- Whether sandboxes can be started here, and what the program says where they cannot.
local bubblewrap = require "lbox.server.bubblewrap"
local posix = require "lbox.server.posix"
local sandbox = require "lbox.server.sandbox"
local support = require "spec.support.local"

describe("the probe", function()
  local dir

  setup(function()
    dir = support.directory()
  end)

  teardown(function()
    support.sh("rm -rf " .. dir)
  end)

  --- Runs doctor with a PATH whose only bwrap is this script (nil: none).
  local function doctor(script, prefix)
    support.sh("rm -rf " .. dir .. "/path && mkdir " .. dir .. "/path")
    if script then
      local file = assert(io.open(dir .. "/path/bwrap", "w"))
      file:write("#!/bin/sh\n", script)
      file:close()
      support.sh("chmod 755 " .. dir .. "/path/bwrap")
    end
    local program = posix.exe_path()
    return support.sh(("%s env PATH=%s/path LBOX_DATA=%s %s doctor"):format(prefix or "", dir, dir, program))
  end

  it("finds that sandboxes work here", function()
    local found = sandbox.probe()
    assert.are.same({}, found.problems)
    assert.is_true(found.ok)
    assert.matches("^%d+%.%d+", found.bwrap)
  end)

  it("names a missing bubblewrap and the package", function()
    local text, status = doctor(nil)
    assert.are.equal(1, status)
    assert.matches("bwrap is not on PATH", text)
    assert.matches("fix: apt%-get install bubblewrap", text)
  end)

  it("names a bubblewrap that is too old", function()
    local text, status = doctor("echo bubblewrap 0.3.3\n")
    assert.are.equal(1, status)
    assert.matches("0%.3%.3 is too old", text)
  end)

  it("names forbidden namespaces when bubblewrap complains of them", function()
    local text, status = doctor([[
[ "$1" = --version ] && echo bubblewrap 0.8.0 && exit
echo 'bwrap: No permissions to create new namespace, likely because the kernel does not allow non-privileged '\
'user namespaces. See <https://deb.li/bubblewrap> or <file:///usr/share/doc/bubblewrap/README.Debian.gz>.' >&2
exit 1
]])
    assert.are.equal(1, status)
    assert.matches("forbids user namespaces", text)
    assert.matches("fix: %S+", text)
  end)

  it("names the kernel setting that forbids them", function()
    local function with(settings)
      return function(name) return settings[name] end
    end
    local complaint = "bwrap: setting up uid map: Permission denied\n"
    local cause, fix = bubblewrap.explain(complaint, with { ["kernel/unprivileged_userns_clone"] = "0" })
    assert.matches("unprivileged_userns_clone is 0", cause)
    assert.matches("sysctl %-w kernel.unprivileged_userns_clone=1", fix)
    cause, fix = bubblewrap.explain(complaint, with {
      ["kernel/apparmor_restrict_unprivileged_userns"] = "1", ["user/max_user_namespaces"] = "1000",
    })
    assert.matches("AppArmor", cause)
    assert.matches("profile", fix)
    cause, fix = bubblewrap.explain("bwrap: Creating new namespace failed: No space left on device\n",
      with { ["user/max_user_namespaces"] = "0" })
    assert.matches("max_user_namespaces is 0", cause)
    assert.matches("sysctl %-w user.max_user_namespaces=%d+", fix)
    cause = bubblewrap.explain("bwrap: Can't find source path /root/x: Permission denied\n")
    assert.matches("cannot reach /root/x", cause)
    cause = bubblewrap.explain("something new\n")
    assert.are.equal("something new", cause)
  end)

  it("names max_user_namespaces = 0 where the kernel really says so", function()
    -- In a user namespace of its own the setting is ours to change.
    local text, status = support.sh(([[unshare --user --map-user=1000 --keep-caps sh -c '
      echo 0 > /proc/sys/user/max_user_namespaces || exit 77
      exec setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all env LBOX_DATA=%s %s doctor']])
      :format(dir, posix.exe_path()))
    assert.are.equal(1, status, text)
    assert.matches("max_user_namespaces is 0", text)
    assert.matches("fix: sudo sysctl %-w user.max_user_namespaces=15000", text)
  end)
end)
