-- Attacks from inside of a box: leading the server to files that are not the box's.
local attacks = require "spec.support.attacks"
local support = require "spec.support.local"

local FORM = [[
--b
Content-Disposition: form-data; name="paths"

%s
--b
Content-Disposition: form-data; name="files"; filename="x"

taken over
--b--
]]

describe("an attack by files:", function()
  local attack

  setup(function()
    attack = attacks.start()
  end)

  teardown(function()
    attack:stop()
  end)

  after_each(function()
    attack:check()
  end)

  --- Requests to every file endpoint with a path, wherever such an endpoint may look for it.
  local function requests(path)
    local function encoded(text)
      return (text:gsub("[^%w]", function(c) return ("%%%02X"):format(c:byte()) end))
    end
    local function json(text)
      return (text:gsub("[%c\"\\]", function(c) return ("\\u%04x"):format(c:byte()) end))
    end
    local list = {}
    attacks.each_route({ id = attack.box.id, any = "x" }, function(method, url, parts)
      if parts[4] == "files" then
        local query = ("?path=%s&folder=%s"):format(encoded(path), encoded(path))
        local fields = ('{"path":"%s","from":"%s","to":"/tmp/moved","folder":"%s","content":"taken over",'
          .. '"recursive":true,"parents":true}'):format(json(path), json(path), json(path))
        local bodies = { fields, (fields:gsub('"from":"[^"]*"', '"from":"/tmp/from"')
          :gsub("/tmp/moved", function() return json(path) end)) }
        for i = 1, method == "GET" and 1 or 2 do
          list[#list + 1] = { method = method, path = url .. query, body = method ~= "GET" and bodies[i] or nil }
        end
        list[#list + 1] = method == "POST" and { method = method, path = url .. query,
          type = "multipart/form-data; boundary=b", body = FORM:format(path):gsub("\n", "\r\n") } or nil
      end
    end)
    assert.is_true(#list >= 18)
    return list
  end

  --- Nobody gets at what is outside by these paths, at no file endpoint.
  local function no_way_out(paths)
    for _, path in ipairs(paths) do
      for i, answer in ipairs(attack:ask(requests(path))) do
        local told = ("%s, request %d: %d %s"):format(path, i, answer.status, answer.body:sub(1, 200))
        assert.is_true(answer.status >= 200 and answer.status < 500, told)
        assert.is_true(answer.ms < 5000, told)
        assert.is_false(attack:is_told(answer.body), told)
        assert.is_nil(answer.body:find("lbox.db-wal", 1, true), told)
      end
    end
    assert.are.equal("secret\n", (support.sh(("cd %s && ls | grep -v -e data -e requests"):format(attack.server.dir))))
  end

  it("symlinks to files and directories of the host, with every file endpoint", function()
    local dir = attack.server.dir
    attack:run(("cd /tmp; ln -s %s secret; ln -s %s dir; ln -s %s/data data; ln -s / root; ln -s dir chain; "
      .. "ln -s loop loop; ln -s %s/new new"):format(attack.secret, dir, dir, dir))
    no_way_out { "/tmp/secret", "/tmp/dir/secret", "/tmp/data/key", "/tmp/data", "/tmp/chain/secret", "/tmp/loop",
      "/tmp/root" .. attack.secret, "/tmp/new", "/tmp/dir/new" }
  end)

  it("a symlink that becomes one while the file is opened, with every file endpoint", function()
    attack:run(("mkdir -p /tmp/race/real; cd /tmp/race; echo box > real/secret; echo box > real/key; nohup sh -c '"
      .. "while :; do ln -sfn real at; ln -sfn %s at; ln -sfn %s/data at; done' >/dev/null 2>&1 &"):format(
      attack.server.dir, attack.server.dir))
    local paths = {}
    for i = 1, 4 do
      paths[i] = "/tmp/race/at/" .. (i % 2 == 0 and "secret" or "key")
    end
    no_way_out(paths)
    attack:run("pkill -f 'ln -sf[n]'; true")
  end)

  it("hard links to what the box sees of the host", function()
    local _, text = attack:run("cd /tmp; for f in /usr/bin/env /etc/passwd /run/lbox/bin/lbox /proc/1/status; do "
      .. "ln $f hard && echo linked $f; done; true")
    assert.not_matches("linked", text)
    attack:run("cd /tmp; echo x > a; ln a b")
    attack.box.files:write { path = "/tmp/a", content = "y" }
    assert.are.equal("y", attack.box.files:read("/tmp/a"))
  end)

  it("paths with .. and NUL, with every file endpoint", function()
    local dir = attack.server.dir
    no_way_out { "../../../../../../../.." .. attack.secret, "/../../../.." .. dir .. "/data/key",
      "/workspace/home/../../../../.." .. attack.secret, "../root/../../lock", "..", "/tmp/../../lock",
      "/tmp/x\0/../secret",
      attack.secret .. "\0", "\0" .. attack.secret, ("../"):rep(1000) .. attack.secret, "/tmp/" .. ("d/"):rep(200),
      attack.secret, dir .. "/data/lbox.db" }
  end)

  it("/proc tricks, with every file endpoint", function()
    no_way_out { "/proc/1/root" .. attack.secret, "/proc/self/root" .. attack.secret, "/proc/1/cwd" .. attack.secret,
      "/proc/1/fd/3", "/proc/self/fd/3", "/proc/1/environ", "/proc/1/mem", "/proc/kcore", "/proc/kmsg",
      "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/dev/fd/3", "/dev/stdin", "/dev/zero", "/dev/full" }
  end)

  it("a FIFO, a socket or a device where a file is expected", function()
    attack:run("cd /tmp; mkfifo fifo; python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('socket')\"; "
      .. "ln -s /dev/zero zero; ln -s /dev/tty tty")
    no_way_out { "/tmp/zero", "/tmp/tty", "/tmp/socket", "/tmp/fifo", "/tmp/fifo" }
  end)

  it("links where the box's own mount points were, for its next start", function()
    local outside = attack.server.dir .. "/data/outside"
    support.sh("mkdir -m 777 " .. outside)
    local root = ("%s/data/boxes/%s/root"):format(attack.server.dir, attack.box.id)
    -- By somebody outside, as bubblewrap holds what is mounted on.
    attack.box:pause()
    support.sh(("cd %s && for n in run dev proc etc; do rmdir $n; ln -s /oldroot%s $n; done; rm bin; mkdir bin"):format(
      root, outside))
    assert.are.equal("boxuser\n", select(2, attack:run("whoami")))
    assert.are.equal("", (support.sh("ls -A " .. outside)))
  end)
end)
