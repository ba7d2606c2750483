--- git in a box (box-api.md §1.8, §4.8), by the git that the box has.
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local git = require "lbox.server.git"
local runs = require "lbox.server.runs"

local WORKSPACE = "/workspace/home"

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

--- A handler: `fn(repository, body)` works in the folder the request names.
local function handler(fn, spec)
  spec.folder = "string"
  return function(server, request, params)
    local row = server.boxes:get(params.id)
    local body = fields.check(request.method == "GET" and request.query or request:json(), spec)
    local folder = server.boxes.folder(body.folder)
    fields.path(folder, "folder")
    local answer = server.boxes:working(row, function(box)
      return fn(git.new(server, row, box, folder, request), body)
    end)
    request:answer(200, answer)
  end
end

-- ----------------------------------------------------------------------------------------- clone

--- Where a repository is, from what people write: also owner/name, for GitHub, and a host without scheme.
local function repository_url(repo)
  if repo == "" or repo:sub(1, 1) == "-" or repo:find("[%c]") then
    refuse(400, ("repo %q: write owner/name, a URL or the path of a repository in the box"):format(repo))
  elseif repo:match("^%a[%w+.-]*://") or repo:match("^[/.]") or repo:match("^[^/]+:") then
    return repo
  elseif repo:match("^[%w-]+%.[%w.-]+/.") then
    return "https://" .. repo
  elseif repo:match("^[%w._-]+/[%w._-]+$") then
    return "https://github.com/" .. repo
  end
  refuse(400, ("repo %q: write owner/name, a URL or the path of a repository in the box (./%s)"):format(repo, repo))
end

--- The directory a clone makes when none is named.
local function repository_name(url)
  local name = url:gsub("/+$", ""):gsub("/%.git$", ""):match("[^/:]+$") or ""
  name = name:gsub("%.git$", "")
  if name == "" or name == "." or name == ".." then
    refuse(400, ("repo %q: name a folder for it"):format(url))
  end
  return name
end

--- A folder that is there is where the clone goes into, as the folder of every other request is where one
--- works; one that is not there is the clone's own.
local function clone(self, body)
  local url = repository_url(body.repo)
  local argv = { "git", "clone" }
  local there, st = pcall(self.box.stat, self.box, self.folder, true)
  local destination = self.folder
  if there and st.type == "directory" then
    destination = self.folder:gsub("/+$", "") .. "/" .. repository_name(url)
  else
    self.folder = WORKSPACE
  end
  local branch = git.given(body.branch)
  if branch then
    self:check_branch(branch)
    argv[#argv + 1] = "--branch=" .. branch
  end
  if body.depth then
    if body.depth < 1 or body.depth % 1 ~= 0 then
      refuse(400, ("depth must be a whole number from 1 on, got %.14g"):format(body.depth))
    end
    argv[#argv + 1] = ("--depth=%.0f"):format(body.depth)
  end
  self.token = git.check_token(git.given(body.github_token)) or self.token
  self:must(table.move({ "--", url, destination }, 1, 3, #argv + 1, argv), { origin = self:origin(url) })
  return { folder = destination }
end

-- ------------------------------------------------------------------------------------ looking

local function status(self)
  local code, stdout, stderr = self:try { "git", "status", "--porcelain" }
  if code ~= 0 and not self.is_nowhere(stderr) then
    self:fail("git status", stdout, stderr)
  end
  return { status = code == 0 and runs.text(stdout) or "" }
end

--- What differs from the last commit; before the first one, everything that is known to git.
local function diff(self)
  local base = "HEAD"
  local code, stdout, stderr = self:try { "git", "rev-parse", "--verify", "--quiet", "HEAD" }
  if code > 1 then
    self:fail("git diff", stdout, stderr)
  elseif code ~= 0 then
    base = self:must { "git", "hash-object", "-t", "tree", "/dev/null" }
  end
  local argv = { "git", "diff", "--no-color", "--no-ext-diff", base, "--" }
  code, stdout, stderr = self:try(argv)
  if code ~= 0 then
    self:fail("git diff", stdout, stderr)
  end
  return { diff = runs.text(stdout) }
end

-- ----------------------------------------------------------------------------------- changing

--- Commits every change. The message goes by stdin: it may be long, and begin with anything.
local function commit(self, body)
  if not body.message:find("%S") then
    refuse(400, "message must not be empty")
  end
  self:must { "git", "add", "--all" }
  self:must({ "git", "commit", "--quiet", "--file=-" }, { stdin = body.message,
    env = { GIT_AUTHOR_NAME = git.given(body.author_name), GIT_AUTHOR_EMAIL = git.given(body.author_email) } })
  return { sha = self:must { "git", "rev-parse", "HEAD" }, message = body.message }
end

--- Where a branch is pushed to.
local function push_remote(self, branch)
  local own = "branch." .. branch
  for _, key in ipairs { own .. ".pushRemote", "remote.pushDefault", own .. ".remote" } do
    local code, name = self:try { "git", "config", "--get", key }
    if code == 0 then
      return (name:gsub("\n$", ""))
    end
  end
  return "origin"
end

--- Pushes a branch to the one of the same name.
local function push(self, body)
  local branch = git.given(body.branch)
  if branch then
    self:check_branch(branch)
  else
    branch = self:head() or refuse(400, "no branch is checked out: name the one to push")
  end
  local ref = "refs/heads/" .. branch
  if not self:has(ref) then
    refuse(400, ("there is no branch %q with a commit in %s"):format(branch, self.folder))
  end
  local remote = push_remote(self, branch)
  self:must({ "git", "push", "--quiet", "--set-upstream", "--", remote, ref .. ":" .. ref },
    { origin = self:remote_origin(remote, true) })
  return {}
end

--- Switches to a branch: to one that is here, or on a remote, or else to a new one. A tag or commit is
--- checked out as it is.
local function checkout(self, body)
  local name = body.branch
  self:check_branch(name)
  local remote = self:must { "git", "for-each-ref", "--count=1", "--format=x", "refs/remotes/*/" .. name }
  if remote ~= "" or self:has("refs/heads/" .. name) then
    self:must { "git", "switch", "--quiet", name }
  elseif self:has(name .. "^{commit}") then
    self:must { "git", "switch", "--quiet", "--detach", name }
  else
    self:must { "git", "switch", "--quiet", "--create", name }
  end
  return {}
end

-- What talks to the remote `origin`, and so is given the token.
local REMOTE = { fetch = true, pull = true, push = true, ["ls-remote"] = true }

local function exec(self, body)
  if #body.args == 0 then
    refuse(400, "args must have at least one word: the git command")
  end
  local argv = table.move(body.args, 1, #body.args, 2, { "git" })
  local origin = REMOTE[body.args[1]] and self:remote_origin("origin") or nil
  local code, output = self:try(argv, { merge = true, origin = origin })
  return { output = runs.text(output), exit_code = code }
end

-- ------------------------------------------------------------------------------------- GitHub

--- Runs gh to make something and returns its URL, its number and, when gh found something to say besides,
--- that.
local function make(self, kind, argv, body)
  if body.attach and #body.attach > 0 then
    refuse(501, "attach is not available on local boxes: gh cannot upload files")
  elseif not body.title:find("%S") then
    refuse(400, "title must not be empty")
  end
  local code, stdout, stderr = self:try(argv, { stdin = body.body or "" })
  local pattern = ("https?://[^%%s]+/%s/(%%d+)"):format(kind)
  for _, text in ipairs { stdout, stderr } do
    local from, to, number = text:find(pattern)
    if from then
      return { url = text:sub(from, to), number = math.tointeger(tonumber(number)), title = body.title,
        warning = code ~= 0 and self:words(stderr) or nil }
    end
  end
  if code ~= 0 then
    self:fail(("gh %s create"):format(argv[2]), stdout, stderr)
  end
  refuse(400, ("gh named no URL: %s"):format(self:words(stdout)))
end

local function create_pr(self, body)
  local head = self:head() or refuse(400, "no branch is checked out that a pull request could be of")
  local argv = { "gh", "pr", "create", "--title=" .. body.title, "--body-file=-", "--head=" .. head }
  local base = git.given(body.base)
  if base then
    self:check_branch(base)
    argv[#argv + 1] = "--base=" .. base
  end
  local made = make(self, "pull", argv, body)
  made.base = base
  if not base then
    local code, stdout, stderr = self:try { "gh", "pr", "view", made.url, "--json=baseRefName", "--jq=.baseRefName" }
    if code == 0 then
      made.base = stdout:gsub("\n$", "")
    else
      made.warning = "gh does not say into what branch: " .. self:words(stderr)
    end
  end
  return made
end

local function create_issue(self, body)
  return make(self, "issues", { "gh", "issue", "create", "--title=" .. body.title, "--body-file=-" }, body)
end

local CLONE = { repo = "string!", branch = "string", depth = "number", github_token = "string" }
local COMMIT = { message = "string!", author_name = "string", author_email = "string" }
local PR = { title = "string!", body = "string", base = "string", attach = "strings" }

return {
  { "POST", "/v2/box/{id}/git/clone", handler(clone, CLONE) },
  { "GET", "/v2/box/{id}/git/diff", handler(diff, {}) },
  { "GET", "/v2/box/{id}/git/status", handler(status, {}) },
  { "POST", "/v2/box/{id}/git/commit", handler(commit, COMMIT) },
  { "POST", "/v2/box/{id}/git/push", handler(push, { branch = "string" }) },
  { "POST", "/v2/box/{id}/git/checkout", handler(checkout, { branch = "string!" }) },
  { "POST", "/v2/box/{id}/git/exec", handler(exec, { args = "strings!" }) },
  { "POST", "/v2/box/{id}/git/create-pr", handler(create_pr, PR) },
  { "POST", "/v2/box/{id}/git/create-issue", handler(create_issue, { title = "string!", body = "string",
    attach = "strings" }) },
}
