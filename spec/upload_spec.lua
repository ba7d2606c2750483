local directory = require "spec.support.directory"
local fault = require "spec.support.fault"
local lbox = require "lbox"
local multipart = require "spec.support.multipart"
local process = require "spec.support.process"

local ROUTES = [[
local function fine(reply) reply:json(200, {}) end
for _, id in ipairs { "b", "slow", "unread" } do
  routes["POST /v2/box/" .. id .. "/files/upload"] = fine
end
routes["EARLY /v2/box/slow/files/upload"] = function(reply) reply:sleep(300) end
routes["EARLY /v2/box/unread/files/upload"] = function(reply) reply:sleep(20000) end
routes["EARLY /v2/box/full/files/upload"] = function(reply)
  reply:json(413, { error = "too much" })
  reply:sleep(100)
end
routes["POST /v2/box/busy/files/upload"] = function(reply, request)
  if request.count == 1 then
    reply:json(503, { error = "later" }, { ["Retry-After"] = "0" })
  else
    reply:json(200, {})
  end
end
routes["POST /v2/box/gone/files/upload"] = function(reply) reply:cut() end
]]

describe("uploading", function()
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

  local function uploads(id)
    return server:log(("POST /v2/box/%s/files/upload"):format(id))
  end

  local function large(mb)
    place:sh(("truncate -s %dM large"):format(mb))
    return { { path = place.path .. "/large", destination = "large" } }
  end

  it("sends files and where they go in pairs", function()
    box.cwd = "/workspace/home/sub"
    assert.is_nil(box.files:upload {
      { path = place:write("a.bin", "\0\r\n--\255"), destination = "data/ä \"1\".bin" },
      { path = place:write("empty", ""), destination = "/tmp/empty" },
    })
    local all = uploads("b")
    assert.are.same({
      { name = "paths", text = "/workspace/home/sub/data/ä \"1\".bin" },
      { name = "files", filename = "data/ä %221%22.bin", type = "application/octet-stream", text = "\0\r\n--\255" },
      { name = "paths", text = "/tmp/empty" },
      { name = "files", filename = "/tmp/empty", type = "application/octet-stream", text = "" },
    }, multipart(all[#all]))
  end)

  it("sends headers and fields of the user's", function()
    box.files:upload({ { path = place:write("a", "a"), destination = "a" } },
      { headers = { ["X-Mine"] = "1" }, extra = { mode = "0600", tags = { "x" } } })
    local all = uploads("b")
    assert.are.equal("1", all[#all].headers["x-mine"])
    local parts = multipart(all[#all])
    assert.are.same({ { name = "mode", text = "0600" }, { name = "tags", text = '["x"]' } }, { parts[1], parts[2] })
    assert.are.equal(4, #parts)
  end)

  it("checks its arguments before any request", function()
    local before = #server:log()
    local a = place:write("a", "a")
    local files = box.files
    for message, call in pairs {
      ["at least one"] = function() files:upload {} end,
      ['a table with the key "[pd]'] = function() files:upload { path = a, destination = "a" } end,
      ['unknown option "dest"'] = function() files:upload { { path = a, dest = "a" } } end,
      ["item 2 of box.files:upload needs the option \"path\""] = function()
        files:upload { { path = a, destination = "a" }, { destination = "b" } }
      end,
      ["destination must not be empty"] = function() files:upload { { path = a, destination = " " } } end,
      ["/none: No such file or directory"] = function()
        files:upload { { path = a, destination = "a" }, { path = place.path .. "/none", destination = "b" } }
      end,
      ["it is a directory"] = function() files:upload { { path = place.path, destination = "a" } } end,
      ["content%-type is set by lbox"] = function()
        files:upload({ { path = a, destination = "a" } }, { headers = { ["content-type"] = "text/plain" } })
      end,
      ["progress"] = function() files:upload({ { path = a, destination = "a" } }, { progress = 1 }) end,
    } do
      local err = fault.raised(call)
      assert.are.equal("usage", err.kind)
      assert.matches(message, err.message)
    end
    assert.are.equal(before, #server:log())
  end)

  it("tells its progress, from nothing to all of it", function()
    local calls = {}
    server:box("slow").files:upload(large(8), {
      progress = function(sent, total) calls[#calls + 1] = { sent, total } end,
    })
    local size = uploads("slow")[1].size
    assert.are.same({ 0, size }, calls[1])
    assert.are.same({ size, size }, calls[#calls])
    for i = 2, #calls do
      assert.is_true(calls[i][1] > calls[i - 1][1])
    end
  end)

  it("ends with an error of the progress function, which is raised as it is", function()
    local mine = { "mine" }
    local before = #uploads("b")
    local err = fault.raised(box.files.upload, box.files, large(20), { progress = function() error(mine) end })
    assert.are.equal(mine, err)
    assert.are.equal(before, #uploads("b"))
  end)

  it("never sends all of a file that shrinks or grows meanwhile", function()
    for _, size in ipairs { "1M", "+1M" } do
      local changed
      local before = #uploads("b")
      local err = fault.raised(box.files.upload, box.files, large(40), {
        progress = function(sent)
          if sent > 0 and not changed then
            changed = true
            place:sh("truncate -s " .. size .. " large")
          end
        end,
      })
      assert.are.equal("usage", err.kind)
      assert.matches("cannot send the file .*/large: it changed while it was sent", err.message)
      assert.is_false(err.retryable)
      assert.are.equal(before, #uploads("b"))
    end
  end)

  it("raises the answer that comes while it still sends", function()
    local err = fault.raised(function() server:box("full").files:upload(large(40)) end)
    assert.are.equal(413, err.status_code)
    assert.matches("too much", err.message)
  end)

  it("sends all of it again only when the server asks for that", function()
    server:box("busy").files:upload { { path = place:write("a", "content"), destination = "a" } }
    local all = uploads("busy")
    assert.are.equal(2, #all)
    assert.are.same(multipart(all[1]), multipart(all[2]))

    local err = fault.raised(function()
      server:box("gone").files:upload { { path = place:write("a", "content"), destination = "a" } }
    end)
    assert.are.equal("network", err.kind)
    assert.matches("it may have been carried out", err.message)
    assert.are.equal(1, #uploads("gone"))
  end)

  it("has a deadline, and can be cancelled, and leaves no descriptor then", function()
    local unread = server:box("unread").files
    local list = large(40)
    local fds = process.open_fds()
    local started = lbox.now()
    local err = fault.raised(unread.upload, unread, list, { timeout = 150, progress = function() end })
    assert.are.equal("timeout", err.kind)
    assert.are.equal("timeout", fault.raised(lbox.timeout, 150, unread.upload, unread, list).kind)
    assert.is_true(lbox.now() - started < 2000)
    assert.is_true(process.open_fds() <= fds)
  end)

  it("holds no file in memory", function()
    local list = large(200)
    local script = place:write("child.lua", [[
      local function peak()
        return tonumber(io.open("/proc/self/status"):read("*a"):match("VmHWM:%s+(%d+)"))
      end
      local box = require("lbox").Box.get("b", { base_url = arg[1], api_key = "box_spec_0123456789" })
      box.files:upload { { path = arg[3], destination = "small" } }
      local before = peak()
      box.files:upload { { path = arg[2], destination = "large" } }
      print(peak() - before)
    ]])
    local more = tonumber(process.output(("%s %s %s %s %s"):format(rawget(_G, "jit") and "luajit" or "lua5.4",
      script, server.url, list[1].path, place:write("small", "x"))))
    local all = uploads("b")
    assert.is_true(all[#all].size > 200 * 1024 * 1024)
    assert.is_true(more < 20 * 1024, more .. " KiB")
  end)
end)
