-- Servers repeat what they refuse; messages do not.
local fault = require "spec.support.fault"
local lbox = require "lbox"

-- Repeats a part of the request that is no more than a message holds.
local ROUTES = [[
local function echo(reply, request)
  local said = request.body .. " " .. (request.headers["x-mine"] or "")
  local at = said:find("hidden", 1, true) or 1
  reply:json(400, { error = "refused: " .. said:sub(math.max(at - 40, 1), at + 40) })
end
routes["POST /v2/box"] = echo
routes["POST /v2/box/b/run"] = echo
routes["POST /v2/box/b/run/stream"] = echo
routes["POST /v2/box/b/schedules"] = echo
routes["POST /v2/box/b/git/clone"] = echo
]]

describe("a server that repeats what it refuses", function()
  local server
  setup(function() server = fault.start(ROUTES) end)
  teardown(function() server:stop() end)

  local function create(opts)
    return function()
      opts.base_url, opts.api_key = server.url, "box_key"
      lbox.Box.create(opts)
    end
  end
  local function call(part, method, opts)
    return function()
      local of = server:box("b")[part]
      of[method](of, opts)
    end
  end

  local CASES = {
    ["arguments of an MCP server"] = create { mcp_servers = { { name = "m", package = "p",
      args = { "--key=hidden-1" } } } },
    ["headers of an MCP server"] = create { mcp_servers = { { name = "m", url = "https://e",
      headers = { A = "hidden-2" } } } },
    ["password of an MCP server's address"] = create { mcp_servers = { { name = "m",
      url = "https://me:hidden-3@e/" } } },
    ["field of `extra`"] = create { extra = { some_token = "hidden-4" } },
    ["header of the request"] = call("schedule", "exec", { cron = "* * * * *", command = "x",
      headers = { ["X-Mine"] = "hidden-5" } }),
    ["address of a webhook"] = call("agent", "run", { prompt = "x",
      webhook = { url = "https://e/services/hidden-6" } }),
    ["address of a schedule's webhook"] = call("schedule", "exec", { cron = "* * * * *", command = "x",
      webhook_url = "https://e/?k=hidden-7" }),
    ["password of a repository"] = call("git", "clone", { repo = "https://me:hidden-8@e/r.git" }),
    ["option of a harness"] = call("agent", "run", { prompt = "x", options = { provider = { api_key = "hidden-9" } } }),
  }
  for name, fn in pairs(CASES) do
    it("has no " .. name .. " in the message", function()
      local err = fault.raised(fn)
      assert.are.equal("api", err.kind, err.message)
      assert.matches("%[redacted%]", err.message)
      assert.not_matches("hidden", err.message)
    end)
  end

  it("still says what was refused", function()
    local err = fault.raised(create { name = "hidden-but-plain" })
    assert.matches("hidden%-but%-plain", err.message)
  end)
end)
