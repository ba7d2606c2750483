-- Agent runs that nobody reads: a webhook is told how each ended, whatever happens meanwhile.
local json = require "lbox.json"
local lbox = require "lbox"
local receiver = require "spec.support.receiver"
local support = require "spec.support.local"
local Box = lbox.Box

describe("an agent run with a webhook", function()
  local server, box, hook

  local AGENT = [[
    while [ $# -gt 1 ]; do case $1 in -p) prompt=$2;; esac; shift; done
    case $prompt in slow*) sleep 60;; fail*) printf 'event: error\ndata: {"error":"no luck"}\n\n'; exit 0;; esac
    printf 'event: done\ndata: {"output":"did it","input_tokens":3}\n\n'
    [ -z "$(ls ~/.lbox 2>/dev/null)" ] || cat ~/.lbox/prompts/*/* >/workspace/home/got]]

  local function create()
    local made = Box.create(server:client {
      agent = { harness = "custom", custom_harness = { command = "sh", args = { "/home/boxuser/agent.sh" } } },
    })
    made.files:write { path = "/home/boxuser/agent.sh", content = AGENT }
    return made
  end

  setup(function()
    server = support.start()
    hook = receiver.start()
  end)

  before_each(function()
    hook.told, hook.statuses = {}, {}
    box = create()
  end)

  teardown(function()
    hook.listener:stop()
    server:stop()
  end)

  local function run(prompt, more)
    local opts = { prompt = prompt, webhook = { url = hook.url, headers = { ["X-Secret"] = "s3" } } }
    for name, value in pairs(more or {}) do
      opts[name] = value
    end
    return box.agent:run(opts)
  end

  --- Waits for the nth word to the webhook.
  local function told(n)
    lbox.timeout(10000, function()
      while not hook.told[n] do
        lbox.sleep(20)
      end
    end)
    return hook.told[n]
  end

  it("is accepted at once, and its end is told when it is recorded", function()
    local accepted = run("go")
    assert.are.equal("running", accepted.status)
    local word = told(1)
    assert.are.same({ box_id = box.id, run_id = accepted.id, status = "completed", output = "did it", metadata = {} },
      word.body)
    assert.are.equal("s3", word.key)
    assert.are.equal("application/json", word.type)
    accepted:wait()
    assert.are.equal("did it", accepted.result)
    local record = box:list_runs()[1]
    assert.are.same({ accepted.id, "completed", "did it", 3 },
      { record.id, record.status, record.output, record.input_tokens })
  end)

  it("is told as failed when it fails, is cancelled, or its box is deleted", function()
    run("fail")
    local body = told(1).body
    assert.are.same({ "failed", "no luck" }, { body.status, body.error })
    run("slow"):cancel()
    body = told(2).body
    assert.are.same({ "failed", "the run was cancelled" }, { body.status, body.error })
    run("slow again")
    box:delete()
    body = told(3).body
    assert.are.equal("failed", body.status)
    assert.is_string(body.error)
  end)

  it("is told again when that failed and may yet succeed", function()
    hook.statuses = { 503, 200 }
    run("go")
    told(2)
    assert.are.same(hook.told[1], hook.told[2])
    hook.told, hook.statuses = {}, { 400 }
    run("go")
    told(1)
    lbox.sleep(1500)
    assert.are.equal(1, #hook.told)
    assert.matches("the webhook at http://127.0.0.1:%d+ was not told: status 400", server:said())
  end)

  it("takes files", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write("from here")
    file:close()
    run("go", { files = { path } }):wait()
    os.remove(path)
    assert.are.equal("from here", box.files:read("got"))
  end)

  it("is told of by the next server when this one is killed", function()
    local accepted = run("slow")
    server:kill("KILL")
    server = support.start { dir = server.dir }
    box = Box.get(box.id, server:client())
    local body = told(1).body
    assert.are.same({ accepted.id, "failed", "the server stopped" }, { body.run_id, body.status, body.error })
    lbox.sleep(200)
    server:kill("KILL")
    server = support.start { dir = server.dir }
    lbox.sleep(300)
    assert.are.equal(1, #hook.told)
  end)

  it("is refused without a webhook that can be told, and not with others", function()
    local function answer(webhook)
      local status, text = server:ask("POST", "/v2/box/" .. box.id .. "/run",
        json.encode { prompt = "x", webhook = webhook })
      return ("%d: %s"):format(status, text)
    end
    assert.matches('^400: .*webhook.* must be { url, headers }', answer())
    assert.matches('^400: .*webhook.* must be { url, headers }', answer("http://127.0.0.1:1/"))
    assert.matches("^400: .*webhook%.url .*ftp:", answer { url = "ftp://x" })
    assert.matches("^400: .*webhook.headers: the value of A", answer { url = hook.url, headers = { A = "b\r\nC: d" } })
    for _, name in ipairs { "Content-Length", "transfer-encoding", "Host", "Connection", "Expect", "TE" } do
      assert.matches("webhook.headers: " .. name .. " is set by who sends the request",
        answer { url = hook.url, headers = { [name] = "3" } }, 1, true)
    end
    for _, url in ipairs { "http://a:99999", "https://a:65536/x", "http://[::1]:x", "http://u:p@a:0" } do
      assert.matches("^400: .*webhook%.url .* a port up to 65535", answer { url = url })
    end
    assert.are.same({}, box:list_runs())
    for _, url in ipairs { "http://127.0.0.1:1", "http://u:p@[::1]:65535/x?a:99999", "HTTPS://[::1]:" } do
      assert.matches("^2%d%d: ", answer { url = url })
    end
  end)
end)
