-- The CLIs of agents in boxes of a server that runs as an ordinary user.
local lbox = require "lbox"
local models = require "spec.support.model_server"
local shared = require "spec.support.agents"
local support = require "spec.support.local"
local Box = lbox.Box

local MODELS = { ["claude-code"] = "anthropic/claude-sonnet-4-5", codex = "openai/gpt-5.4",
  opencode = "openai/scripted" }

describe("with a server of an ordinary user's", function()
  local server, llm

  setup(function()
    llm = models.start()
    server = support.start_as_user {
      args = ("--agents %s --host-port %d"):format(os.getenv("LBOX_AGENTS"), llm:port()) }
  end)

  teardown(function()
    server:stop()
    llm:stop()
  end)

  for harness, model in pairs(MODELS) do
    it(harness .. " writes a file and runs a command", function()
      local box = Box.create(server:client { agent = { harness = harness, model = model, api_key = shared.KEY },
        env = shared.env_of(llm:port()) })
      llm:script { { write = "/workspace/home/hello.txt", content = "hello" }, { run = "id -un >who" },
        { text = "Done." } }
      local run = box.agent:run { prompt = "write, and look" }
      assert.are.equal("Done.", run.result)
      assert.are.equal("hello", box.files:read("hello.txt"))
      assert.are.equal("boxuser\n", box.files:read("who"))
      local owner = support.sh(("stat -c %%u %s/data/boxes/%s/root/workspace/home/who"):format(server.dir, box.id))
      assert.are.equal(support.sh("stat -c %u " .. server.dir .. "/data"), owner)
      assert.are_not.equal("0\n", owner)
    end)
  end
end)
