local fault = require "spec.support.fault"
local lbox = require "lbox"
local process = require "spec.support.process"

local ROUTES = [[
local json = require "lbox.json"
local function cut_run(reply)
  reply:begin()
  reply:event("run_start", { run_id = "r1" })
  reply:event("text", { text = " so far " })
  reply:cut()
end
local function list(...)
  local entries = { ... }
  return function(reply, request)
    reply:json(200, { runs = { entries[math.min(request.count, #entries)] } })
  end
end
for _, id in ipairs { "completed", "failed", "cancelled", "running", "unlisted", "later", "stuck",
  "deaf" } do
  routes["POST /v2/box/" .. id .. "/run/stream"] = cut_run
end
routes["GET /v2/box/completed/runs"] = list { id = "r1", status = "completed",
  output = "\nall of it\n",
  input_tokens = 4, output_tokens = 5, cost_usd = 0.25, duration_ms = 1234 }
routes["GET /v2/box/failed/runs"] = list { id = "r1", status = "failed",
  error_message = "no memory" }
routes["GET /v2/box/cancelled/runs"] = list { id = "r1", status = "cancelled" }
routes["GET /v2/box/running/runs"] = list { id = "r1", status = "running" }
routes["GET /v2/box/stuck/runs"] = list { id = "r1", status = "running" }
routes["GET /v2/box/unlisted/runs"] = list { id = "other", status = "completed" }
routes["GET /v2/box/later/runs"] = list({ id = "r1", status = "running" },
  { id = "r1", status = "running" },
  { id = "r1", status = "completed", output = "in the end" })
routes["GET /v2/box/deaf/runs"] = function(reply) reply:hold() end
for _, id in ipairs { "running", "stuck", "later" } do
  routes["POST /v2/box/" .. id .. "/runs/r1/cancel"] = function(reply) reply:json(200, {}) end
end

routes["POST /v2/box/clean-end/run/stream"] = function(reply)
  reply:begin()
  reply:event("text", { text = "no end" })
  reply:finish()
end
routes["POST /v2/box/page/run/stream"] = function(reply) reply:text(200, "<html>") end
routes["POST /v2/box/cut-after-done/run/stream"] = function(reply)
  reply:begin()
  reply:event("run_start", { run_id = "r1" })
  reply:event("done", { output = "done" })
  reply:cut()
end
routes["POST /v2/box/anywhere/run/stream"] = function(reply, request)
  reply:cut_after(tonumber(request.body:match("%d+")))
  reply:begin()
  reply:event("run_start", { run_id = "r1" })
  reply:event("text", { text = "all" })
  reply:event("done", { output = "all of it" })
  reply:finish()
end
routes["GET /v2/box/anywhere/runs"] = list { id = "r1", status = "failed" }
routes["POST /v2/box/reset/run/stream"] = function(reply)
  reply:begin()
  reply:event("run_start", { run_id = "r1" })
  reply:event("text", { text = "so far" })
  reply:sleep(20)
  reply:reset()
end
routes["GET /v2/box/reset/runs"] = list { id = "r1", status = "failed" }
routes["POST /v2/box/twice/run/stream"] = function(reply)
  reply:begin()
  for i = 1, 2 do
    reply:event("run_start", { run_id = "r1" })
    reply:event("text", { text = "twice " })
    reply:event("done", { output = "said " .. i, input_tokens = i, total_cost_usd = i })
  end
  reply:finish()
end
routes["POST /v2/box/lingers/run/stream"] = function(reply)
  reply:begin()
  reply:event("run_start", { run_id = "r1" })
  reply:event("done", { output = "done" })
  reply:hold()
end
routes["POST /v2/box/fast/run/stream"] = function(reply)
  reply:begin()
  reply:event("run_start", { run_id = "r1" })
  reply:chunk(('event: text\ndata: {"text":"0123456789"}\n\n'):rep(1000))
  reply:event("done", {})
  reply:finish()
end
routes["POST /v2/box/ticks/run/stream"] = function(reply)
  reply:begin()
  reply:event("run_start", { run_id = "r1" })
  while reply:event("text", { text = "x" }) do
    reply:sleep(5)
  end
end
routes["POST /v2/box/ticks/runs/r1/cancel"] = function(reply) reply:json(200, {}) end
routes["POST /v2/box/bits/run/stream"] = function(reply)
  reply:begin()
  local text = 'event: run_start\ndata: {"run_id":"r1"}\n\nevent: text\ndata: {"text":"a"}\n\n'
    .. 'event: text\ndata: {"text":"é\\n"}\n\nevent: done\ndata: {}\n\n'
  for i = 1, #text do
    reply:chunk(text:sub(i, i))
    if i % 8 == 0 then
      reply:sleep(1)
    end
  end
  reply:finish()
end
]]

describe("a stream", function()
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

  local function read(stream)
    local chunks = {}
    for chunk in stream:chunks() do
      chunks[#chunks + 1] = chunk
    end
    return chunks
  end

  local function cancels(id)
    return #server:log(("POST /v2/box/%s/runs/r1/cancel"):format(id))
  end

  describe("that was cut", function()
    it("completes with what the server's list says when it completed there", function()
      local stream = open("completed")
      local chunks = read(stream)
      assert.are.same({ type = "finish", output = "\nall of it\n", session_id = "",
        usage = { input_tokens = 4, output_tokens = 5, cached_input_tokens = 0 } }, chunks[#chunks])
      assert.are.equal("completed", stream.status)
      assert.are.equal("all of it", stream.result)
      assert.are.equal(0.25, stream.cost.total_usd)
      assert.are.equal(1234, stream.cost.compute_ms)
    end)

    it("raises, with id and partial text, in every other case", function()
      local expected = {
        failed = { "failed", "the run failed: no memory" },
        cancelled = { "cancelled", "the run was cancelled" },
        running = { "detached", "the run goes on at the server" },
        unlisted = { "failed", "not in the server's list" },
      }
      for id, each in pairs(expected) do
        local stream = open(id)
        local err = fault.raised(read, stream)
        assert.are.equal("stream", err.kind, id)
        assert.matches(each[2], err.message)
        assert.are.equal("r1", err.run_id)
        assert.are.equal(id, err.box_id)
        assert.are.equal(" so far ", err.partial)
        assert.are.equal(each[1], stream.status)
        assert.are.equal("so far", stream.result)
        assert.are.equal(err, fault.raised(stream.next, stream))
      end
    end)

    it("raises after two seconds when the server cannot be asked", function()
      local started = lbox.now()
      local err = fault.raised(read, open("deaf"))
      assert.are.equal("stream", err.kind)
      assert.matches("could not be asked", err.message)
      assert.are.equal("timeout", err.cause.kind)
      assert.is_true(lbox.now() - started < 3000)
    end)

    it("keeps its deadline while the server is asked", function()
      local started = lbox.now()
      assert.are.equal("timeout", fault.raised(read, open("deaf", { timeout = 150 })).kind)
      assert.is_true(lbox.now() - started < 1500)
    end)

    it("is never completed without a run id, however cleanly it ended", function()
      for _, id in ipairs { "clean-end", "page" } do
        local stream = open(id)
        local err = fault.raised(read, stream)
        assert.are.equal("stream", err.kind)
        assert.is_nil(err.run_id)
        assert.are.equal("failed", stream.status)
      end
    end)

    it("is followed by agent:run until the run ends", function()
      local run = server:box("later").agent:run { prompt = "x" }
      assert.are.equal("completed", run.status)
      assert.are.equal("in the end", run.result)
      assert.are.equal(0, cancels("later"))
    end)

    it("is followed by agent:run no longer than its deadline", function()
      local err = fault.raised(function()
        server:box("stuck").agent:run { prompt = "x", timeout = 400 }
      end)
      assert.are.equal("timeout", err.kind)
      assert.are.equal("r1", err.run_id)
      assert.are.equal(1, cancels("stuck"))
    end)

    it("is followed by agent:run only as long as the list changes", function()
      local err = fault.raised(function()
        server:box("stuck", { timeout = 500 }).agent:run { prompt = "x" }
      end)
      assert.are.equal("stream", err.kind)
      assert.matches("goes on", err.message)
    end)

    it("has succeeded when only its last bytes after done are missing", function()
      local stream = open("cut-after-done")
      read(stream)
      assert.are.equal("completed", stream.status)
      assert.are.equal("done", stream.result)
    end)
  end)

  it("is a success only with its end, wherever it is cut", function()
    local completed, last_cut = 0, nil
    for n = 0, 330 do
      local ok, run = pcall(function() return server:box("anywhere").agent:run { prompt = tostring(n) } end)
      if ok then
        assert.are.equal("all of it", run.result)
        completed = completed + 1
      else
        assert.is_true(run.kind == "stream" or run.kind == "network", tostring(run))
        last_cut = n
      end
    end
    assert.is_true(last_cut > 150 and last_cut < 320, last_cut)
    assert.are.equal(330 - last_cut, completed)
  end)

  it("that is reset is no success", function()
    local err = fault.raised(function() server:box("reset").agent:run { prompt = "x" } end)
    assert.are.equal("stream", err.kind)
    assert.are.equal("so far", err.partial)
    assert.are.equal("r1", err.run_id)
  end)

  it("ends with the first end it is told, and costs what that says", function()
    local run = server:box("twice").agent:run { prompt = "x" }
    assert.are.equal("said 1", run.result)
    assert.are.equal(1, run.cost.total_usd)
    local kinds = {}
    for i, chunk in ipairs(read(open("twice"))) do
      kinds[i] = chunk.type
    end
    assert.are.same({ "start", "text-delta", "finish" }, { kinds[1], kinds[2], kinds[3] })
    for i = 4, #kinds do
      assert.are_not.equal("finish", kinds[i])
    end
  end)

  it("does not wait for ever for a connection that stays open after done", function()
    local started = lbox.now()
    local stream = open("lingers")
    assert.are.equal("finish", read(stream)[2].type)
    assert.are.equal("completed", stream.status)
    assert.is_true(lbox.now() - started < 4000)
  end)

  it("loses nothing when it comes byte by byte", function()
    local chunks = read(open("bits"))
    assert.are.same({ "start", "text-delta", "text-delta", "finish" }, {
      chunks[1].type, chunks[2].type, chunks[3].type, chunks[4].type })
    assert.are.equal("é\n", chunks[3].text)
  end)

  it("gives out what is here already without a wait each", function()
    local stream = open("fast")
    local waits = 0
    local wait_change = stream._transfer.wait_change
    function stream._transfer.wait_change(...)
      waits = waits + 1
      return wait_change(...)
    end
    assert.are.equal(1002, #read(stream))
    assert.is_true(waits < 50, waits)
    assert.are.equal(10000, #stream.result)
  end)

  it("lets other tasks run and is read in a task as outside", function()
    local ticks = 0
    lbox.run(function()
      local stream = open("ticks")
      local reader = lbox.spawn(function()
        for _ = 1, 10 do
          stream:next()
        end
        stream:close()
      end)
      lbox.spawn(function()
        while reader.status == "running" do
          lbox.sleep(2)
          ticks = ticks + 1
        end
      end)
    end)
    assert.is_true(ticks > 5, ticks)
  end)

  it("is detached by close: the run goes on, the partial text stays", function()
    local before = cancels("ticks")
    local stream = open("ticks")
    stream:next()
    stream:next()
    assert.is_nil(stream:close())
    assert.are.equal("detached", stream.status)
    assert.are.equal("x", stream.result)
    assert.are.equal("r1", stream.id)
    assert.is_nil(stream:next())
    stream:close()
    assert.are.equal(before, cancels("ticks"))
  end)

  it("is detached when the scope that opened it is left", function()
    local before = cancels("ticks")
    local stream
    lbox.scope(function()
      stream = open("ticks")
      stream:next()
    end)
    assert.are.equal("detached", stream.status)
    assert.are.equal(before, cancels("ticks"))
  end)

  it("is cancelled, also at the server, when that scope fails or is cancelled", function()
    local before = cancels("ticks")
    local stream
    pcall(lbox.scope, function()
      stream = open("ticks")
      stream:next()
      error("trouble")
    end)
    assert.are.equal("cancelled", stream.status)
    assert.are.equal(before + 1, cancels("ticks"))
    pcall(lbox.timeout, 60, function()
      stream = open("ticks")
      stream:next()
      lbox.sleep(5000)
    end)
    assert.are.equal("cancelled", stream.status)
    assert.are.equal(before + 2, cancels("ticks"))
  end)

  it("raises in its reader when another task cancels it", function()
    lbox.run(function()
      local stream = open("lingers")
      local reader = lbox.spawn(function()
        return pcall(read, stream)
      end)
      lbox.sleep(30)
      assert.is_false(stream:cancel()) -- the run is over, and this server knows no cancel of it
      assert.is_true((reader:await()))
      stream = open("ticks")
      reader = lbox.spawn(function()
        return pcall(read, stream)
      end)
      lbox.sleep(30)
      assert.is_true(stream:cancel())
      local ok, err = reader:await()
      assert.is_false(ok)
      assert.are.equal("cancelled", err.kind)
      assert.are.equal("r1", err.run_id)
      assert.are.equal("cancelled", stream.status)
    end)
  end)

  it("has one reader", function()
    lbox.run(function()
      local stream = open("lingers")
      stream:next()
      stream:next()
      local first = lbox.spawn(function() return stream:next() end)
      lbox.sleep(20)
      assert.matches("one reader", fault.raised(stream.next, stream).message)
      stream:close()
      assert.is_nil(first:await())
    end)
  end)

  it("leaves no descriptor behind, closed, failed or forgotten", function()
    local function round()
      open("ticks"):close()
      pcall(read, open("failed"))
      open("ticks"):next()
      collectgarbage()
      collectgarbage()
      lbox.sleep(20)
    end
    round()
    local before = process.open_fds()
    for _ = 1, 5 do
      round()
    end
    assert.is_true(process.open_fds() <= before + 1, process.open_fds() .. " > " .. before)
  end)

  if _VERSION == "Lua 5.4" then
    it("is detached by break, and cancelled by an error that leaves the loop", function()
      local before = cancels("ticks")
      local stream = open("ticks")
      for chunk in stream:chunks() do
        if chunk.type == "text-delta" then
          break
        end
      end
      assert.are.equal("detached", stream.status)
      assert.are.equal(before, cancels("ticks"))
      local function fail()
        stream = open("ticks")
        pcall(function()
          for _ in stream:chunks() do
            error("trouble")
          end
        end)
        assert.are.equal("cancelled", stream.status)
      end
      fail()
      lbox.run(fail)
      assert.are.equal(before + 2, cancels("ticks"))
    end)
  end
end)
