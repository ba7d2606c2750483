-- git in local boxes: the real git, repositories in the box and a git server on its loopback.
local json = require "lbox.json"
local lbox = require "lbox"
local support = require "spec.support.local"
local Box = lbox.Box

local TOKEN = "ghp_0123456789abcdefABCDEF0123456789abcd"

-- git's own HTTP server behind a password, as a program of the box.
local GIT_SERVER = [[
import base64, http.server, os, subprocess, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def serve(self):
        want = "Basic " + base64.b64encode(b"x-access-token:" + sys.argv[1].encode()).decode()
        if self.headers.get("Authorization") != want:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        env = dict(os.environ, GIT_PROJECT_ROOT="/srv", GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path, QUERY_STRING=query,
                   REQUEST_METHOD=self.command, CONTENT_TYPE=self.headers.get("Content-Type", ""),
                   CONTENT_LENGTH=str(len(body)), REMOTE_USER="x",
                   HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""))
        out = subprocess.run(["/usr/bin/git", "http-backend"], input=body, env=env, capture_output=True).stdout
        head, _, rest = out.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(rest)
    do_GET = do_POST = serve
    def log_message(self, *args): pass

http.server.HTTPServer(("127.0.0.1", 8418), Handler).serve_forever()
]]

describe("git in a local box", function()
  local server, box

  local function sh(command)
    local run = box.exec:command("cd /workspace/home\n" .. command)
    assert.are.equal(0, run.exit_code, run.stderr)
    return run.stdout
  end

  --- The status and the error of a request that fails.
  local function refusal(fn, ...)
    local ok, err = pcall(fn, box.git, ...)
    assert.is_false(ok, "it did not fail")
    assert.are.equal("api", err.kind)
    return err.message, err.status_code
  end

  --- What a request of one's own is answered: status and text.
  local function post(path, body)
    local file = server.dir .. "/body"
    local handle = assert(io.open(file, "w"))
    handle:write(json.encode(body))
    handle:close()
    local text = support.sh(("curl -s -w '\n%%{http_code}' -H 'X-Box-Api-Key: %s' -d @%s %s/v2/box/%s%s"):format(
      server.key, file, server.url, box.id, path))
    return text:match("^(.*)\n(%d+)$")
  end

  setup(function()
    server = support.start()
    box = Box.create(server:client { git = { token = TOKEN } })
    sh [[set -e
      git init -q --bare -b main /srv/origin.git
      git -C /srv/origin.git config http.receivepack true
      git init -q -b main /workspace/seed && cd /workspace/seed
      echo one > file; git add .; git commit -qm first; git tag v1
      echo two > file; git commit -qam second
      git branch feature/x
      git push -q /srv/origin.git --all; git push -q /srv/origin.git v1]]
  end)

  before_each(function()
    box:cd("/workspace/home")
    sh "rm -rf /workspace/home/* /home/boxuser/.gitconfig /home/boxuser/.local"
  end)

  teardown(function()
    server:stop()
  end)

  it("clones a repository of the box beside what is there, or into a folder of its own", function()
    box.git:clone { repo = "/srv/origin.git" }
    assert.are.equal("two\n", box.files:read("origin/file"))
    box.git:clone { repo = "/srv/origin.git", folder = "deep/er", branch = "feature/x" }
    assert.are.equal("feature/x\n", sh "git -C deep/er branch --show-current")
    sh "mkdir sub"
    box:cd("sub")
    box.git:clone { repo = "file:///srv/origin.git", depth = 1 }
    assert.are.equal("1\n", sh "git -C /workspace/home/sub/origin rev-list --count HEAD")
  end)

  it("takes no repository or branch for an option", function()
    local marker = "/workspace/home/marker"
    for _, repo in ipairs { "--upload-pack=touch " .. marker, "-u", "-" } do
      assert.matches("write owner/name, a URL or the path", (refusal(box.git.clone, { repo = repo })))
    end
    assert.matches("does not begin with", (refusal(box.git.clone, { repo = "/srv/origin.git",
      branch = "--config=core.fsmonitor=touch " .. marker })))
    box.git:clone { repo = "/srv/origin.git", folder = "r" }
    box:cd("r")
    assert.matches("does not begin with", (refusal(box.git.checkout, { branch = "--orphan" })))
    assert.matches("does not begin with", (refusal(box.git.push, { branch = "--delete" })))
    assert.matches("no branch of that name", (refusal(box.git.checkout, { branch = "a..b" })))
    assert.matches("no branch of that name", (refusal(box.git.checkout, { branch = "@{-1}" })))
    assert.are.equal("", sh("ls " .. marker .. " 2>/dev/null || true"))
  end)

  it("says what is wrong with a clone", function()
    local message, status = refusal(box.git.clone, { repo = "/srv/none.git" })
    assert.are.equal(400, status)
    assert.matches("git clone failed: .*'/srv/none.git' does not exist", message)
    box.git:clone { repo = "/srv/origin.git" }
    assert.matches("already exists", (refusal(box.git.clone, { repo = "/srv/origin.git" })))
    assert.matches("%./seed", (refusal(box.git.clone, { repo = "seed" })))
    assert.matches("depth must be a whole number", (post("/git/clone", { repo = "/srv/origin.git", depth = 0.5 })))
  end)

  it("tells the state of a repository, and none where there is none", function()
    assert.are.equal("", box.git:status())
    assert.matches("/workspace/home is not in a git repository", (refusal(box.git.diff)))
    box.git:clone { repo = "/srv/origin.git", folder = "r" }
    box:cd("r")
    assert.are.equal("", box.git:status())
    assert.are.equal("", box.git:diff())
    sh "cd r; echo three >> file; git add file; echo four >> file; echo new > new"
    assert.are.equal("MM file\n?? new\n", box.git:status())
    assert.matches("%+three\n%+four\n", box.git:diff())
    assert.not_matches("new", box.git:diff())
    box.cwd = "/nowhere"
    assert.matches("/nowhere.: no such directory", (refusal(box.git.status)))
  end)

  it("shows what a repository without a commit has", function()
    sh "git init -q r; cd r; echo x > a; git add a"
    box:cd("r")
    assert.matches("%+x\n", box.git:diff())
  end)

  it("commits every change, as the box unless told otherwise", function()
    box.git:clone { repo = "/srv/origin.git", folder = "r" }
    box:cd("r")
    sh "cd r; echo more >> file; mkdir d; echo new > d/new"
    local done = box.git:commit { message = "-m is no option\n\n# nor a comment" }
    assert.are.equal(sh("git -C r rev-parse HEAD"), done.sha .. "\n")
    assert.are.equal("", box.git:status())
    assert.are.equal("-m is no option\n\n# nor a comment\n\nUpstash Box <box@upstash.com>\n",
      sh "git -C r log -1 --format='%B%n%an <%ae>'")
    assert.matches("nothing to commit", (refusal(box.git.commit, { message = "again" })))

    sh "git config --global user.name Me; git config --global user.email me@here; cd r; echo 5 > five"
    box:cd("d")
    box.git:commit { message = "m", author_name = "You" }
    assert.are.equal("You <me@here> Me\n", sh "git -C r log -1 --format='%an <%ae> %cn'")
  end)

  it("pushes the branch that is checked out, or the one that is named", function()
    sh "git clone -q --bare /srv/origin.git mine.git"
    box.git:clone { repo = "./mine.git", folder = "r" }
    box:cd("r")
    box.git:checkout { branch = "work" }
    sh "cd r; echo w > w"
    local done = box.git:commit { message = "w" }
    box.git:push()
    assert.are.equal(done.sha .. "\n", sh "git -C mine.git rev-parse refs/heads/work")
    sh "cd r; git branch other HEAD~1; echo v >> w; git commit -qam v"
    box.git:push { branch = "other" }
    assert.are.equal(done.sha .. "\n", sh "git -C mine.git rev-parse refs/heads/work")
    assert.are.equal(sh "git -C r rev-parse other", sh "git -C mine.git rev-parse refs/heads/other")
    assert.matches('no branch "none"', (refusal(box.git.push, { branch = "none" })))
    sh "cd r; git reset -q --hard HEAD~2; git commit -q --allow-empty -m apart"
    assert.matches("rejected", (refusal(box.git.push)))
    sh "cd r; git switch -q --detach"
    assert.matches("no branch is checked out", (refusal(box.git.push)))
  end)

  it("switches to a branch, makes one, and never restores a path of that name", function()
    box.git:clone { repo = "/srv/origin.git", folder = "r" }
    box:cd("r")
    local function branch()
      return (sh "git -C r branch --show-current")
    end
    box.git:checkout { branch = "feature/x" }
    assert.are.equal("feature/x\norigin/feature/x\n", branch() .. sh "git -C r rev-parse --abbrev-ref @{u}")
    sh "echo changed > r/file"
    box.git:checkout { branch = "file" }
    assert.are.equal("file\n", branch())
    assert.are.equal("changed\n", box.files:read("file"))
    sh "git -C r checkout -q -- file"
    box.git:checkout { branch = "main" }
    box.git:checkout { branch = "v1" }
    assert.are.equal("one\n", box.files:read("file"))
    assert.are.equal("\n", sh "git -C r branch --show-current; echo")
    box:cd("/workspace/home")
    assert.matches("not in a git repository", (refusal(box.git.checkout, { branch = "x" })))
    sh "git init -q -b main empty"
    box:cd("empty")
    box.git:checkout { branch = "main" }
    box.git:checkout { branch = "next" }
    assert.are.equal("next\n", sh "git -C empty branch --show-current")
  end)

  it("runs any git command and tells how it ended", function()
    local run = box.git:exec { args = { "rev-parse", "HEAD" } }
    assert.are.equal(128, run.exit_code)
    assert.matches("not a git repository", run.output)
    run = box.git:exec { args = { "-C", "/workspace/seed", "log", "--format=%s" } }
    assert.are.same({ output = "second\nfirst\n", exit_code = 0 }, run)
  end)

  it("gives the token to the server that is asked, and leaves it nowhere", function()
    box.files:write { path = "/opt/server.py", content = GIT_SERVER }
    -- Keeps what every git of the box is started with.
    box.files:write { path = "/home/boxuser/.local/bin/git", content = [[#!/bin/sh
echo "$@" >> /tmp/seen; env >> /tmp/seen; exec /usr/bin/git "$@"]] }
    sh(("chmod +x /home/boxuser/.local/bin/git; git config --global credential.helper store; "
      .. "python3 /opt/server.py %s >/dev/null 2>&1 & sleep 0.5"):format(TOKEN))
    box.git:clone { repo = "http://127.0.0.1:8418/origin.git", folder = "r" }
    box:cd("r")
    sh "cd r; git switch -qc pushed; echo p > p"
    box.git:commit { message = "p" }
    box.git:push()
    assert.are.equal(sh "git -C r rev-parse HEAD", sh "git -C /srv/origin.git rev-parse pushed")
    assert.are.equal(0, box.git:exec { args = { "fetch" } }.exit_code)
    assert.matches("clone %-%- http://127", sh "cat /tmp/seen")
    local left = sh "cat /tmp/seen /home/boxuser/.git* r/.git/config"
    assert.matches("helper = store", left)
    assert.not_matches(TOKEN, left, 1, true)
    assert.not_matches(TOKEN, server:said(), 1, true)

    -- What was refused is not told.
    local message = refusal(box.git.clone, { repo = "http://localhost:8418/none.git", folder = "n", extra = {
      github_token = "ghp_wrongwrongwrongwrongwrongwrongwrong" } })
    assert.matches("Authentication failed", message)
    assert.not_matches("wrongwrong", message)
    sh "git -C r remote set-url --push origin http://x:secretword@127.0.0.1:8418/none.git"
    message = refusal(box.git.push)
    assert.not_matches("secretword", message)
  end)

  it("needs gh for pull requests and issues, and says so", function()
    sh "git init -q -b main r"
    box:cd("r")
    local message, status = refusal(box.git.create_issue, { title = "t" })
    assert.are.equal(424, status)
    assert.matches("gh: command not found%): apt%-get install gh", message)
  end)

  it("opens pull requests and issues by gh", function()
    box.files:write { path = "/home/boxuser/.local/bin/gh", content = [[#!/bin/sh
for word; do echo "<$word>"; done >> /tmp/gh; echo "token=$GH_TOKEN body=$(cat)" >> /tmp/gh
case "$*" in
  *view*) echo main;;
  *twice*) echo 'a pull request already exists:
https://github.com/o/r/pull/7' >&2; exit 1;;
  *never*) echo "GraphQL: No commits between main and work; token $GH_TOKEN" >&2; exit 1;;
  pr*) echo https://github.com/o/r/pull/12;;
  issue*) echo https://github.com/o/r/issues/3;;
esac]] }
    sh "chmod +x /home/boxuser/.local/bin/gh; git init -q -b work r"
    box:cd("r")
    local made = box.git:create_pr { title = "--fill", body = "text\nmore" }
    assert.are.same({ url = "https://github.com/o/r/pull/12", number = 12, title = "--fill", base = "main" }, made)
    local log = sh "cat /tmp/gh"
    assert.matches("<pr>\n<create>\n<%-%-title=%-%-fill>\n<%-%-body%-file=%-?>?", log)
    assert.matches("<--head=work>", log, 1, true)
    assert.matches(("token=%s body=text\nmore\n"):format(TOKEN), log, 1, true)
    assert.are.equal("next", box.git:create_pr { title = "x", base = "next" }.base)
    made = box.git:create_pr { title = "twice", base = "main" }
    assert.are.equal(7, made.number)
    assert.matches("already exists", made.warning)
    local message = refusal(box.git.create_pr, { title = "never" })
    assert.matches("No commits between", message)
    assert.not_matches(TOKEN, message, 1, true)
    assert.are.same({ url = "https://github.com/o/r/issues/3", number = 3, title = "i" },
      box.git:create_issue { title = "i" })
    assert.matches("attach is not available", (refusal(box.git.create_issue, { title = "i", attach = { "a.png" } })))
  end)

  it("ends with its client", function()
    sh "mkdir -p r; cd r; git init -q; git config alias.slow '!sleep 70'"
    box:cd("r")
    assert.is_false(pcall(box.git.exec, box.git, { args = { "slow" }, timeout = 300 }))
    local function alive()
      return (sh "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"):find("sleep 70", 1, true)
    end
    lbox.timeout(5000, function()
      while alive() do
        lbox.sleep(100)
      end
    end)
  end)

  it("keeps the token to itself", function()
    local said = support.sh(("curl -s -H 'X-Box-Api-Key: %s' %s/v2/box/%s"):format(server.key, server.url, box.id))
    assert.matches(box.id, said, 1, true)
    assert.not_matches(TOKEN, said, 1, true)
    assert.is_false(pcall(Box.create, server:client { git = { token = "two words" } }))
  end)
end)
