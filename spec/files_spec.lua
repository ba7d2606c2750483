local fault = require "spec.support.fault"
local json = require "lbox.json"

local ROUTES = [[
routes["GET /v2/box/b/files/read"] = function(reply, request)
  if request.query:find("missing", 1, true) then
    reply:json(404, { error = "missing: no such file" })
  elseif request.query:find("base64", 1, true) then
    reply:json(200, { content = "AP8K" })
  else
    reply:json(200, { content = "text\n" })
  end
end
routes["GET /v2/box/odd/files/read"] = function(reply) reply:json(200, {}) end
routes["GET /v2/box/garbled/files/read"] = function(reply) reply:json(200, { content = "*" }) end
routes["POST /v2/box/b/files/write"] = function(reply) reply:text(200, "whatever") end
routes["GET /v2/box/b/files/list"] = function(reply)
  reply:text(200, '{"files":[{"name":"a","path":"/a","size":1,"is_dir":false,"mod_time":null,'
    .. '"mode":"x"}]}')
end
routes["GET /v2/box/b/files/stat"] = function(reply, request)
  if request.query:find("missing", 1, true) then
    reply:json(404, { error = "nothing there" })
  else
    reply:text(200, '{"type":"symlink","size":3,"mod_time":"2026-01-01T00:00:00Z","inode":7,"version":null}')
  end
end
routes["GET /v2/box/odd/files/stat"] = function(reply) reply:json(200, {}) end
for _, name in ipairs { "mkdir", "rename", "remove" } do
  routes["POST /v2/box/b/files/" .. name] = function(reply) reply:json(200, { message = "done" }) end
end
routes["GET /v2/box/empty/files/list"] = function(reply) reply:text(200, '{"files":null}') end
]]

describe("files", function()
  local server, box

  setup(function()
    server = fault.start(ROUTES)
    box = server:box("b")
  end)

  teardown(function()
    server:stop()
  end)

  before_each(function()
    box.cwd = "/workspace/home"
  end)

  local function query(name)
    local log = server:log(name)
    return log[#log].query
  end

  local function written()
    local log = server:log("POST /v2/box/b/files/write")
    return json.decode(log[#log].body)
  end

  it("reads text, bytes and base64", function()
    assert.are.equal("text\n", box.files:read("a b.txt"))
    assert.are.equal("path=%2Fworkspace%2Fhome%2Fa%20b.txt", query("GET /v2/box/b/files/read"))
    assert.are.equal("\0\255\n", box.files:read("/abs", { binary = true }))
    assert.are.equal("path=%2Fabs&encoding=base64", query("GET /v2/box/b/files/read"))
    assert.are.equal("AP8K", box.files:read("x", { encoding = "base64" }))
  end)

  it("reads a part", function()
    box.files:read("x", { offset = 10, length = 0 })
    assert.matches("&offset=10&length=0$", query("GET /v2/box/b/files/read"))
    box.files:read("x", { length = 5 })
    assert.matches("&offset=0&length=5$", query("GET /v2/box/b/files/read"))
    assert.matches("offset needs length", fault.raised(box.files.read, box.files, "x",
      { offset = 1 }).message)
    assert.are.equal("usage", fault.raised(box.files.read, box.files, "x", { length = 0.5 }).kind)
    assert.are.equal("usage", fault.raised(box.files.read, box.files, "x", { length = -1 }).kind)
  end)

  it("starts relative paths at the box's directory, without normalising", function()
    box.cwd = "/tmp/d"
    box.files:read("../x")
    assert.are.equal("path=%2Ftmp%2Fd%2F..%2Fx", query("GET /v2/box/b/files/read"))
    box.cwd = "/"
    box.files:read("x")
    assert.are.equal("path=%2Fx", query("GET /v2/box/b/files/read"))
  end)

  it("raises what the server says of a file that is not there", function()
    local err = fault.raised(box.files.read, box.files, "missing")
    assert.are.equal(404, err.status_code)
    assert.are.equal("b", err.box_id)
  end)

  it("takes no answer without content for a file", function()
    for _, id in ipairs { "odd", "garbled" } do
      local files = server:box(id).files
      assert.are.equal("api", fault.raised(files.read, files, "x", { binary = true }).kind)
    end
  end)

  it("writes text and bytes", function()
    assert.is_nil(box.files:write { path = "a/b", content = "ä\n" })
    assert.are.same({ path = "/workspace/home/a/b", content = "ä\n" }, written())
    box.files:write { path = "/b", content = "\0\255\n", binary = true }
    assert.are.same({ path = "/b", content = "AP8K", encoding = "base64" }, written())
    box.files:write { path = "/b", content = "", encoding = "base64" }
    assert.are.same({ path = "/b", content = "", encoding = "base64" }, written())
  end)

  it("refuses text that is none, and says what to do", function()
    local before = #server:log()
    local err = fault.raised(box.files.write, box.files, { path = "x", content = "\255" })
    assert.are.equal("lbox: usage: content is not UTF-8 text: pass binary = true", tostring(err))
    assert.are.equal(before, #server:log())
  end)

  it("checks its arguments before any request", function()
    local before = #server:log()
    local files = box.files
    for _, call in ipairs {
      function() files:read("") end,
      function() files:read() end,
      function() files:read("a\0b") end,
      function() files:read("x", { binary = true, encoding = "base64" }) end,
      function() files:write { path = "x" } end,
      function() files:write { content = "x" } end,
      function() files:write { path = " ", content = "x" } end,
      function() files:write { path = "x", content = 5 } end,
      function() files:write { path = "x", content = "", binary = true, encoding = "base64" } end,
      function() files:write { path = "x", contnt = "x" } end,
      function() files:write("x") end,
      function() files:list("") end,
    } do
      assert.are.equal("usage", fault.raised(call).kind)
    end
    assert.are.equal(before, #server:log())
  end)

  it("lists a directory, and [] for an empty one", function()
    assert.are.same({ { name = "a", path = "/a", size = 1, is_dir = false, mode = "x" } },
      box.files:list())
    assert.are.equal("", query("GET /v2/box/b/files/list"))
    box.files:list("sub")
    assert.are.equal("folder=%2Fworkspace%2Fhome%2Fsub", query("GET /v2/box/b/files/list"))
    box.cwd = "/workspace/home/x"
    box.files:list()
    assert.are.equal("folder=x", query("GET /v2/box/b/files/list"))
    assert.are.same({}, server:box("empty").files:list())
  end)

  local function sent(name)
    local log = server:log("POST /v2/box/b/files/" .. name)
    return json.decode(log[#log].body)
  end

  it("says what is at a path", function()
    assert.are.same({ type = "symlink", size = 3, mod_time = "2026-01-01T00:00:00Z", inode = 7 },
      box.files:stat("a"))
    assert.are.equal("path=%2Fworkspace%2Fhome%2Fa", query("GET /v2/box/b/files/stat"))
    box.files:stat("/a", { follow = true })
    assert.are.equal("path=%2Fa&follow=true", query("GET /v2/box/b/files/stat"))
    assert.are.equal(404, fault.raised(box.files.stat, box.files, "missing").status_code)
    local odd = server:box("odd").files
    assert.are.equal("api", fault.raised(odd.stat, odd, "a").kind)
  end)

  it("makes directories, renames and removes", function()
    box.cwd = "/tmp"
    assert.is_nil(box.files:mkdir("a/b"))
    assert.are.same({ path = "/tmp/a/b", parents = false }, sent "mkdir")
    box.files:mkdir("/a/b", { parents = true, extra = { mode = "700" } })
    assert.are.same({ path = "/a/b", parents = true, mode = "700" }, sent "mkdir")
    assert.is_nil(box.files:rename("a", "/b"))
    assert.are.same({ from = "/tmp/a", to = "/b" }, sent "rename")
    assert.is_nil(box.files:remove("a"))
    assert.are.same({ path = "/tmp/a", recursive = false }, sent "remove")
    box.files:remove("a", { recursive = true })
    assert.are.same({ path = "/tmp/a", recursive = true }, sent "remove")
  end)

  it("checks the arguments of these too", function()
    local before = #server:log()
    local files = box.files
    for _, call in ipairs {
      function() files:stat("") end,
      function() files:stat("a", { folow = true }) end,
      function() files:mkdir() end,
      function() files:mkdir("a", { parents = "yes" }) end,
      function() files:rename("a") end,
      function() files:rename(" ", "a") end,
      function() files:remove("") end,
      function() files:remove("a", { recursive = 1 }) end,
      function() files.remove("a") end,
    } do
      assert.are.equal("usage", fault.raised(call).kind)
    end
    assert.are.equal(before, #server:log())
  end)
end)
