--- git and gh in a box: how they are started, what token they get, and what they say when they fail.
---
--- A token reaches git through an anonymous file at descriptor 9 of that one command, which a credential
--- helper reads when the server it is meant for asks: it is in no argument, no environment and no file of
--- the box, and other helpers, which might store it, are off meanwhile. gh takes one only from its
--- environment. What runs as the box's user at that moment can see either; a box has no secrets from itself.
local async = require "lbox.async"
local errors = require "lbox.errors"
local failure = require "lbox.failure"
local runs = require "lbox.server.runs"

local M = {}

-- What is kept of each of stdout and stderr; more is an error.
local MAX_OUTPUT = 16 * 1024 * 1024
local MAX_TOKEN = 4096
-- How often one looks whether the client is still there.
local LOOK_MS = 1000
local NOT_FOUND = 127

local HELPER = [[!f() { test "$1" = get && printf 'username=x-access-token\npassword=%s\n' ]]
  .. [["$(cat /proc/self/fd/9)"; }; f]]
local WITH_TOKEN = "exec 9<&0 </dev/null; exec \"$@\""

local PACKAGES = { git = { "git", 422 }, gh = { "gh", 424 } }

-- Nobody is there to be asked, and what they say is read by programs.
local ENVIRONMENT = { LC_ALL = "C.UTF-8", GIT_TERMINAL_PROMPT = "0", GIT_PAGER = "cat", GH_PROMPT_DISABLED = "1",
  GH_NO_UPDATE_NOTIFIER = "1", NO_COLOR = "1" }

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

--- Raises 400 unless it can be a token.
---@param token string|nil
---@return string|nil token
function M.check_token(token)
  if token and (#token > MAX_TOKEN or not token:match("^[\33-\126]+$")) then
    refuse(400, ("github_token must be 1 to %d printable ASCII characters without spaces"):format(MAX_TOKEN))
  end
  return token
end

--- Scheme, host and port of a repository's URL that a token may be sent to: by https, or within the box.
---@param url string
---@return string|nil
local function origin_of(url)
  local scheme, host, port, after = url:gsub("^(%a+://)[^/@]*@", "%1"):match("^(https?)://([%w.-]+)(:?%d*)(.?)")
  if not scheme or (after ~= "" and after ~= "/") then
    return nil
  elseif scheme == "https" or host == "localhost" or host:match("^127%.%d+%.%d+%.%d+$") then
    return ("%s://%s%s"):format(scheme, host, port)
  end
end

--- What an optional field says: an empty text is as good as none.
---@param text string|nil
---@return string|nil
function M.given(text)
  return text ~= "" and text or nil
end

---@class lbox.server.Git
---@field folder string
local Git = {}
Git.__index = Git

--- git in one directory of a box, for one request.
---@param server table
---@param row table                   the box
---@param box lbox.server.Sandbox
---@param folder string               absolute, in the box
---@param request lbox.server.Request  when its client goes, so does what runs for it
---@return lbox.server.Git
function M.new(server, row, box, folder, request)
  return setmetatable({ server = server, row = row, box = box, folder = folder, request = request,
    token = M.check_token(row.config.github_token) }, Git)
end

--- Ends a command whose client has gone: TERM, after which git cleans up, and then KILL.
local function watch_client(request, process)
  local watch = { signal = "TERM" }
  local function look()
    if request:gone() then
      pcall(process.kill, process, watch.signal)
      watch.signal = "KILL"
    end
    watch.timer = async.at(async.now() + LOOK_MS, look)
  end
  watch.timer = async.at(async.now() + LOOK_MS, look)
  return watch
end

--- Runs a program to its end: how it ended, and what it wrote.
local function run(self, argv, stdin, opts)
  local extra = { GH_TOKEN = argv[1] == "gh" and self.token or nil }
  for _, vars in ipairs { ENVIRONMENT, opts.env or {} } do
    for name, value in pairs(vars) do
      extra[name] = value
    end
  end
  local process = self.box:spawn { argv = argv, cwd = self.folder, merge = opts.merge, stdin = stdin,
    env = self.server.boxes.environment(self.row, extra) }
  local watch = watch_client(self.request, process)
  local ok, outputs = pcall(process.collect, process, MAX_OUTPUT)
  watch.timer:cancel()
  if not ok or not outputs then
    process:kill()
    process:close()
    if not ok then
      error(outputs, 0)
    end
    refuse(413, ("git wrote more than %d bytes and was ended"):format(MAX_OUTPUT))
  elseif process.result.stopped then
    refuse(500, "the box was stopped while git ran")
  elseif process.result.not_started == "directory" then
    refuse(400, process:refusal())
  end
  return process.result, outputs, process
end

local function missing(program, words)
  local package, status = table.unpack(PACKAGES[program])
  refuse(status, ("%s cannot be started in this box (%s): apt-get install %s"):format(program, words, package))
end

--- Runs git, or gh, and returns how it ended and what it wrote.
---@param argv string[]  the program and its arguments
---@param opts { env: table<string, string>|nil, merge: boolean|nil, stdin: string|nil, origin: string|nil }|nil
---  origin: who may be given the token
---@return integer exit_code, string stdout, string stderr
function Git:try(argv, opts)
  opts = opts or {}
  local program, stdin = argv[1], opts.stdin
  if opts.origin then
    local words = { "sh", "-c", WITH_TOKEN, program, program, "-c", "credential.helper=",
      "-c", ("credential.%s.helper=%s"):format(opts.origin, HELPER) }
    argv = table.move(argv, 2, #argv, #words + 1, words)
    stdin = self.token
  end
  local result, outputs, process = run(self, argv, stdin, opts)
  if result.not_started then
    missing(program, process:refusal())
  elseif opts.origin and result.exit_code == NOT_FOUND then
    missing(program, program .. ": command not found")
  end
  return result.exit_code, outputs.stdout, outputs.stderr
end

local NOISE = { ["hint:"] = true, ["warning:"] = true, ["Cloning"] = true }

--- What a program said of its failure, in one line and without secrets.
---@return string
function Git:words(text)
  local lines = {}
  for line in text:gmatch("[^\r\n]+") do
    if not NOISE[line:match("^%S+")] then
      lines[#lines + 1] = line
    end
  end
  local said = table.concat(lines, "; "):gsub("(%a[%w+.-]*://)[^/%s@]*@", "%1")
  return failure.said(runs.text(said), { self.token })
end

--- Whether that is what git says outside of a repository.
---@param stderr string
---@return boolean
function Git.is_nowhere(stderr)
  return stderr:find("not a git repository", 1, true) ~= nil
end

--- Raises 400: `what` failed, with what the program said.
function Git:fail(what, stdout, stderr)
  if self.is_nowhere(stderr) then
    refuse(400, ("%s is not in a git repository"):format(self.folder))
  end
  local said = self:words(stderr:find("%S") and stderr or stdout)
  refuse(400, said == "" and what .. " failed" or ("%s failed: %s"):format(what, said))
end

--- Runs git and returns what it wrote to stdout, without a line's end. Raises 400 unless it ended with 0.
---@param argv string[]
---@param opts table|nil  as of `try`
---@return string
function Git:must(argv, opts)
  local code, stdout, stderr = self:try(argv, opts)
  if code ~= 0 then
    self:fail("git " .. argv[2], stdout, stderr)
  end
  return (stdout:gsub("\n$", ""))
end

--- The origin to give the token to when git talks to `url`: nil without a token, or when there is none.
---@param url string
---@return string|nil
function Git:origin(url)
  return self.token and origin_of(url)
end

--- The same for a remote of the repository.
---@param remote string
---@param push boolean|nil  where one pushes to
---@return string|nil
function Git:remote_origin(remote, push)
  if not self.token then
    return nil
  end
  local argv = { "git", "remote", "get-url", "--", remote }
  if push then
    table.insert(argv, 4, "--push")
  end
  local code, url = self:try(argv)
  return code == 0 and origin_of((url:gsub("\n$", ""))) or nil
end

--- The branch that is checked out, or nil.
---@return string|nil
function Git:head()
  local code, name, stderr = self:try { "git", "symbolic-ref", "--short", "--quiet", "HEAD" }
  if code > 1 then
    self:fail("git", name, stderr)
  end
  return code == 0 and name:gsub("\n$", "") or nil
end

--- Whether something of that name is there: "refs/heads/main", "v1.0^{commit}".
---@return boolean
function Git:has(name)
  return (self:try { "git", "rev-parse", "--verify", "--quiet", "--end-of-options", name }) == 0
end

--- Raises 400 unless it is the name of a branch, whether or not there is one.
---@param name string
function Git:check_branch(name)
  if name:sub(1, 1) == "-" then
    refuse(400, ("branch %q: a branch does not begin with \"-\""):format(name))
  elseif name == "HEAD" or self:try { "git", "check-ref-format", "refs/heads/" .. name } ~= 0 then
    refuse(400, ("branch %q: git allows no branch of that name"):format(name))
  end
end

return M
