--- `box.git`: git in the box, with the box's own identity. Every call works in `box.cwd`.
local client = require "lbox.client"
local errors = require "lbox.errors"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local runs = require "lbox.run"

local READ_OPTIONS = client.read_options {}

---@class lbox.git.CloneOptions: lbox.CallOptions
---@field repo string          "owner/name" or a URL
---@field branch string|nil
---@field depth integer|nil    so many commits of its history
---@field folder string|nil    where to, relative to `box.cwd`

local CLONE_OPTIONS = client.call_options { repo = "text!", branch = "text", depth = "count", folder = "text" }

---@class lbox.git.CommitOptions: lbox.CallOptions
---@field message string
---@field author_name string|nil
---@field author_email string|nil

local COMMIT_OPTIONS = client.call_options { message = "text!", author_name = "text", author_email = "text" }

---@class lbox.git.ConfigOptions: lbox.CallOptions
---@field user_name string|nil
---@field user_email string|nil

local CONFIG_OPTIONS = client.call_options { user_name = "text", user_email = "text" }

---@class lbox.git.PushOptions: lbox.CallOptions
---@field branch string|nil

local PUSH_OPTIONS = client.call_options { branch = "text" }

---@class lbox.git.IssueOptions: lbox.CallOptions
---@field title string
---@field body string|nil
---@field attach string[]|nil  paths of files in the box

local ISSUE_OPTIONS = client.call_options { title = "text!", body = "string", attach = "strings" }

---@class lbox.git.PrOptions: lbox.git.IssueOptions
---@field base string|nil  the branch to merge into

local PR_OPTIONS = client.call_options { title = "text!", body = "string", base = "text", attach = "strings" }

---@class lbox.git.ExecOptions: lbox.CallOptions
---@field args string[]  without `git`

local EXEC_OPTIONS = client.call_options { args = "strings!" }

---@class lbox.git.CheckoutOptions: lbox.CallOptions
---@field branch string

local CHECKOUT_OPTIONS = client.call_options { branch = "text!" }

--- The request for a git command; where it works goes along.
local function command(self, name, opts, body)
  local link = self._link
  body.folder = link:folder(opts.folder)
  return { method = "POST", path = "/git/" .. name, json = body, opts = opts, secrets = { link.git_token } }
end

--- Asks for a text about the repository.
local function get(self, name, opts)
  local link = self._link
  opts = options.call(opts, READ_OPTIONS, "box.git:" .. name)
  local spec = { method = "GET", path = "/git/" .. name, query = { { "folder", link:folder() } }, opts = opts }
  local answer = link:ask(spec)
  local text = answer[name] or ""
  if type(text) ~= "string" then
    link:nonsense(spec, 200)
  end
  return text
end

local function attached(paths)
  return paths and paths[1] and paths or nil
end

---@class lbox.BoxGit
local methods = {}

--- Clones a repository, with the token the box object was made with (`git = { token }`, `git_token`).
---@param opts lbox.git.CloneOptions
function methods:clone(opts)
  opts = options.call(opts, CLONE_OPTIONS, "box.git:clone")
  self._link:perform(command(self, "clone", opts, {
    repo = opts.repo, branch = opts.branch, depth = opts.depth, github_token = self._link.git_token,
  }))
end

--- What differs from the last commit, as `git diff` shows it.
---@param opts lbox.ReadOptions|nil
---@return string
function methods:diff(opts)
  return get(self, "diff", opts)
end

--- The state of the working tree in git's porcelain format: "" when clean, and when there is no repository.
---@param opts lbox.ReadOptions|nil
---@return string
function methods:status(opts)
  return get(self, "status", opts)
end

--- Commits. A local box stages every change before; what the hosted service stages is not documented.
---@param opts lbox.git.CommitOptions
---@return { sha: string, message: string }
function methods:commit(opts)
  opts = options.call(opts, COMMIT_OPTIONS, "box.git:commit")
  return self._link:object("sha", command(self, "commit", opts, {
    message = opts.message, author_name = opts.author_name, author_email = opts.author_email,
  }))
end

--- Sets who commits in this box. Returns what is in effect now.
---@param opts lbox.git.ConfigOptions
---@return { git_user_name: string, git_user_email: string }
function methods:update_config(opts)
  opts = options.call(opts, CONFIG_OPTIONS, "box.git:update_config")
  if not opts.user_name and not opts.user_email then
    errors.raise("usage", "box.git:update_config needs the option \"user_name\" or \"user_email\"")
  end
  local function put(path)
    return self._link:ask {
      method = "PUT", path = path, opts = opts,
      json = { git_user_name = opts.user_name, git_user_email = opts.user_email },
    }
  end
  local ok, answer = pcall(put, "/config/git")
  if ok then
    return answer
  elseif errors.is(answer, "api") and answer.status_code == 404 then
    return put("/git-config") -- where older servers have it
  end
  error(answer, 0)
end

--- Pushes. Without a branch the hosted service pushes to one named after the box, a local server the one that is
--- checked out.
---@param opts lbox.git.PushOptions|nil
function methods:push(opts)
  opts = options.call(opts, PUSH_OPTIONS, "box.git:push")
  self._link:perform(command(self, "push", opts, { branch = opts.branch }))
end

--- Opens a pull request. A `warning` in the answer says what did not go all right.
---@param opts lbox.git.PrOptions
---@return { url: string, number: integer, title: string, base: string, warning: string? }
function methods:create_pr(opts)
  opts = options.call(opts, PR_OPTIONS, "box.git:create_pr")
  return self._link:object("url", command(self, "create-pr", opts, {
    title = opts.title, body = opts.body, base = opts.base, attach = attached(opts.attach),
  }))
end

--- Opens an issue.
---@param opts lbox.git.IssueOptions
---@return { url: string, number: integer, title: string, warning: string? }
function methods:create_issue(opts)
  opts = options.call(opts, ISSUE_OPTIONS, "box.git:create_issue")
  return self._link:object("url", command(self, "create-issue", opts, {
    title = opts.title, body = opts.body, attach = attached(opts.attach),
  }))
end

--- Runs any git command. An exit code that is not 0 does not raise; servers that do not tell it leave it nil.
---@param opts lbox.git.ExecOptions
---@return { output: string, exit_code: integer|nil }
function methods:exec(opts)
  opts = options.call(opts, EXEC_OPTIONS, "box.git:exec")
  if not opts.args[1] then
    errors.raise("usage", "args must have at least one item: the git command")
  end
  local spec = command(self, "exec", opts, { args = opts.args })
  local answer = self._link:ask(spec)
  if type(answer.output) ~= "string" or (answer.exit_code ~= nil and not runs.is_exit_code(answer.exit_code)) then
    self._link:nonsense(spec, 200)
  end
  return answer
end

--- Switches to a branch, which is made when there is none.
---@param opts lbox.git.CheckoutOptions
function methods:checkout(opts)
  opts = options.call(opts, CHECKOUT_OPTIONS, "box.git:checkout")
  self._link:perform(command(self, "checkout", opts, { branch = opts.branch }))
end

return { new = namespace.of_box("box.git", methods) }
