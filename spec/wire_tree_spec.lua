-- Random trees of tasks that create boxes and run agents, with random errors, cancels and time limits.
-- What the server is left with is what lbox says: nothing goes on that was cancelled, and no box is left
-- of a create that was.
local async = require "lbox.async"
local fault = require "spec.support.fault"
local http = require "lbox.http"
local json = require "lbox.json"
local lbox = require "lbox"
local left = require "spec.support.left"
local randoms = require "spec.support.random"

local CASES = 1000

-- A run is called as its prompt says, and ends after some events unless it is cancelled.
local ROUTES = [[
local json = require "lbox.json"
local running, boxes = {}, {}

local function pause(reply, request)
  reply:sleep(#request.body * 7 % 5)
end

routes["POST /v2/box"] = function(reply, request)
  local id = "new-" .. request.count
  boxes[id] = true
  routes["DELETE /v2/box/" .. id] = function(reply)
    boxes[id] = nil
    reply:json(200, {})
  end
  pause(reply, request)
  reply:json(200, { id = id, status = "idle" })
end
routes["POST /v2/box/b/run/stream"] = function(reply, request)
  local id = request.body:match("r%d+")
  running[id] = true
  routes["POST /v2/box/b/runs/" .. id .. "/cancel"] = function(reply)
    running[id] = nil
    reply:json(200, {})
  end
  pause(reply, request)
  reply:begin()
  pause(reply, request)
  reply:event("run_start", { run_id = id })
  for i = 1, 3 do
    reply:event("text", { text = tostring(i) })
    pause(reply, request)
  end
  if request.body:find("fails") then
    running[id] = nil
    reply:event("error", { error = "failed" })
  elseif request.body:find("stays") then
    return reply:hold()
  else
    running[id] = nil
    reply:event("done", { output = "123" })
  end
  reply:finish()
end
routes["GET /left"] = function(reply)
  local function names(set)
    local list = json.array {}
    for id in pairs(set) do
      list[#list + 1] = id
    end
    return list
  end
  reply:json(200, { running = names(running), boxes = names(boxes) })
  running, boxes = {}, {}
end
]]

describe("a random tree of tasks over the wire", function()
  local server, box, random
  local runs = 0
  local detached, created, problems, warned

  setup(function()
    server = fault.start(ROUTES)
    box = server:box("b")
    async.on_error(function(text) warned[#warned + 1] = text end)
  end)

  teardown(function()
    async.on_error(nil)
    server:stop()
  end)

  local function prompt()
    runs = runs + 1
    return "r" .. runs .. (" "):rep(random(4)) .. (({ "fails", "stays" })[random(8)] or "")
  end

  local function note_end(stream, id)
    if stream.status == "detached" then
      detached[id] = true
    elseif stream.status == "running" then
      problems[#problems + 1] = "a stream is running after its scope was left"
    end
  end

  local function open()
    local text, stream = prompt(), nil
    async.on_close(function() -- after the stream's own
      if stream then
        note_end(stream, text:match("r%d+"))
      end
    end)
    stream = box.agent:stream { prompt = text }
    return stream
  end

  local node

  local function body(depth)
    for _ = 1, random(3) do
      node(depth)
    end
  end

  local kinds = {
    function() box.agent:run { prompt = prompt(), timeout = random(2) == 1 and random(20) or 60 } end,
    function()
      local stream = open()
      for _ = 1, random(6) do
        if not stream:next() then
          break
        end
      end
      if random(3) == 1 then
        stream:close()
      end
    end,
    function() open():cancel() end,
    function() created[lbox.Box.create(server:options()).id] = true end,
    function() async.sleep(random(5)) end,
    function() error("random error", 0) end,
    function(depth) pcall(async.timeout, random(20), body, depth + 1) end,
    function(depth)
      pcall(async.map, { 1, 2, 3 }, function() body(depth + 1) end,
        { on_error = random(2) == 1 and "collect" or "cancel" })
    end,
    function(depth) pcall(async.race, function() body(depth + 1) end, function() body(depth + 1) end) end,
    function(depth) async.spawn(body, depth + 1) end,
    function()
      local one, two = open(), open()
      local n = 0
      for _ in lbox.merge { one, two } do
        n = n + 1
        if n == 5 then
          break
        end
      end
    end,
  }

  function node(depth)
    kinds[random(depth > 3 and 6 or #kinds)](depth)
  end

  local function left_at_server()
    local transfer = http.send { method = "GET", url = server.url .. "/left" }
    transfer:wait(function(req) return req:done() end)
    return assert(json.decode(transfer.req:body()))
  end

  local function one_case(case)
    random = randoms.new(case * 104729)
    detached, created, problems, warned = {}, {}, {}, {}
    pcall(async.run, async.timeout, 40 + random(40), body, 1)
    local at_server = left_at_server()
    for _, id in ipairs(at_server.running) do
      if not detached[id] then
        problems[#problems + 1] = "the run " .. id .. " goes on at the server"
      end
    end
    for _, id in ipairs(at_server.boxes) do
      if not created[id] then
        problems[#problems + 1] = "the box " .. id .. " is left at the server"
      end
    end
    assert.are.same({}, problems, "case " .. case)
    assert.are.same({}, warned, "case " .. case)
    assert.are.equal(0, async.pending())
    assert.is_true(async.idle(), "case " .. case .. " left a timer or something queued")
  end

  it(("leaves nothing behind in %d cases"):format(CASES), function()
    one_case(0)
    local references, descriptors = left.references(), left.descriptors()
    for case = 1, CASES do
      one_case(case)
    end
    assert.is_true(left.references() <= references)
    assert.is_true(left.descriptors() <= descriptors + 8, "descriptors: kept connections at most")
    async.close()
  end)
end)
