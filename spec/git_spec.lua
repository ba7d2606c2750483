local fault = require "spec.support.fault"
local raised = fault.raised

local BASE = "/v2/box/b1/git/"

describe("git", function()
  local server, box

  setup(function()
    server = fault.answering {
      ["POST " .. BASE .. "clone"] = "{}",
      ["GET " .. BASE .. "diff"] = '{"diff":"-a\\n+b\\n"}',
      ["GET " .. BASE .. "status"] = '{"status":null}',
      ["GET /v2/box/odd/git/status"] = '{"status":["M a"]}',
      ["POST " .. BASE .. "commit"] = '{"sha":"abc","message":"m","files":2,"note":null}',
      ["PUT /v2/box/b1/config/git"] = '{"git_user_name":"Ada","git_user_email":"ada@example.com"}',
      ["PUT /v2/box/old/config/git"] = { 404, '{"error":"no such route"}' },
      ["PUT /v2/box/old/git-config"] = '{"git_user_name":"Ada"}',
      ["PUT /v2/box/gone/config/git"] = { 404, '{"error":"box not found"}' },
      ["PUT /v2/box/gone/git-config"] = { 404, '{"error":"box not found"}' },
      ["PUT /v2/box/b2/config/git"] = { 403, '{"error":"forbidden"}' },
      ["POST " .. BASE .. "push"] = "{}",
      ["POST " .. BASE .. "create-pr"] =
        '{"url":"https://example.com/1","number":1,"title":"t","base":"main","warning":"gh exited with 1"}',
      ["POST " .. BASE .. "create-issue"] = '{"url":"https://example.com/2","number":2,"title":"t"}',
      ["POST " .. BASE .. "exec"] = '{"output":"fatal: not a repository","exit_code":128}',
      ["POST " .. BASE .. "checkout"] = "{}",
      ["POST /v2/box/b1/exec"] = '{"exit_code":0,"output":""}',
      ["POST /v2/box/secret/git/clone"] = { 400, '{"error":"cannot clone with gh-t0ken-of-mine"}' },
    }
    box = server:box("b1", { git_token = "tok" })
  end)

  teardown(function()
    server:stop()
  end)

  local function sent(name)
    return server:sent("POST " .. BASE .. name).json
  end

  it("clones with the box's token, into a folder below its directory", function()
    box.git:clone { repo = "owner/name" }
    assert.are.same({ repo = "owner/name", github_token = "tok" }, sent "clone")
    box.git:clone { repo = "owner/name", branch = "dev", depth = 1, folder = "sub" }
    assert.are.same({ repo = "owner/name", branch = "dev", depth = 1, folder = "sub", github_token = "tok" },
      sent "clone")
  end)

  it("never shows the token", function()
    local err = raised(function()
      server:box("secret", { git_token = "gh-t0ken-of-mine" }).git:clone { repo = "x" }
    end)
    assert.is_nil(tostring(err):find("t0ken", 1, true), tostring(err))
  end)

  it("reads what changed; null is none", function()
    assert.are.equal("-a\n+b\n", box.git:diff())
    assert.are.equal("", box.git:status())
    assert.are.equal("api", raised(function() server:box("odd").git:status() end).kind)
  end)

  it("works in the box's directory", function()
    local there = server:box("b1")
    there:cd("project")
    there.git:status()
    assert.are.equal("folder=project", server:sent("GET " .. BASE .. "status").query)
    there.git:commit { message = "m" }
    assert.are.same({ message = "m", folder = "project" }, sent "commit")
  end)

  it("commits, and gives back everything the server says", function()
    assert.are.same({ sha = "abc", message = "m", files = 2 },
      box.git:commit { message = "m", author_name = "A", author_email = "a@b" })
    assert.are.same({ message = "m", author_name = "A", author_email = "a@b" }, sent "commit")
  end)

  it("sets the identity, also on servers that have it elsewhere", function()
    assert.are.same({ git_user_name = "Ada", git_user_email = "ada@example.com" },
      box.git:update_config { user_name = "Ada", user_email = "ada@example.com" })
    assert.are.same({ git_user_name = "Ada" }, server:box("old").git:update_config { user_name = "Ada" })
    assert.are.same({ git_user_name = "Ada" }, server:sent("PUT /v2/box/old/git-config").json)
    local err = raised(function() server:box("gone").git:update_config { user_name = "Ada" } end)
    assert.are.equal(404, err.status_code)
    assert.are.equal(403, raised(function() server:box("b2").git:update_config { user_name = "Ada" } end).status_code)
    assert.are.equal(0, #server:log("PUT /v2/box/b2/git-config"))
  end)

  it("opens pull requests and issues, with files", function()
    local pr = box.git:create_pr { title = "t", body = "b", base = "main", attach = { "shot.png" } }
    assert.are.equal("gh exited with 1", pr.warning)
    assert.are.same({ title = "t", body = "b", base = "main", attach = { "shot.png" } }, sent "create-pr")
    assert.are.equal(2, box.git:create_issue({ title = "t", attach = {} }).number)
    assert.are.same({ title = "t" }, sent "create-issue")
  end)

  it("runs any command, whose exit code does not raise", function()
    assert.are.same({ output = "fatal: not a repository", exit_code = 128 }, box.git:exec { args = { "log" } })
    assert.are.same({ args = { "log" } }, sent "exec")
    box.git:push()
    assert.are.same({}, sent "push")
    box.git:push { branch = "dev" }
    assert.are.same({ branch = "dev" }, sent "push")
    box.git:checkout { branch = "dev" }
    assert.are.same({ branch = "dev" }, sent "checkout")
  end)

  it("refuses what cannot be right, before any request", function()
    local before = #server:log()
    for message, fn in pairs {
      ['needs the option "repo"'] = function() box.git:clone {} end,
      ["repo must not be empty"] = function() box.git:clone { repo = " " } end,
      ["depth must be a whole number"] = function() box.git:clone { repo = "x", depth = 1.5 } end,
      ['needs the option "user_name" or "user_email"'] = function() box.git:update_config {} end,
      ["args must have at least one item"] = function() box.git:exec { args = {} } end,
      ["args must be a list of strings"] = function() box.git:exec { args = "status" } end,
      ['did you mean "branch"'] = function() box.git:checkout { brunch = "x" } end,
      ["call it as box.git:push"] = function() box.git.push {} end,
    } do
      local err = raised(fn)
      assert.are.equal("usage", err.kind)
      assert.is_truthy(err.message:find(message, 1, true), err.message)
    end
    assert.are.equal(before, #server:log())
  end)
end)
