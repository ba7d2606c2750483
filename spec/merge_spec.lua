-- Many streams read as one.
local fault = require "spec.support.fault"
local lbox = require "lbox"

-- `fast` says five words at once, `slow` one every 40 ms, `broken` one and breaks, `silent` none.
local ROUTES = [[
local function begin(reply)
  reply:begin()
  reply:event("run_start", { run_id = "r1" })
end
routes["POST /v2/box/fast/run/stream"] = function(reply)
  begin(reply)
  for i = 1, 5 do reply:event("text", { text = "f" .. i }) end
  reply:event("done", {})
  reply:finish()
end
routes["POST /v2/box/slow/run/stream"] = function(reply)
  begin(reply)
  for i = 1, 5 do
    reply:event("text", { text = "s" .. i })
    reply:sleep(40)
  end
  reply:event("done", {})
  reply:finish()
end
routes["POST /v2/box/broken/run/stream"] = function(reply)
  begin(reply)
  reply:event("error", { error = "broken" })
  reply:finish()
end
routes["POST /v2/box/silent/run/stream"] = function(reply)
  begin(reply)
  reply:hold()
end
for _, id in ipairs { "fast", "slow", "broken", "silent" } do
  local data = { id = id, status = "idle", agent = "custom", model = "m" }
  routes["GET /v2/box/" .. id] = function(reply) reply:json(200, data) end
  routes["POST /v2/box/" .. id .. "/runs/r1/cancel"] = function(reply) reply:json(200, {}) end
end
]]

describe("merge", function()
  local server

  setup(function()
    server = fault.start(ROUTES)
  end)

  teardown(function()
    server:stop()
  end)

  local function open(id, opts)
    opts = opts or {}
    opts.prompt = "x"
    return server:box(id).agent:stream(opts)
  end

  local function words(streams)
    local said, order = {}, {}
    for name, chunk in lbox.merge(streams) do
      if chunk.type == "text-delta" then
        said[name] = (said[name] or "") .. chunk.text
        order[#order + 1] = name
      end
    end
    return said, order
  end

  it("gives every chunk of every stream, as they come, with its name", function()
    local slow = open("slow")
    local said, order = words { a = slow, b = open("fast"), c = open("slow") }
    assert.are.same({ a = "s1s2s3s4s5", b = "f1f2f3f4f5", c = "s1s2s3s4s5" }, said)
    assert.are.equal("completed", slow.status)
    -- The two slow ones take turns; all of the fast one is there before they end.
    local last = {}
    for i, name in ipairs(order) do
      last[name] = i
    end
    assert.is_true(last.b < last.a and last.b < last.c)
    assert.is_true(math.abs(last.a - last.c) <= 3)
  end)

  it("takes a list, or nothing", function()
    assert.are.same({ "f1f2f3f4f5", "f1f2f3f4f5" }, (words { open("fast"), open("fast") }))
    assert.are.same({}, (words {}))
  end)

  it("raises what ends one of them, and the runs of the others go on", function()
    local slow = open("slow")
    local err = fault.raised(words, { slow = slow, broken = open("broken") })
    assert.matches("broken", err.message)
    -- Lua 5.4 closes them with the loop, LuaJIT leaves that to us.
    assert.is_true(slow.status == "detached" or slow.status == "running", slow.status)
    assert.are.equal(0, #server:log("POST /v2/box/slow/runs/r1/cancel"))
    slow:close()
  end)

  it("keeps to the limits of each", function()
    local started = lbox.now()
    local err = fault.raised(words, { slow = open("slow"), silent = open("silent", { timeout = 80 }) })
    assert.are.equal("timeout", err.kind)
    assert.is_true(lbox.now() - started < 1000)
  end)

  it("cancels them all when the loop is left by an error", function()
    if _VERSION == "Lua 5.1" then
      return -- there a loop does not see how it is left
    end
    local first, second = open("slow"), open("slow")
    local ok = pcall(function()
      for _ in lbox.merge { first, second } do
        error("boom")
      end
    end)
    assert.is_false(ok)
    assert.are.same({ "cancelled", "cancelled" }, { first.status, second.status })
  end)

  it("cancels them all when the task that reads is cancelled", function()
    local first, second = open("silent"), open("silent")
    local err = fault.raised(lbox.timeout, 50, words, { first, second })
    assert.are.equal("timeout", err.kind)
    assert.are.equal("cancelled", first.status)
    assert.are.equal("cancelled", second.status)
  end)

  it("says what it takes", function()
    assert.matches("a table of streams", fault.raised(lbox.merge, 5).message)
    assert.matches("x is a string", fault.raised(lbox.merge, { x = "y" }).message)
  end)
end)
