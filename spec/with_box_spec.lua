-- Boxes that end with the code that uses them, against a server that loses answers.
local fault = require "spec.support.fault"
local json = require "lbox.json"
local lbox = require "lbox"

-- What is created is kept; `name` of the create says what goes wrong.
local ROUTES = [[
local json = require "lbox.json"
local boxes = {}
routes["POST /v2/box"] = function(reply, request)
  local body = json.decode(request.body)
  if body.name == "refused" then
    return reply:json(402, { error = "no money" })
  end
  local box = { id = "box-" .. tostring(body.name), labels = body.labels, status = "idle" }
  boxes[box.id] = box
  if body.name == "blind" then
    boxes = { { id = "theirs", labels = { "x" } }, { id = 5 } }
    reply:cut()
  elseif body.name == "lost" then
    reply:cut()
  elseif body.name == "slow" then
    reply:hold()
  else
    reply:json(200, box)
  end
end
routes["GET /v2/box"] = function(reply, request)
  local found = json.array {}
  for _, box in pairs(boxes) do
    local blind = type(box.id) ~= "string" or box.id == "theirs"
    if blind or request.query:find(box.labels[#box.labels]:gsub(":", "%%3A"), 1, true) then
      found[#found + 1] = box
    end
  end
  reply:json(200, found)
end
routes["DELETE /v2/box"] = function(reply, request)
  for _, id in ipairs(json.decode(request.body).ids) do
    boxes[id] = nil
  end
  reply:json(200, {})
end
routes["DELETE /v2/box/box-kept"] = function(reply) reply:json(500, { error = "cannot" }) end
routes["DELETE /v2/box/box-gone"] = function(reply) reply:json(404, { error = "not found" }) end
routes["DELETE /v2/box/box-ok"] = function(reply)
  boxes["box-ok"] = nil
  reply:json(200, {})
end
routes["GET /left"] = function(reply)
  local names = {}
  for id in pairs(boxes) do names[#names + 1] = id end
  table.sort(names)
  reply:json(200, names)
end
]]

describe("with_box", function()
  local server, warned

  before_each(function()
    server, warned = fault.start(ROUTES), {}
    require("lbox.async").on_error(function(text) warned[#warned + 1] = text end)
  end)

  after_each(function()
    require("lbox.async").on_error(nil)
    server:stop()
  end)

  local function deletes()
    local n = 0
    for _, request in ipairs(server:log()) do
      n = n + (request.name:find("^DELETE") and 1 or 0)
    end
    return n
  end

  local function options(name, more)
    more = more or {}
    more.name = name
    return server:options(more)
  end

  it("gives the box to the function, and deletes it when that returned", function()
    local opts = options("ok", { labels = { "mine" } })
    local a, b, c = lbox.with_box(opts, function(box)
      assert.are.equal("box-ok", box.id)
      assert.are.equal(0, deletes())
      return 1, nil, 3
    end)
    assert.are.same({ 1, nil, 3 }, { a, b, c })
    assert.are.equal(1, deletes())
    local labels = json.decode(server:log("POST /v2/box")[1].body).labels
    assert.are.equal("mine", labels[1])
    assert.matches("^lbox:%w%w%w%w%w%w%w%w%w%w%w%w$", labels[2])
    assert.are.same({ "mine" }, opts.labels)
  end)

  it("deletes it when the function raised, unchanged, and when it was cancelled", function()
    local boom = { "boom" }
    local ok, err = pcall(lbox.with_box, options("ok"), function() error(boom) end)
    assert.is_false(ok)
    assert.are.equal(boom, err)
    assert.are.equal(1, deletes())
    local timed = fault.raised(lbox.timeout, 50, lbox.with_box, options("ok"), function() lbox.sleep(10000) end)
    assert.are.equal("timeout", timed.kind)
    assert.are.equal(2, deletes())
  end)

  it("waits for what the function started before it deletes", function()
    local ended_before
    lbox.with_box(options("ok"), function()
      lbox.spawn(function()
        lbox.sleep(30)
        ended_before = deletes() == 0
      end)
    end)
    assert.is_true(ended_before)
    assert.are.equal(1, deletes())
  end)

  it("finds and deletes a box whose create was not answered", function()
    local err = fault.raised(lbox.with_box, options("lost"), error)
    assert.are.equal("network", err.kind)
    assert.are.equal(1, #server:log("DELETE /v2/box"))
    assert.are.same({ "box-lost" }, json.decode(server:log("DELETE /v2/box")[1].body).ids)
    err = fault.raised(lbox.timeout, 100, lbox.with_box, options("slow"), error)
    assert.are.equal("timeout", err.kind)
    assert.are.same({ "box-slow" }, json.decode(server:log("DELETE /v2/box")[2].body).ids)
    assert.are.same({}, warned)
  end)

  it("deletes nothing of others when the server does not know the label", function()
    local err = fault.raised(lbox.with_box, options("blind"), error)
    assert.are.equal("network", err.kind)
    assert.are.equal(0, deletes())
    assert.matches("^a box with the label lbox:%w+ may be left; lbox gc looks for it$", warned[1])
  end)

  it("leaves the labels alone when there is no room for one more", function()
    local labels = { "1", "2", "3", "4", "5" }
    assert.are.equal("box-ok", lbox.with_box(options("ok", { labels = labels }), function(box) return box.id end))
    assert.are.same(labels, json.decode(server:log("POST /v2/box")[1].body).labels)
    assert.are.equal(1, deletes())
  end)

  it("deletes a box that was closed, and one that is deleted already", function()
    lbox.with_box(options("ok"), function(box) box:close() end)
    assert.are.equal(1, deletes())
    lbox.with_box(options("gone"), function(box) box:close() end)
    assert.are.equal(2, deletes())
  end)

  it("deletes nothing of others when the create was refused", function()
    local started = lbox.now()
    assert.are.equal(402, fault.raised(lbox.with_box, options("refused"), error).status_code)
    assert.are.equal(0, deletes())
    assert.is_true(lbox.now() - started < 2000)
  end)

  it("raises when the box cannot be deleted, and warns when there is an error already", function()
    assert.matches("cannot", fault.raised(lbox.with_box, options("kept"), function() end).message)
    assert.are.same({}, warned)
    local ok, err = pcall(lbox.with_box, options("kept"), function() error("first", 0) end)
    assert.is_false(ok)
    assert.are.equal("first", err)
    assert.matches("the box box%-kept is left, it could not be deleted", warned[1])
    assert.are.equal("fine", lbox.with_box(options("gone"), function() return "fine" end))
  end)

  it("says what it takes, and sends nothing then", function()
    for _, args in ipairs { { {}, nil }, { "x", print }, { options("ok", { nmae = "x" }), print },
      { options("ok", { labels = "x" }), print } } do
      assert.are.equal("usage", fault.raised(lbox.with_box, args[1], args[2]).kind)
    end
    assert.are.equal(0, #server:log())
  end)
end)
