local directory = require "spec.support.directory"
local fault = require "spec.support.fault"
local lbox = require "lbox"
local process = require "spec.support.process"

local ROUTES = [[
local function route(method, id, call, fn)
  routes[("%s /v2/box/%s/files/%s"):format(method, id, call)] = fn
end

-- A box whose tree is a table: a table is a folder, text a file, a function a file's answer.
local function tree(id, root)
  local function find(query)
    local path = query:match("[a-z]+=([^&]*)") or ""
    path = path:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
    local at, above = root, {}
    for part in path:gsub("^/workspace/home", ""):gmatch("[^/]+") do
      if part == ".." then
        at = table.remove(above)
      elseif part ~= "." then
        above[#above + 1] = at
        at = type(at) == "table" and at[part] or nil
      end
    end
    return at
  end
  route("GET", id, "list", function(reply, request)
    local folder = find(request.query)
    if type(folder) ~= "table" then
      return reply:json(404, { error = "no such folder" })
    end
    local files = {}
    for name, what in pairs(folder) do
      files[#files + 1] = { name = name, path = "/lies/" .. name, is_dir = type(what) == "table",
        size = type(what) == "string" and #what or 0 }
    end
    table.sort(files, function(a, b) return a.name < b.name end)
    reply:json(200, { files = files })
  end)
  route("GET", id, "stat", function(reply, request)
    local what = find(request.query)
    if not what then
      return reply:json(404, { error = "nothing there" })
    end
    reply:json(200, { type = type(what) == "table" and "directory" or "file", size = 1 })
  end)
  route("GET", id, "download", function(reply, request)
    local what = find(request.query)
    if type(what) == "string" then
      reply:text(200, what)
    elseif type(what) == "function" then
      what(reply, request)
    else
      reply:json(404, { error = "no such file" })
    end
  end)
end

tree("b", { ["a.bin"] = "\0\r\n\255", empty = "", ["sp ace ä"] = "x",
  sub = { inner = "inner", deep = { deeper = "deeper" }, nothing = {} } })
tree("plain", { a = "a" })
routes["GET /v2/box/plain/files/stat"] = nil

local function stall(reply)
  reply:raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin")
  reply:hold()
end
tree("stall", { a = "a", b = stall })

-- Answers that are cut after as many bytes as the first digits of the query's name say.
local function cut(framing)
  return function(reply, request)
    reply:cut_after(tonumber(request.query:match("(%d+)$")))
    local head = "HTTP/1.1 200 OK\r\n"
    if framing == "length" then
      reply:raw(head .. "Content-Length: 10\r\n\r\n0123456789")
    elseif framing == "chunked" then
      reply:raw(head .. "Transfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n")
    else
      reply:raw(head .. "Connection: close\r\n\r\n0123456789")
    end
    reply:cut()
  end
end
for _, framing in ipairs { "length", "chunked", "close" } do
  route("GET", framing, "download", cut(framing))
  route("GET", framing, "stat", function(reply) reply:json(200, { type = "file", size = 10 }) end)
end

-- Answers that are not the whole file, or not the file as it is.
local doubtful = {
  identity = "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhalf",
  lengthy = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nhalf",
  both = "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 400\r\n\r\nhalf",
  part = "HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\n\r\nhalf",
  gzip = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nhalf",
}
for id, text in pairs(doubtful) do
  route("GET", id, "stat", function(reply) reply:json(200, { type = "file", size = 8 }) end)
  route("GET", id, "download", function(reply) reply:raw(text) reply:cut() end)
end
route("GET", "escapes", "list", function(reply)
  reply:json(200, { files = { { name = "\27]0;x\7\nlbox: forged", is_dir = false, size = 1 } } })
end)

-- A slow tree: each file takes a while.
local slow = {}
for i = 1, 9 do
  slow["f" .. i] = function(reply)
    reply:sleep(100)
    reply:text(200, "content")
  end
end
tree("slow", slow)

-- Much, at once or drop by drop.
local MB = ("x"):rep(1024 * 1024)
local function much(reply)
  reply:raw("HTTP/1.1 200 OK\r\nContent-Length: " .. 200 * #MB .. "\r\n\r\n")
  for _ = 1, 200 do
    reply:raw(MB)
  end
end
local function drops(reply)
  reply:raw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
  for _ = 1, 1000 do
    reply:raw("x")
    reply:sleep(10)
  end
end
tree("much", { much = much, drops = drops, small = "x" })

-- Lists that lie.
local bad = { up = "../x", absolute = "/etc/x", within = "a/../../b", empty = "", dot = ".", dots = "..",
  nul = "a\0b", slash = "a/b" }
for id, name in pairs(bad) do
  for suffix, is_dir in pairs { ["-file"] = false, ["-folder"] = true } do
    route("GET", id .. suffix, "list", function(reply, request)
      reply:json(200, { files = request.count == 1 and { { name = name, is_dir = is_dir, size = 1 } } or {} })
    end)
    route("GET", id .. suffix, "download", function(reply) reply:text(200, "x") end)
  end
end
local lists = {
  twice = { { name = "a", is_dir = false }, { name = "a", is_dir = true } },
  nameless = { { is_dir = false } },
  number = { { name = 5, is_dir = false } },
  odd = { "a" },
}
for id, files in pairs(lists) do
  route("GET", id, "list", function(reply) reply:json(200, { files = files }) end)
end
route("GET", "loop", "list", function(reply) reply:json(200, { files = { { name = "d", is_dir = true } } }) end)
]]

local TREE = [[
./a.bin
./empty
./sp ace ä
./sub
./sub/deep
./sub/deep/deeper
./sub/inner
./sub/nothing
]]

describe("downloading", function()
  local server, box, place, target

  setup(function()
    server = fault.start(ROUTES)
    box = server:box("b")
    place = directory.new()
    target = place.path .. "/to"
  end)

  teardown(function()
    server:stop()
    place:remove()
  end)

  before_each(function()
    place:clear()
    box.cwd = "/workspace/home"
  end)

  local function fails(kind, id, opts)
    local files = server:box(id).files
    local err = fault.raised(files.download, files, opts)
    assert.are.equal(kind, err.kind, tostring(err))
    return err
  end

  --- Calls fn in the directory of the spec: what names no target goes there.
  local function child(id, arguments)
    local script = place:write("child.lua", ([[
      local box = require("lbox").Box.get(%q, { base_url = %q, api_key = "box_spec_0123456789" })
      %s
    ]]):format(id, server.url, arguments))
    local said = place:sh(("%s child.lua 2>&1"):format(rawget(_G, "jit") and "luajit" or "lua5.4"))
    os.remove(script)
    return said
  end

  it("fetches a folder with all that is in it, and says what it wrote", function()
    assert.are.same({ target .. "/a.bin", target .. "/empty", target .. "/sp ace ä",
      target .. "/sub/inner", target .. "/sub/deep/deeper" }, box.files:download { to = target .. "/" })
    assert.are.equal(TREE, place:sh("cd to && find . -mindepth 1 | LC_ALL=C sort"))
    assert.are.equal("\0\r\n\255", place:read("to/a.bin"))
    assert.are.equal("", place:read("to/empty"))
    assert.are.equal("deeper", place:read("to/sub/deep/deeper"))
  end)

  it("fetches only the files of the folder itself when it is told so", function()
    assert.are.same({ target .. "/sub/inner" },
      box.files:download { folder = "sub", to = target .. "/sub", recursive = false })
    assert.are.equal("./inner\n", place:sh("cd to/sub && find . -mindepth 1"))
  end)

  it("goes into a directory of the folder's name", function()
    local ask = "print(table.concat(box.files:download %s, ' '))"
    assert.are.equal("./sub/inner ./sub/deep/deeper\n", child("b", ask:format '{ folder = "sub/" }'))
    assert.are.equal("./workspace/a\n", child("plain", ask:format "{}"))
    assert.are.equal("./workspace/a\n", child("plain", ask:format '{ folder = "." }'))
    assert.are.equal("./deep/deeper\n", child("b", "box.cwd = '/workspace/home/sub/deep' " .. ask:format "()"))
    assert.are.equal("./sub/inner\n", child("b", "box.cwd = '/workspace/home/sub/deep' "
      .. ask:format '{ folder = "..", recursive = false }'))
  end)

  it("fetches one file, to a path or into a directory", function()
    assert.are.same({ target }, box.files:download { folder = "a.bin", to = target })
    assert.are.equal("\0\r\n\255", place:read("to"))
    assert.are.same({ target .. "/inner" }, (function()
      os.remove(target)
      return box.files:download { folder = "sub/inner", to = target .. "/" }
    end)())
    assert.are.same({ target .. "/a.bin" }, box.files:download { folder = "/workspace/home/a.bin", to = target })
    assert.are.same({ target .. "/x/y" }, box.files:download { folder = "a.bin", to = target .. "/x/y" })
    assert.are.equal("./a.bin\n", child("b", "print(box.files:download({ folder = 'a.bin' })[1])"))
    assert.are.equal("new\n", child("b", "print(box.files:download({ folder = 'a.bin', to = 'new' })[1])"))
    assert.are.equal("\0\r\n\255", place:read("new"))
  end)

  it("takes a folder for one when the server does not know stat", function()
    assert.are.same({ target .. "/a" }, server:box("plain").files:download { folder = "/workspace/home", to = target })
  end)

  it("raises for what is not there, with its name, and makes nothing", function()
    local err = fails("api", "b", { folder = "none", to = target })
    assert.are.equal(404, err.status_code)
    assert.are.equal("", place:list())
  end)

  it("gives files the mode of new files and replaces what was there", function()
    place:sh("mkdir to && echo old > to/empty && chmod 600 to/empty")
    box.files:download { folder = "empty", to = target }
    assert.are.equal("", place:read("to/empty"))
    assert.are.equal(place:sh("touch new && stat -c %a new"), place:sh("stat -c %a to/empty"))
    assert.are.equal("./empty\n", place:sh("cd to && find . -mindepth 1"))
  end)

  it("leaves no file of an answer that is cut, wherever that is", function()
    local whole = {
      length = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789",
      chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n",
      close = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n0123456789",
    }
    for framing, text in pairs(whole) do
      local files = server:box(framing).files
      place:sh("mkdir -p to && echo old > to/file")
      -- A GET is tried again after a pause; the deadline spares the test most of these.
      for n = 0, #text - 1 do
        local ok, err = pcall(files.download, files, { folder = tostring(n), to = target .. "/file", timeout = 25 })
        local last_crlf = framing == "chunked" and n == #text - 1
        assert.is_true(not ok or last_crlf, framing .. n)
        if not ok then
          assert.is_true(err.kind == "network" or err.kind == "timeout", tostring(err))
          assert.are.equal("old\n", place:read("to/file"))
        end
      end
      assert.are.equal("./file\n", place:sh("cd to && find . -mindepth 1"))
      files:download { folder = tostring(#text), to = target .. "/file" }
      assert.are.equal("0123456789", place:read("to/file"))
    end
  end)

  it("takes nothing for whole that nothing shows to be, and no part and no coding for the file", function()
    local kinds = { identity = "network", lengthy = "network", both = "network", part = "api", gzip = "api" }
    for id, kind in pairs(kinds) do
      fails(kind, id, { folder = "x", to = target .. "/file", timeout = 1000 })
      assert.are.equal("./to\n", place:list(), id)
    end
  end)

  it("shows a name with control characters as one line", function()
    local message = fails("api", "escapes", { to = target }).message
    assert.is_nil(message:find("%c"), message)
    assert.truthy(message:find("lbox: forged", 1, true), message)
  end)

  it("never writes outside of its target, whatever the server calls its files", function()
    local names = { up = "../x", absolute = "/etc/x", within = "a/../../b", empty = "", dot = ".", dots = "..",
      nul = "a\0b", slash = "a/b" }
    for id, name in pairs(names) do
      for _, suffix in ipairs { "-file", "-folder" } do
        local err = fails("api", id .. suffix, { to = target })
        assert.truthy(err.message:find(("%q"):format(name), 1, true), err.message)
        assert.are.equal("./to\n", place:list())
      end
    end
    assert.is_nil(io.open("/etc/x"))
  end)

  it("refuses lists that make no sense", function()
    assert.matches('"a" twice', fails("api", "twice", { to = target }).message)
    for _, id in ipairs { "nameless", "number", "odd" } do
      local message = fails("api", id, { to = target }).message
      assert.is_truthy(message:find("without a name") or message:find("not what a Box API answers"), message)
    end
    assert.are.equal("./to\n", place:list())
  end)

  it("ends in a tree without an end", function()
    assert.matches("more than 64 folders deep", fails("api", "loop", { to = target }).message)
    assert.is_true(#server:log("GET /v2/box/loop/files/list") <= 66)
  end)

  it("follows no symbolic link below its target", function()
    place:sh("mkdir to out && echo mine > out/a && ln -s ../out/a to/a.bin && ln -s ../out to/sub")
    local err = fails("usage", "b", { to = target })
    assert.matches("cannot write .*/to/sub: .*symbolic links are not followed", err.message)
    assert.are.equal("\0\r\n\255", place:read("to/a.bin"))
    assert.are.equal("./a\n", place:sh("cd out && find . -mindepth 1"))
    assert.are.equal("mine\n", place:read("out/a"))
  end)

  it("says what it cannot write", function()
    place:sh("mkdir -p to/a.bin && touch file")
    assert.matches("cannot write .*/to/a.bin: Is a directory", fails("usage", "b", { to = target }).message)
    -- Another file of the folder, fetched at the same time, may be there, whole.
    local there = place:sh("cd to && find . -mindepth 1 | sort")
    assert.is_true(there == "./a.bin\n" or there == "./a.bin\n./empty\n", there)
    assert.matches("file: Not a directory", fails("usage", "b", { to = place.path .. "/file" }).message)
    assert.matches("file/x: Not a directory", fails("usage", "b", { to = place.path .. "/file/x" }).message)
  end)

  it("has one deadline for all of its requests", function()
    local started = lbox.now()
    local err = fails("timeout", "slow", { to = target, timeout = 250 })
    assert.is_true(lbox.now() - started < 600)
    assert.matches("within 250 ms", err.message)
    local written = place:sh("cd to && find . -mindepth 1 | wc -l")
    assert.is_true(tonumber(written) >= 4 and tonumber(written) < 9, written)
    assert.are.equal("0\n", place:sh("cd to && find . -name '.*' -mindepth 1 | wc -l"))

    started = lbox.now()
    fails("timeout", "much", { folder = "drops", to = target, timeout = 200 })
    assert.is_true(lbox.now() - started < 600)
  end)

  it("leaves nothing of a file when it is cancelled", function()
    local fds = process.open_fds()
    local files = server:box("stall").files
    assert.are.equal("timeout", fault.raised(lbox.timeout, 200, files.download, files, { to = target }).kind)
    assert.are.equal("./to\n./to/a\n", place:list())
    assert.is_true(process.open_fds() <= fds)
  end)

  it("tells its progress, and ends with an error of that function", function()
    local calls = {}
    box.files:download { to = target, progress = function(received, path)
      calls[path:match("[^/]+$")] = received
    end }
    assert.are.same({ ["a.bin"] = 4, empty = 0, ["sp ace ä"] = 1, inner = 5, deeper = 6 }, calls)

    place:clear()
    local mine, last, n = { "mine" }, 0, 0
    local much = server:box("much").files
    local err = fault.raised(much.download, much, { folder = "much", to = target, progress = function(received)
      assert.is_true(received > last)
      last, n = received, n + 1
      if n == 2 then
        error(mine)
      end
    end })
    assert.are.equal(mine, err)
    assert.are.equal("", place:list())
  end)

  it("lets other tasks run", function()
    local turns = 0
    lbox.race(function()
      server:box("much").files:download { folder = "much", to = target }
    end, function()
      while true do
        lbox.sleep(1)
        turns = turns + 1
      end
    end)
    assert.is_true(turns > 3)
  end)

  it("checks its arguments before any request", function()
    local before = #server:log()
    for _, opts in ipairs { { folder = "" }, { to = " " }, { folder = 5 }, { recursive = "no" }, { progress = 1 },
      { too = "x" }, { timeout = -1 }, "sub" } do
      assert.are.equal("usage", fault.raised(box.files.download, box.files, opts).kind)
    end
    assert.are.equal(before, #server:log())
  end)

  it("holds no file in memory", function()
    local more = tonumber(child("much", ([[
      local function peak()
        return tonumber(io.open("/proc/self/status"):read("*a"):match("VmHWM:%%s+(%%d+)"))
      end
      box.files:download { folder = "small", to = %q }
      local before = peak()
      box.files:download { folder = "much", to = %q }
      print(peak() - before)
    ]]):format(target .. "/small", target .. "/much")))
    assert.are.equal(tostring(200 * 1024 * 1024) .. "\n", place:sh("stat -c %s to/much"))
    -- Under AddressSanitizer what is freed is kept for a while: 256 MiB of it.
    local kept = (os.getenv("LD_PRELOAD") or ""):find("libasan") and 300 or 0
    assert.is_true(more < (20 + kept) * 1024, more .. " KiB")
  end)
end)
