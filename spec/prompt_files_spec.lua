local directory = require "spec.support.directory"
local fault = require "spec.support.fault"
local json = require "lbox.json"
local multipart = require "spec.support.multipart"

local ROUTES = [[
routes["POST /v2/box/b/run/stream"] = function(reply)
  reply:begin()
  reply:event("run_start", { run_id = "run_1" })
  reply:event("done", { output = "{}" })
  reply:finish()
end
routes["POST /v2/box/again/run/stream"] = function(reply, request)
  reply:begin()
  reply:event("run_start", { run_id = "run_1" })
  reply:event(request.count == 1 and "error" or "done", { error = "once", output = "" })
  reply:finish()
end
]]

describe("files of a prompt", function()
  local server, box, place

  setup(function()
    server = fault.start(ROUTES)
    box = server:box("b")
    place = directory.new()
  end)

  teardown(function()
    server:stop()
    place:remove()
  end)

  before_each(function()
    place:clear()
    box.cwd = "/workspace/home"
  end)

  local function last(id)
    local log = server:log(("POST /v2/box/%s/run/stream"):format(id or "b"))
    return log[#log]
  end

  it("are sent from their paths, with the fields of the run as a form", function()
    box.cwd = "/workspace/home/sub"
    local run = box.agent:run {
      prompt = "näme\n\"it\"", files = { place:write("a.PNG", "\137PNG\r\n\0"), place:write("Makefile", "") },
      options = { max_turns = 3 }, response_schema = {}, extra = { flag = true, text = "plain" },
    }
    assert.are.equal("completed", run.status)
    local parts = multipart(last())
    local fields = {}
    for i = 1, #parts - 2 do
      fields[parts[i].name] = parts[i].text
    end
    assert.are.equal("object", json.decode(fields.json_schema).type)
    fields.json_schema = nil
    assert.are.same({ agent_options = '{"max_turns":3}', flag = "true", folder = "sub",
      prompt = "näme\n\"it\"", text = "plain" }, fields)
    assert.are.same(
      { name = "files", filename = "a.PNG", type = "image/png", text = "\137PNG\r\n\0" }, parts[#parts - 1])
    assert.are.same({ name = "files", filename = "Makefile", type = "application/octet-stream", text = "" },
      parts[#parts])
  end)

  it("have a type by their extension", function()
    local types = {
      png = "image/png", jpg = "image/jpeg", jpeg = "image/jpeg", gif = "image/gif", webp = "image/webp",
      svg = "image/svg+xml", pdf = "application/pdf", csv = "text/csv", txt = "text/plain",
      json = "application/json", xml = "application/xml", html = "text/html", md = "text/markdown",
      ts = "text/plain", js = "text/plain", py = "text/plain", bin = "application/octet-stream",
    }
    for extension, wanted in pairs(types) do
      box.agent:stream({ prompt = "x", files = { place:write("a.b." .. extension, "x") } }):close()
      local parts = multipart(last())
      assert.are.equal(wanted, parts[#parts].type)
    end
  end)

  it("are sent with the JSON when they are contents", function()
    local files = { { data = "AP8K", media_type = "image/png", filename = "x.png" },
      { data = "", media_type = "text/plain" } }
    box.agent:run { prompt = "x", files = files }
    assert.are.equal("application/json", last().headers["content-type"])
    assert.are.same({ prompt = "x", files = files }, json.decode(last().body))
  end)

  it("are none when the list is empty", function()
    box.agent:run { prompt = "x", files = {} }
    assert.are.same({ prompt = "x" }, json.decode(last().body))
  end)

  it("are read again when the run is started anew", function()
    server:box("again").agent:run { prompt = "x", files = { place:write("a.txt", "content") }, max_retries = 1 }
    local log = server:log("POST /v2/box/again/run/stream")
    assert.are.equal(2, #log)
    assert.are.same(multipart(log[1]), multipart(log[2]))
  end)

  it("are checked before any request", function()
    local before = #server:log()
    local a = place:write("a", "a")
    local inline = { data = "AP8K", media_type = "image/png" }
    for message, files in pairs {
      ["files%[2%] cannot be read: .*/none: No such file or directory"] = { a, place.path .. "/none" },
      ["it is a directory"] = { place.path },
      ["files%[2%] is a table, files%[1%] a string"] = { a, inline },
      ["files%[2%] is a string, files%[1%] a table"] = { inline, a },
      ["files%[1%] must be the path of a file, got \"\""] = { "" },
      ["files%[1%] needs the option \"media_type\""] = { { data = "x" } },
      ["files%[1%] takes a table"] = { 5 },
      ["unknown option \"type\""] = { { data = "x", media_type = "x", type = "x" } },
      ["with the key \"data\""] = { data = "AP8K" },
      ["must be a list of paths"] = { a, [3] = a },
    } do
      for _, call in ipairs { "run", "stream" } do
        local err = fault.raised(box.agent[call], box.agent, { prompt = "x", files = files })
        assert.are.equal("usage", err.kind)
        assert.matches(message, err.message)
      end
    end
    assert.are.equal(before, #server:log())
  end)
end)
