-- What a box sees of the CLI of its agent is that and nothing else of the host, and the box cannot change it or put
-- something in its place.
local lbox = require "lbox"
local support = require "spec.support.local"
local Box = lbox.Box

local TREE = "/run/lbox/agents"
local PACKAGE = TREE .. "/codex/node_modules/@openai/codex"

local SERVERS = { ["the server"] = support.start, ["a server of an ordinary user's"] = support.start_as_user }

for whose, start in pairs(SERVERS) do
  describe("the CLI of an agent in a box of " .. whose, function()
    local server, box, dir

    local function write(path, text)
      support.sh("mkdir -p " .. path:match("^(.*)/"))
      local file = assert(io.open(path, "w"))
      file:write(text)
      file:close()
    end

    setup(function()
      dir = support.directory()
      local modules = dir .. "/agents/node_modules/"
      write(modules .. "@openai/codex/bin/codex.js", "#!/bin/sh\necho the real one\n")
      write(modules .. "@openai/codex/package.json", [[{ "name": "@openai/codex", "dependencies":
        { "needed": "1", "../../secret": "1", "..": "1", "@x/../../../secret": "1", ".hidden": "1" } }]])
      write(dir .. "/agents/bin/claude", "#!/bin/sh\necho claude\n")
      write(dir .. "/agents/bin/secret", "HOST SECRET\n")
      write(dir .. "/agents/cursor/1/cursor-agent", '#!/bin/sh\n. "$(dirname "$(readlink -f "$0")")/lib"\n')
      write(dir .. "/agents/cursor/1/lib", "echo cursor\n")
      write(dir .. "/agents/cursor/secret", "HOST SECRET\n")
      support.sh(("cd %s/agents && ln -s ../cursor/1/cursor-agent bin/ && chmod 755 bin/claude cursor/1/cursor-agent")
        :format(dir))
      write(modules .. "needed/package.json", '{"name":"needed"}')
      for _, path in ipairs { "secret/key", "agents/node_modules/other/key", "agents/.npmrc",
        "agents/node_modules/.bin/key", "agents/node_modules/.hidden/key" } do
        write(("%s/%s"):format(dir, path), "HOST SECRET\n")
        write(("%s/%s/package.json"):format(dir, path:match("^(.*)/")), '{"name":"secret"}')
      end
      support.sh(([[cd %s && ln -s %s/secret/key @openai/codex/absolute && ln -s ../../../../secret/key @openai/codex/up
        ln -s %s/secret @openai/codex/bin/directory; ln -s ../@openai/codex/bin/codex.js .bin/codex
        chmod 755 @openai/codex/bin/codex.js; chmod -R a+rX %s]]):format(modules, dir, dir, dir))
      server = start { args = "--agents " .. dir .. "/agents" }
      box = Box.create(server:client { agent = { harness = "codex", model = "openai/x", api_key = "sk-0123456789" } })
    end)

    teardown(function()
      server:stop()
      os.execute("rm -rf " .. dir)
    end)

    local function out(command)
      return box.exec:command(command).result
    end

    it("is whole, and nothing is beside it", function()
      assert.are.equal("the real one\n", out("codex"))
      assert.are.equal(([[
/run/lbox/agents/bin/codex
P/absolute
P/bin/codex.js
P/bin/directory
P/package.json
P/up
/run/lbox/agents/codex/node_modules/needed/package.json
]]):gsub("P/", PACKAGE .. "/"), out("find /run/lbox/agents ! -type d | LC_ALL=C sort"))
    end)

    it("is one file when it lies among others, and its directory when it has one", function()
      for harness, want in pairs {
        ["claude-code"] = { "claude\n", "bin/claude\nclaude/claude\n" },
        cursor = { "cursor\n", "bin/cursor-agent\ncursor-agent/cursor-agent\ncursor-agent/lib\n" },
      } do
        local other = Box.create(server:client { agent = { harness = harness, model = "x", api_key = "sk-012345" } })
        assert.are.equal(want[1], other.exec:command("$(ls -d /run/lbox/agents/bin/*)").result)
        assert.are.equal(want[2],
          other.exec:command("cd /run/lbox/agents && find * ! -type d | LC_ALL=C sort").result)
      end
    end)

    it("leads nowhere else on the host, by links or by ..", function()
      assert.are.equal("", out("grep -rs SECRET /run/lbox/agents"))
      for _, path in ipairs { "absolute", "up", "bin/directory/key", "../../../../../../../secret/key",
        "../../other/key", "../../.bin/key", "../../../.npmrc", "../../.hidden/key" } do
        assert.are.equal("gone\n", out(("cat %s/%s 2>/dev/null || echo gone"):format(PACKAGE, path)))
      end
    end)

    it("cannot be written, replaced or hidden", function()
      local function all()
        return (support.sh(("cd %s/agents && find . -ls && cat node_modules/@openai/codex/bin/codex.js"):format(dir)))
      end
      local before = all()
      for _, command in ipairs {
        "echo x >P/bin/codex.js", "echo x >>P/package.json", "touch P/new", "touch T/new", "touch T/bin/new",
        "mkdir T/codex/node_modules/added", "rm -f P/bin/codex.js", "rm -f T/bin/codex",
        "ln -sf /bin/true T/bin/codex",
        "mv T/bin/codex T/bin/other", "mv P T/codex/node_modules/x", "mv T /run/lbox/x", "mv T /tmp/x", "rmdir T/bin",
        "mv /run/lbox /run/x", "mv /run/lbox /tmp/x",
        "chmod 777 P/bin/codex.js", "chmod 777 T/bin", "chmod 777 /run/lbox",
        "ln P/bin/codex.js /home/boxuser/x", "truncate -s 0 P/bin/codex.js",
        "mount -o remount,rw P", "mount -o remount,rw /run/lbox", "umount P", "umount /run/lbox",
        "mount -t tmpfs none T/bin", "mount --bind /tmp T/bin", "unshare -Ur mount --bind /tmp T/bin",
        "echo x >/proc/self/rootP/bin/codex.js", "echo x >/proc/1/rootP/bin/codex.js",
      } do
        local tried = command:gsub("%f[%a]P%f[^%a]", PACKAGE):gsub("rootP/", "root" .. PACKAGE .. "/")
          :gsub("%f[%a]T%f[^%a]", TREE)
        assert.are_not.equal(0, box.exec:command(tried).exit_code, tried)
      end
      assert.are.equal("the real one\n", out("codex"))
      assert.are.equal(before, all())
    end)
  end)
end
