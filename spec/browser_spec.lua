local fault = require "spec.support.fault"
local lbox = require "lbox"
local raised = fault.raised

local ROUTES = [[
local at = "/v2/box/b1/browser/"
local function answer(name, value)
  routes[name:gsub(" ", " " .. at)] = function(reply) reply:json(200, value) end
end
answer("POST tabs", { id = "T1", url = "https://example.com" })
answer("GET tabs", { tabs = { { id = "T1", title = "Example" } } })
answer("DELETE tabs/T1", {})
answer("POST goto", { title = "New", url = "https://new", text = "hello", links = { { text = "a", href = "b" } } })
answer("GET content", { title = "New", url = "https://new", text = "hello" })
answer("GET screenshot", { data = "iVBORw==" })
answer("POST extract", { data = { price = 3 } })
answer("POST observe", { elements = { { description = "the button", selector = "#b", method = "click" } } })
answer("POST act", { success = true, message = "clicked", actions = {} })
answer("POST connect", { cdp_url = "wss://x?token=t" })
answer("POST screencast", { screencast_url = "https://live?token=t" })
answer("POST recordings", { id = "r1", status = "recording" })
answer("POST recordings/stop", { id = "r1", status = "completed" })
answer("GET recordings/r1", { id = "r1", status = "recording" })
answer("GET recordings/r2", { id = "r2", status = "completed" })
local VIDEO = ("frame"):rep(1000)
local function video(id, content_type)
  routes["GET " .. at .. "recordings/" .. id .. "/download"] = function(reply)
    reply:text(200, VIDEO, { ["Content-Type"] = content_type })
  end
end
video("r1", "video/mp4")
video("r2", "Video/MP2T; x=y")
video("page", "text/html")
routes["GET " .. at .. "recordings/cut/download"] = function(reply)
  reply:raw("HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: 5000\r\n\r\nframe")
  reply:cut()
end
routes["GET " .. at .. "recordings"] = function(reply, request)
  if request.query:find("cursor=c%202", 1, true) then
    reply:json(200, { recordings = { { id = "r2" } } })
  else
    reply:json(200, { recordings = { { id = "r1" } }, next_cursor = "c 2" })
  end
end
routes["GET /v2/box/endless/browser/recordings"] = function(reply)
  reply:json(200, { recordings = {}, next_cursor = "again" })
end
routes["GET /v2/box/bad/browser/screenshot"] = function(reply) reply:json(200, { data = "" }) end
routes["POST /v2/box/bad/browser/connect"] = function(reply) reply:json(200, {}) end
routes["POST /v2/box/bad/browser/extract"] = function(reply) reply:json(200, { data = { price = "x" } }) end
routes["POST /v2/box/slow/browser/tabs"] = function(reply) reply:hold() end
]]

describe("the browser", function()
  local server, browser

  setup(function()
    server = fault.start(ROUTES)
    browser = server:box("b1").browser
  end)

  teardown(function()
    server:stop()
  end)

  local function sent(name)
    local request = server:sent((name:gsub(" ", " /v2/box/b1/browser/")))
    return request.json, request.query
  end

  it("opens, lists and closes tabs", function()
    local tab = browser.tab:create("https://example.com", { wait_until = "load", timeout = 5000 })
    assert.are.same({ "T1", "https://example.com" }, { tab.id, tab.url })
    assert.are.same({ url = "https://example.com", wait_until = "load", timeout = 5000 }, (sent "POST tabs"))
    assert.are.equal("Example", browser:list_tabs()[1].title)
    assert.are.equal("T9", browser:get_tab("T9").id)
    tab:close()
    assert.are.equal(1, #server:log "DELETE /v2/box/b1/browser/tabs/T1")
  end)

  it("goes to pages and reads them", function()
    local tab = browser:get_tab "T1"
    assert.are.equal("hello", tab:open("https://new").text)
    assert.are.same({ url = "https://new", tab = "T1" }, (sent "POST goto"))
    assert.are.equal("New", tab.title)
    assert.are.equal("b", tab["goto"](tab, "https://new").links[1].href)
    assert.are.equal("hello", tab:content().text)
    assert.are.equal("tab=T1", select(2, sent "GET content"))
    assert.are.equal("\137PNG", tab:screenshot())
    assert.are.equal("iVBORw==", tab:screenshot { encoding = "base64", full_page = true })
    assert.are.equal("encoding=base64&tab=T1&full_page=true", select(2, sent "GET screenshot"))
  end)

  it("asks a model, or does again what it found", function()
    local tab = browser:get_tab "T1"
    assert.are.same({ price = 3 }, tab:extract("the price", { price = "integer" }, { model = "m" }))
    local extract = sent "POST extract"
    assert.are.same({ "the price", "T1", "m", "object" },
      { extract.instruction, extract.tab, extract.model, extract.schema.type })
    local action = tab:observe("the button")[1]
    assert.are.equal("clicked", tab:act(action).message)
    assert.are.same({ action = action, tab = "T1" }, (sent "POST act"))
    tab:act("press the button", { model = "m" })
    assert.are.same({ instruction = "press the button", tab = "T1", model = "m" }, (sent "POST act"))
    assert.are.equal("schema", raised(function()
      server:box("bad").browser:get_tab("T1"):extract("x", { price = "integer" })
    end).kind)
  end)

  it("can be watched and driven from elsewhere", function()
    assert.are.equal("wss://x?token=t", browser:cdp_url())
    assert.are.equal("https://live?token=t", browser:get_tab("T1"):live_view_url())
    assert.are.same({ tab = "T1" }, (sent "POST screencast"))
  end)

  it("is recorded", function()
    local handle = browser.recordings:start { max_duration_seconds = 60 }
    assert.are.same({ max_duration_seconds = 60 }, (sent "POST recordings"))
    assert.are.equal("completed", handle:stop().status)
    handle.id = "r2"
    assert.are.equal("r2", handle:stop().id)
    assert.are.equal(1, #server:log "POST /v2/box/b1/browser/recordings/stop")
    assert.are.equal("completed", browser.recordings:stop().status)
    assert.are.equal("r2", browser.recordings:get("r2").id)
    local all = browser.recordings:list()
    assert.are.same({ "r1", "r2" }, { all[1].id, all[2].id })
    assert.are.equal("limit=100&cursor=c%202", select(2, sent "GET recordings"))
  end)

  it("gives its recordings as files, whole or not at all", function()
    local directory = require("spec.support.directory").new()
    local path = browser.recordings:download("r1", { path = directory.path .. "/sub/a.mp4" })
    assert.are.equal(directory.path .. "/sub/a.mp4", path)
    assert.are.equal(("frame"):rep(1000), directory:read "sub/a.mp4")
    for _, id in ipairs { "cut", "page", "gone" } do
      local err = raised(function() browser.recordings:download(id, { path = directory.path .. "/sub/b.mp4" }) end)
      assert.are.equal(id == "cut" and "network" or "api", err.kind, tostring(err))
    end
    assert.are.equal("./sub\n./sub/a.mp4\n", directory:list())
    for _, wrong in ipairs { "/", directory.path, directory.path .. "/none/" } do
      local err = raised(function() browser.recordings:download("r1", { path = wrong }) end)
      assert.are.equal("usage", err.kind)
      assert.truthy(err.message:find(("got the directory %q"):format(wrong), 1, true), err.message)
    end
    path = browser.recordings:download "r2"
    assert.are.equal("./box-recording-r2.ts", path)
    assert.is_truthy(os.remove(path))
    directory:remove()
  end)

  it("is not believed what makes no sense", function()
    local bad = server:box("bad").browser
    assert.are.equal("api", raised(function() bad:cdp_url() end).kind)
    assert.are.equal("api", raised(function() bad:get_tab("T1"):screenshot() end).kind)
    assert.are.equal("api", raised(function() server:box("endless").browser.recordings:list() end).kind)
    assert.are.equal("timeout", raised(lbox.timeout, 300, function()
      server:box("slow").browser.tab:create("https://x", { timeout = 0 })
    end).kind)
  end)

  it("refuses what cannot be right, before any request", function()
    local tab = browser:get_tab "T1"
    for message, fn in pairs {
      ["the id of a tab must not be empty"] = function() browser:get_tab "" end,
      ["url must not be empty"] = function() tab:open "" end,
      ["tab:extract needs a schema"] = function() tab:extract "x" end,
      ["needs an action with a selector"] = function() tab:act { description = "x" } end,
      ['option encoding must be "bytes" or "base64"'] = function() tab:screenshot { encoding = "png" } end,
    } do
      local err = raised(fn)
      assert.are.equal("usage", err.kind)
      assert.is_truthy(err.message:find(message, 1, true), err.message)
    end
  end)
end)
