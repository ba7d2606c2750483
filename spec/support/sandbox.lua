-- Sandboxes below the server, for specs: a data directory, boxes in it, and what is often asked of them.
local assert = require "luassert"
local async = require "lbox.async"
local data = require "lbox.server.data"
local posix = require "lbox.server.posix"
local sandbox = require "lbox.server.sandbox"
local support = require "spec.support.local"

local M = {}

M.ENV = { "PATH=" .. sandbox.PATH, "HOME=/home/boxuser" }
--- The user of the boxes; nil: ours.
M.uid = posix.getuid() == 0 and 524288 + 4000 or nil
--- What a command on the host starts with to run as that user.
M.AS_BOX = M.uid and ("setpriv --reuid %d --regid %d --clear-groups "):format(M.uid, M.uid) or ""

function M.open_fds()
  return #posix.listdir("/proc/self/fd")
end

M.raised = require "spec.support.raised"

--- Ends a sandbox and waits for it.
function M.end_of(box)
  local op = async.op()
  if box.ended then
    return
  end
  table.insert(box.on_exit, function() op:resolve() end)
  box:close()
  async.timeout(5000, async.wait, op)
end

--- The host's pid of a box's lbox-init.
function M.init_pid(box)
  local file = assert(io.open(box.root .. "/../lock"))
  local text = file:read("a")
  file:close()
  return text:match('"child%-pid": (%d+)')
end

--- A place for boxes. Its functions are called without it; `make` or `start` has to be the first.
function M.place()
  local place = { boxes = 0 }

  --- Makes the directory.
  function place.make()
    place.dir = support.directory()
    place.data = data.open(place.dir)
    return place.dir
  end

  --- What sandbox.start takes, of a new box.
  function place.new_box()
    place.boxes = place.boxes + 1
    local id = "spec-box-" .. place.boxes
    local home = ("%s/boxes/%s"):format(place.dir, id)
    assert(posix.mkdir(home, 0x1c9))
    sandbox.create_root(home .. "/root", M.uid)
    return { id = id, root = home .. "/root", uid = M.uid, etc = place.data.etc, bin = place.data.bin }
  end

  --- Makes the directory and starts the sandbox of a first box, which `spawn`, `sh` and `running` mean.
  function place.start()
    place.make()
    place.first = sandbox.start(place.new_box())
    return place.first
  end

  --- Ends the first sandbox and removes the directory.
  function place.remove()
    if place.first then
      M.end_of(place.first)
    end
    support.sh("chmod -R u+rwx " .. place.dir .. "; rm -rf " .. place.dir)
  end

  --- Starts a command.
  function place.spawn(...)
    return place.first:spawn { argv = { ... }, cwd = "/workspace/home", env = M.ENV }
  end

  --- Runs a shell script; returns what it printed (both streams) and its result.
  function place.sh(script, box)
    local proc = (box or place.first):spawn {
      argv = { "sh", "-c", script }, cwd = "/workspace/home", env = M.ENV, merge = true,
    }
    local text = {}
    for _, bytes in proc.read, proc do
      text[#text + 1] = bytes
    end
    return table.concat(text), proc.result
  end

  --- Number of processes whose command line matches.
  function place.running(pattern)
    return tonumber((place.sh(("ps ax -o args | grep -c '^%s' || true"):format(pattern))))
  end

  return place
end

return M
