-- Skills in local boxes: from a directory of this machine to where the CLIs of agents look.
local lbox = require "lbox"
local support = require "spec.support.local"
local Box = lbox.Box

local PLACE = "/home/boxuser/.agents/skills/"

describe("a skill in a local box", function()
  local server, dir

  setup(function()
    dir = support.directory()
    server = support.start { args = "--skills " .. dir }
    support.skill(dir .. "/acme/tools/skills/digger", "Digs.")
    support.skill(dir .. "/acme/tools/skills/rake", "Rakes.")
    support.skill(dir .. "/acme/other/digger", "Digs, too.")
    support.sh(("cd %s/acme/tools/skills/digger && mkdir -p bin .git && printf '#!/bin/sh\\necho dug\\n' >bin/dig "
      .. "&& chmod 755 bin/dig && touch .git/x"):format(dir))
  end)

  teardown(function()
    server:stop()
    os.execute("rm -rf " .. dir)
  end)

  local function create(skills)
    return Box.create(server:client { skills = skills })
  end

  local function out(box, command)
    return box.exec:command(command).result
  end

  local function refusal(...)
    local ok, err = pcall(...)
    assert.is_false(ok, "it did not fail")
    return ("%s: %s"):format(err.status_code, err.message)
  end

  it("is there from the beginning, whole, and where each CLI looks", function()
    local box = create { "acme/tools/digger" }
    assert.are.same({ "acme/tools/digger" }, box.skills:list())
    assert.matches("description: Digs%.", box.files:read(PLACE .. "acme/tools/digger/SKILL.md"))
    assert.are.equal("dug\n", out(box, "~/.claude/skills/digger/bin/dig"))
    assert.are.equal(".claude/skills/digger\n", out(box, "cd; ls -d .claude/skills/*"))
    assert.are.equal("SKILL.md\nbin\n", out(box, "ls -A " .. PLACE .. "acme/tools/digger"))
    assert.are.equal("digger\n", out(box, "ls -A " .. PLACE .. "acme/tools"))
  end)

  it("comes to a live box and leaves it, alone and with its repository", function()
    local box = create()
    box.skills:add("acme/tools/rake")
    assert.matches("Rakes", out(box, "cat ~/.claude/skills/rake/SKILL.md"), 1, true)
    box.skills:add("acme/tools")
    assert.are.equal("digger\nrake\n", out(box, "ls ~/.claude/skills"))
    assert.are.same({ "acme/tools/rake", "acme/tools" }, box.skills:list())
    box.skills:remove("acme/tools")
    assert.are.equal("rake\n", out(box, "ls ~/.claude/skills/rake/SKILL.md >/dev/null && ls ~/.claude/skills"))
    box.skills:remove("acme/tools/rake")
    assert.are.equal("", out(box, "ls ~/.claude/skills; find ~/.agents/skills -name SKILL.md"))
    assert.are.same({}, box.skills:list())
    assert.matches('^404: the box has no skill "acme/tools/rake"', refusal(box.skills.remove, box.skills,
      "acme/tools/rake"))
  end)

  it("is renewed when it is added again", function()
    local box = create { "acme/tools/rake" }
    support.skill(dir .. "/acme/tools/skills/rake", "Rakes better.")
    out(box, "touch ~/.claude/skills/rake/old")
    box.skills:add("acme/tools/rake")
    assert.are.same({ "acme/tools/rake" }, box.skills:list())
    assert.matches("Rakes better", out(box, "cat ~/.claude/skills/rake/SKILL.md"), 1, true)
    assert.are.equal("SKILL.md\n", out(box, "ls ~/.claude/skills/rake"))
  end)

  it("comes with a snapshot, unless the box is to have others", function()
    local box = create { "acme/tools/digger" }
    local snapshot = box:snapshot { name = "skilled" }
    local copy = Box.from_snapshot(snapshot.id, server:client())
    assert.are.equal("dug\n", out(copy, "~/.claude/skills/digger/bin/dig"))
    assert.are.same({ "acme/tools/digger" }, copy.skills:list())
    local other = Box.from_snapshot(snapshot.id, server:client { skills = { "acme/other" } })
    assert.are.equal(PLACE .. "acme/other/digger\n", out(other, "readlink ~/.claude/skills/digger"))
    assert.are.same({ "acme/other" }, other.skills:list())
  end)

  it("that is not on this machine is refused, and the error says what to do", function()
    assert.are.equal(('422: the skill "no/such/one" is not on this machine: git clone https://github.com/no/such '
      .. '%s/no/such'):format(dir), (refusal(create, { "no/such/one" }):gsub(" %(.*$", "")))
    local box = create()
    assert.matches(('422: there is no skill "acme/tools/x" in %s/acme/tools: digger, rake'):format(dir),
      refusal(box.skills.add, box.skills, "acme/tools/x"), 1, true)
    assert.are.same({}, box.skills:list())
    for _, wrong in ipairs { "only-one", "a/b/c/d", "../b/c", "a/../c", "a/b/..", "a/b/", "a//c" } do
      assert.matches("^400: skill .*write owner/repo/skill", refusal(create, { wrong }))
    end
  end)

  it("does not take other files of this machine into a box", function()
    support.skill(dir .. "/evil/links/one", "One.")
    support.sh(("ln -s /etc/passwd %s/evil/links/one/passwd"):format(dir))
    support.sh(("mkdir -p %s/evil/links/two && ln -s /etc/passwd %s/evil/links/two/SKILL.md"):format(dir, dir))
    support.sh(("mkdir -p %s/evil/fifo/one && touch %s/evil/fifo/one/SKILL.md && mkfifo %s/evil/fifo/one/pipe"):format(
      dir, dir, dir))
    assert.matches("^422: .*/one/passwd of a skill is no file", refusal(create, { "evil/links/one" }))
    assert.matches("^422: there is no skill \"evil/links/two\"", refusal(create, { "evil/links/two" }))
    assert.matches("^422: .*/one/pipe of a skill is no file", refusal(create, { "evil/fifo" }))
  end)

  it("is not looked for behind links, but for that of the whole directory", function()
    support.skill(dir .. "-outside/r/skills/secret", "Secret.")
    support.sh(("cd %s && mkdir -p evil/within evil/deep/.claude && ln -s %s-outside/r/skills evil/within/skills "
      .. "&& ln -s %s-outside/r/skills evil/deep/.claude/skills && ln -s %s-outside/r evil/repository "
      .. "&& ln -s %s-outside owner && ln -s %s %s-link"):format(dir, dir, dir, dir, dir, dir, dir))
    for _, repository in ipairs { "evil/within", "evil/deep" } do
      assert.matches(("^422: there is no skill \"%s/secret\""):format(repository),
        refusal(create, { repository .. "/secret" }))
    end
    for _, repository in ipairs { "evil/repository", "owner/r" } do
      local box = create()
      assert.matches(("^422: .*/%s is no directory, or one behind a link"):format(repository),
        refusal(box.skills.add, box.skills, repository .. "/secret"))
    end
    local linked = support.start { args = ("--skills %s-link"):format(dir) }
    local box = Box.create(linked:client { skills = { "acme/tools/digger" } })
    assert.are.equal("dug\n", out(box, "~/.claude/skills/digger/bin/dig"))
    linked:stop()
    support.sh(("rm -rf %s-outside %s-link"):format(dir, dir))
  end)

  it("does not take the place of another of its name, or of what the box has there", function()
    local box = create { "acme/tools/digger" }
    assert.matches("^409: .*the box has another skill of that name", refusal(box.skills.add, box.skills, "acme/other"))
    assert.matches("Digs%.", out(box, "cat ~/.claude/skills/digger/SKILL.md"))
    assert.are.same({ "acme/tools/digger" }, box.skills:list())
    out(box, "mkdir ~/.claude/skills/rake; touch ~/.claude/skills/rake/own")
    assert.matches("^409: ", refusal(box.skills.add, box.skills, "acme/tools/rake"))
    assert.are.equal("own\n", out(box, "ls ~/.claude/skills/rake"))
    assert.are.equal("acme\nacme/tools\n", out(box, "cd " .. PLACE .. "; ls -d * */*"))
  end)

  it("says what of the box is in its way, and leaves nothing of itself behind", function()
    for command, why in pairs {
      ["touch ~/.agents"] = "/home/boxuser/.agents[^ ]*: Not a directory",
      ["mkdir -m 0 ~/.agents"] = "/home/boxuser/.agents[^ ]*: Permission denied",
      ["ln -s .agents ~/.agents"] = "/home/boxuser/.agents[^ ]*: Too many levels",
      ["mkdir -p ~/.agents/skills/acme; chmod 500 ~/.agents/skills/acme"] = "/acme/tools[^ ]*: Permission denied",
      ["touch ~/.claude"] = "/home/boxuser/.claude[^ ]*: Not a directory",
      ["mkdir -p ~/.claude/skills/rake"] = "another skill of that name",
    } do
      local box = create()
      out(box, "cd; " .. command)
      assert.matches("^409: the skill \"acme/tools/rake\": .*" .. why,
        refusal(box.skills.add, box.skills, "acme/tools/rake"))
      assert.are.equal("", out(box, "cd; chmod -R u+rwx .agents 2>/dev/null; find . -name tools -o -name '.run_*'"))
      assert.are.same({}, box.skills:list())
      box:delete()
    end
  end)
end)
