-- Every example runs on a local box server.
local lbox = require "lbox"
local support = require "spec.support.local"

-- By name, what each prints: patterns. On the recording server it is what that makes up.
local EXAMPLES = {
  session = { "^started as %d+\n", "\n[> ]*42\r\n", "40 120\r\n", "exit code 3\n", "stdout\tapple pear \n$" },
  snapshots = { "^ready is ready\nexit codes: 0 0 0\n$" },
  ephemeral = { "^lives until %d%d:%d%d:%d%d\n0\nlbox: usage: an ephemeral box has no git\n$" },
  hello = { "hello from the box\nLinux", "1\n2\n3\n" },
  quickstart = { "src/main.lua%s+line 3%s+FIXME%s+exits with 0 on errors", "done in %d" },
  structured = { "src/main.lua:2: FIXME: exits with 0\n", "false\tschema\t%$.files\tno such field\n" },
  streaming = { "uses write\n", "completed\t%d+ bytes\n", "%d+ and %d+ chunks\n" },
  commands = { "^3\thello\toops\n", "answer.lua\n", "step 3\nexit code 4\n", "1,4,9\n" },
  files = { "out is a directory\n", "fetched counts\nfetched parts/aa\n" },
  git_pr = { "^ M README.md\n", "committed %x%x%x%x%x%x%x\n", "%x+ Say hello\n%x+ Begin\n" },
  public_url = { "^open for who has the token: (http://127.0.0.1:%d+)\n8000\t%1\n$" },
  schedules = {
    "^made %S+ and %S+\n", "\texec\t0 5 %* %* %*\tactive\t0 runs\n", "\tprompt\t0 9 %* %* 1\tpaused\t0 runs\n",
  },
  custom_harness = { "^shell\tuname %-s\ncompleted\tLinux\t6 tokens\n$" },
  fanout = {
    "budget    %d+ runs have spent %$0%.20, %$0%.04 are left",
    "\npart12\t3 lines; line 2 sets a global\npart13\tfailed: part13.lua:2: unexpected symbol",
    "\nspent: %$0%.20 of %$0%.24, %d+ of 120000 ms\n$",
  },
}

describe("the example", function()
  local function run(name, env, patterns)
    local text, status = support.sh(("%s timeout 60 %s examples/%s.lua"):format(env, support.program, name))
    assert.are.equal(0, status, text)
    for _, pattern in ipairs(patterns) do
      assert.matches(pattern, text)
    end
  end

  describe("on a local box,", function()
    local server

    setup(function()
      server = support.start()
    end)

    teardown(function()
      server:stop()
    end)

    for name, patterns in pairs(EXAMPLES) do
      it(name .. " does what it says, and leaves no box", function()
        run(name, ("env -u LUA_INIT UPSTASH_BOX_BASE_URL=%s UPSTASH_BOX_API_KEY=%s"):format(
          server.url, server.key), patterns)
        assert.are.equal(0, #lbox.Box.list(server:client()))
      end)
    end
  end)

  it("is listed, tested and named in the index", function()
    local index = io.open("examples/README.md"):read("a")
    for file in support.sh("cd examples && ls *.lua"):gmatch("%S+") do
      local name = file:match("^(.*)%.lua$")
      assert.is_truthy(EXAMPLES[name], file .. " is not tested")
      assert.is_truthy(index:find(("[%s](%s)"):format(file, file), 1, true), file .. " is not in the index")
    end
  end)

  it("of the README is examples/hello.lua", function()
    local readme = io.open("README.md"):read("a"):match("```lua\n(.-)```")
    assert.are.equal(io.open("examples/hello.lua"):read("a"), readme)
  end)
end)
