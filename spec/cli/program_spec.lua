-- The lbox program as a shell sees it.
local support = require "spec.support.local"

describe("the lbox program", function()
  local program = support.program

  local function script(text)
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    return path
  end

  it("runs scripts with their arguments", function()
    local path = script("print(select('#', ...), arg[0], arg[1], ...)")
    assert.are.equal(("2\t%s\ta\ta\tb\n"):format(path), (support.sh(program .. " " .. path .. " a b")))
    os.remove(path)
  end)

  it("runs -e and -l in their order, and standard input", function()
    assert.are.equal("1\n2\n", (support.sh(program .. " -e 'print(1)' -e 'print(2)'")))
    assert.are.equal("true\n", (support.sh(program .. " -l json=lbox.json -e 'print(json ~= nil)'")))
    assert.are.equal("5\n", (support.sh("echo 'print(2 + 3)' | " .. program .. " -")))
    assert.matches("^lbox %d+%.%d+%.%d+  Lua 5%.4", (support.sh(program .. " -v")))
  end)

  it("sets lbox and nothing else", function()
    local names = "for k in pairs(_G) do io.write(k, ' ') end"
    local ours = support.sh(program .. " -E -e \"" .. names .. "\"")
    for name in ours:gmatch("%S+") do
      local known = support.sh(("lua5.4 -E -e 'print(_G[\"%s\"] ~= nil)'"):format(name))
      assert.is_true(known == "true\n" or name == "lbox" or name == "arg", name)
    end
  end)

  it("names the user's line in the traceback of an error, and exits with 1", function()
    local path = script("local function f()\n  error('trouble')\nend\nf()\n")
    local text, status = support.sh(program .. " " .. path)
    assert.are.equal(1, status)
    assert.matches("^lbox: " .. path:gsub("%p", "%%%0") .. ":2: trouble", text)
    assert.matches(path:gsub("%p", "%%%0") .. ":4: in main chunk", text)
    os.remove(path)
  end)

  it("names the error of a task that failed the script, with its traceback", function()
    local path = script("lbox.spawn(function()\n  error('the real one')\nend)\nlbox.sleep(1000)\n")
    local text, status = support.sh(program .. " " .. path)
    assert.are.equal(1, status)
    assert.matches("^lbox: " .. path:gsub("%p", "%%%0") .. ":2: the real one\nstack traceback:", text)
    assert.not_matches("cancelled", text)
    support.sh("echo 'error({ code = 5 })' > " .. path)
    assert.matches("^lbox: %(error object is a table value%)", (support.sh(program .. " " .. path)))
    os.remove(path)
  end)

  it("may open as many files as the hard limit allows, and says when that is not enough", function()
    local path = script([[
      lbox.sleep(0)
      local files = {}
      for _ = 1, 200 do
        files[#files + 1] = io.open("/dev/null")
      end
      print(#files > 60)
      print(select(2, pcall(lbox.Box.list, { base_url = "http://127.0.0.1:1", api_key = "k" })))
    ]])
    local text = support.sh(("sh -c 'ulimit -n 100; ulimit -S -n 60; exec %s %s'"):format(program, path))
    assert.matches("^true\n", text)
    assert.matches("this process has too many files open %(ulimit %-n says how many it may%)", text)
    os.remove(path)
  end)

  it("refuses two things that contradict each other, and help on what there is not", function()
    for _, line in ipairs { "--local --base-url http://x -e 1", "--base-url=http://x --local -e 1" } do
      assert.matches("%-%-local and %-%-base%-url say two things", (support.sh(program .. " " .. line)))
    end
    local text, status = support.sh(program .. " help nope")
    assert.are.equal(1, status)
    assert.matches("no command 'nope'", text)
  end)

  it("takes no option of a server that it would not heed", function()
    for args, what in pairs { ["--agents /nope"] = "%-%-agents /nope: no directory", ["--skills ''"] = "%-%-skills ",
      ["--detach --max-boxes 3"] = "%-%-max%-boxes does not go with %-%-detach",
      ["--detach --host-port 8080"] = "%-%-host%-port does not go with %-%-detach" } do
      local text, status = support.sh(("%s serve --data /nonexistent %s"):format(program, args))
      assert.are_not.equal(0, status)
      assert.matches(what, text)
    end
  end)

  it("serves on addresses only, and takes an empty data directory for none", function()
    local dir = support.directory()
    for _, where in ipairs { "127.0.0.1:99999", "example.invalid:80", "80" } do
      local text, status = support.sh(("timeout 5 %s serve --data %s/d --listen %s"):format(program, dir, where))
      assert.are.equal(125, status)
      assert.matches("write localhost or an IP address, a colon and a port", text)
    end
    local text = support.sh(("cd %s && LBOX_DATA=%s/other timeout 1 %s serve --data '' 2>&1; ls -A"):format(dir, dir,
      support.sh("readlink -f " .. program):gsub("%s+$", "")))
    assert.matches("data " .. dir:gsub("%p", "%%%0") .. "/other\n", text)
    assert.matches("\nd\nother\n$", text)
    support.sh("rm -rf " .. dir)
  end)

  -- Shells start what runs in the background with SIGINT ignored.
  local function signalled(text, ...)
    local path = script(text)
    local kills = {}
    for i, signal in ipairs { ... } do
      kills[i] = ("sleep 0.3; kill -%s $P;"):format(signal)
    end
    local said, status = support.sh(("timeout -s KILL 20 env --default-signal=INT %s %s & "
      .. "sleep 0.3; P=$(pgrep -f '%s$' | tail -1); %s wait $!; echo status $?"):format(program, path,
      path:gsub("^.", "[%0]"), table.concat(kills)))
    os.remove(path)
    return (said:gsub("Terminated\n", ""):gsub("Hangup\n", "")), status -- that is the shell's
  end

  it("cancels the script when it is interrupted, which cleans up, and ends by the signal", function()
    local clean_up = [[
      local ok, err = pcall(lbox.sleep, 60000)
      lbox.shield(function() lbox.sleep(50) print("cleaned up", err) end)
      error(err, 0)]]
    local expected = "cleaned up\tlbox: cancelled: interrupted\nlbox: interrupted\nstatus "
    assert.are.equal(expected .. "130\n", (signalled(clean_up, "INT")))
    assert.are.equal(expected .. "143\n", (signalled(clean_up, "TERM")))
    assert.are.equal(expected .. "129\n", (signalled(clean_up, "HUP")))
  end)

  it("says on SIGQUIT what its tasks wait for, and goes on", function()
    local said = signalled("lbox.spawn(function()\nlbox.sleep(900)\nend)\nlbox.sleep(900)\nprint('went on')", "QUIT")
    assert.matches("^2 live tasks\n  main  waiting for 0%.%d s at [^\n]+:4\n"
      .. "    task at [^\n]+:1  waiting for 0%.%d s at [^\n]+:2\n", said)
    assert.matches("went on\nstatus 0\n$", said)
  end)

  it("ends at once when it is interrupted a second time", function()
    assert.are.equal("status 130\n", (signalled("while true do end", "INT", "INT")))
  end)

  it("has its main chunk in a task", function()
    local text = support.sh(program .. " -e 'print(require(\"lbox.async\").current() ~= nil)'")
    assert.are.equal("true\n", text)
  end)

  it("names the nearest option for one that does not exist", function()
    local text, status = support.sh(program .. " --locl x.lua")
    assert.are.equal(1, status)
    assert.matches("did you mean '%-%-local'", text)
  end)

  it("asks for a key in words", function()
    local text = support.sh("env -u UPSTASH_BOX_API_KEY " .. program .. " -e 'lbox.Box.list()'")
    assert.matches("api_key is required: pass api_key, set UPSTASH_BOX_API_KEY, or use local boxes", text)
  end)

  it("starts a local server on demand", function()
    local dir = support.directory()
    local env = "LBOX_DATA=" .. dir .. " "
    local text, status = support.sh(env .. "timeout 60 " .. program .. " --local examples/hello.lua")
    assert.are.equal(0, status, text)
    assert.matches("hello from the box", text)
    assert.are.equal("0\n", (support.sh(env .. program .. " --local -e 'print(#lbox.Box.list())'")))
    support.sh("pkill -f 'serve --data " .. dir .. "'; sleep 0.3; rm -rf " .. dir)
  end)

  describe("with --local", function()
    local dir, env

    before_each(function()
      dir = support.directory()
      env = "LBOX_DATA=" .. dir .. " "
    end)

    after_each(function()
      support.sh("pkill -f 'serve --data " .. dir .. "'; sleep 0.3; rm -rf " .. dir)
    end)

    it("starts one server for many scripts that want one at the same time", function()
      local text, status = support.sh(env .. "; export LBOX_DATA; for i in 1 2 3 4 5 6; do " .. program
        .. " --local -e 'print(#lbox.Box.list())' & done; wait")
      assert.are.equal(0, status)
      assert.are.equal(("0\n"):rep(6), text)
      assert.are.equal("1\n", (support.sh("pgrep -f 'serve --data " .. dir .. " --on-demand --ready-fd 3$' | wc -l")))
    end)

    it("replaces an idle server of another version, and says so when it is at work", function()
      local function pid()
        return (support.sh("pgrep -f 'serve --data " .. dir .. " --on-demand --ready-fd 3$'"):match("%d+"))
      end
      local function list(version)
        return support.sh(("%s %s --local -e 'require(\"lbox.core\").version = \"%s\"; "):format(env, program,
          version) .. "print(#lbox.Box.list())'")
      end
      assert.are.equal("0\n", (list("0.1.0")))
      local first = pid()
      assert.matches("the local server is lbox 0.1.0, this is 9.9.9: end it %(kill %d+%)", (list("9.9.9")))
      local second = pid()
      assert.is_true(second ~= nil and second ~= first)
      support.sh(env .. program .. " --local -e 'local b = lbox.Box.create() b.exec:command(\"sleep 60 &\")'")
      assert.matches("lbox 0.1.0 and at work, this is 9.9.9", (list("9.9.9")))
      assert.are.equal(second, pid())
    end)

    it("ends no server that is to stay, which itself takes the place of one on demand", function()
      support.sh(env .. program .. " --local -e 'lbox.Box.list()'")
      local text, status = support.sh(("%s timeout 5 %s serve"):format(env, program))
      assert.are.equal(124, status) -- of timeout: until then it ran
      assert.matches("\nready\n", text)
      support.sh(("%s %s serve --max-boxes 7 >%s/log 2>&1 & echo $! >%s/pid; while ! grep -q ready %s/log; do "
        .. "sleep 0.1; done"):format(env, program, dir, dir, dir))
      assert.matches("this is 9.9.9: end it %(kill %d+%)", (support.sh(("%s %s --local -e "):format(env, program)
        .. "'require(\"lbox.core\").version = \"9.9.9\"; print(#lbox.Box.list())'")))
      assert.are.equal("there\n", (support.sh(("p=$(cat %s/pid); test -e /proc/$p/exe && echo there; kill $p"):format(
        dir))))
    end)
  end)

  it("lets doctor say what works", function()
    local text, status = support.sh(program .. " doctor")
    assert.are.equal(0, status, text)
    assert.matches("ok%s+sandbox", text)
    assert.matches("limit of processes%s+4096 in a box", text)
    assert.matches("limits of memory, disk%s+4 GB and 5 GB in a small box", text)
  end)

  it("lets doctor say that nothing can be made in the data directory", function()
    local dir = support.directory()
    local text, status = support.sh(("unshare -rm sh -c 'mkdir %s/d; mount -t tmpfs -o ro,mode=700 none %s/d && "
      .. "%s doctor --data %s/d'"):format(dir, dir, program, dir))
    assert.are.equal(1, status)
    assert.matches("NO   data +nothing can be made in .*/d: Read%-only file system: use another directory", text)
    support.sh("rm -rf " .. dir)
  end)

  it("lets doctor say whether node runs TypeScript, and where npx is", function()
    local dir = support.directory()
    local found = support.sh("ls /usr/local/bin/node /usr/bin/node 2>/dev/null"):match("^[^\n]+")
    -- In a mount namespace of its own this node is the machine's.
    local function doctor(node)
      support.sh(("printf '#!/bin/sh\\n%s\\n' >%s/node; chmod 755 %s/node"):format(node, dir, dir))
      return (support.sh(("unshare --user --map-root-user --mount sh -c 'mount --bind %s/node %s "
        .. "&& exec env LBOX_DATA=%s/data %s doctor'"):format(dir, found, dir, program)))
    end
    assert.matches("ok   node +" .. found .. "\n", doctor("echo true"))
    assert.matches("note node +" .. found .. ": exec:code in ts takes node 22.6 or newer\n", doctor("echo false"))
    local text = doctor("exit 1")
    assert.matches("note node +" .. found .. ": it does not run\n", text)
    assert.matches("ok   npx +/usr/", text)
    support.sh("rm -rf " .. dir)
  end)

  it("lets doctor find the server that runs, and agents", function()
    local server = support.start()
    support.sh(("mkdir -p %s/agents/bin && cp /bin/true %s/agents/bin/codex"):format(server.dir, server.dir))
    local text, status = support.sh(("PATH=/usr/bin:/bin LBOX_AGENTS=%s/agents %s doctor --data %s/data"):format(
      server.dir, program, server.dir))
    assert.are.equal(0, status, text)
    assert.matches(("ok   server +lbox [%%d.]+, process %s, on %s/data/sock\n"):format(server.pid,
      server.dir:gsub("%p", "%%%0")), text)
    assert.matches("ok   codex +/%S+/agents/bin/codex\n", text)
    server:kill()
    text = support.sh(("PATH=/nonexistent HOME=/nonexistent %s doctor --data %s/data"):format(program, server.dir))
    assert.matches("note server +not running", text)
    assert.matches("%-    codex +missing: npm install %-g @openai/codex\n", text)
    server:stop()
  end)

  it("lets doctor say what is wrong with a data directory", function()
    local dir = support.directory()
    support.sh(("cp %s %s/lbox && mkdir -m 777 %s/open"):format(program, dir, dir))
    local as_user = support.sh("id -u"):match("^0")
      and "setpriv --reuid 12345 --regid 12345 --clear-groups " or ""
    local function doctor(where)
      local text, status = support.sh(("%s%s/lbox doctor --data %s"):format(as_user, dir, where))
      assert.are.equal(1, status)
      return text:match("NO   data +([^\n]+)")
    end
    assert.matches("^/usr belongs to user 0 and not to %d+, who runs this: use another", doctor "/usr")
    assert.matches("^/usr/none/at/all cannot be made: /usr belongs to user 0: use another", doctor "/usr/none/at/all")
    assert.matches("^whoever can change %S+/open could replace the data directory", doctor(dir .. "/open/data"))
    support.sh("rm -rf " .. dir)
  end)

  it("lets doctor and create name a missing bubblewrap and the fix", function()
    local dir = support.directory()
    local env = "PATH=/nonexistent LBOX_DATA=" .. dir .. " "
    local text, status = support.sh(env .. program .. " doctor")
    assert.are.equal(1, status)
    assert.matches("bwrap is not on PATH\n[^\n]*fix: apt%-get install bubblewrap", text)
    text, status = support.sh(env .. program .. " --local -e 'lbox.Box.create()'")
    assert.are.equal(1, status)
    assert.matches("bwrap is not on PATH; fix: apt%-get install bubblewrap", text)
    support.sh("pkill -f 'serve --data " .. dir .. "'; sleep 0.3; rm -rf " .. dir)
  end)
end)
