-- Git: clone a repository, let an agent change it, commit, push, open a pull request. Without arguments it works
-- on a small repository of its own, and shows what it would have pushed.
--
--     GITHUB_TOKEN=… UPSTASH_BOX_API_KEY=… build/lbox examples/git_pr.lua owner/name
--     build/lbox --local examples/git_pr.lua
local lbox = require "lbox"

local repo, token = arg[1], os.getenv "GITHUB_TOKEN"

local function commit(box, message)
  box.git:exec { args = { "add", "--all" } }
  return box.git:commit { message = message, author_name = "lbox", author_email = "lbox@example.com" }
end

lbox.with_box({ git = token and { token = token } }, function(box)
  if repo then
    box.git:clone { repo = repo, depth = 1, folder = "repo" }
  else
    box.exec:command "git init -q -b main repo && cd repo && echo '# A project' > README.md"
  end
  box:cd "repo"
  if not repo then
    commit(box, "Begin")
  end

  box.git:checkout { branch = "say-hello" }
  box.exec:command "echo 'Hello from a box.' >> README.md" -- an agent's work, or a command's
  print(box.git:status())
  print("committed " .. commit(box, "Say hello").sha:sub(1, 7))
  print(box.git:exec({ args = { "log", "--oneline" } }).output)

  if repo then
    box.git:push { branch = "say-hello" }
    local pr = box.git:create_pr { title = "Say hello", body = "Written in a box.", base = "main" }
    print(pr.url)
  end
end)
