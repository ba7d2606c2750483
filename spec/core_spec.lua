-- The C module by itself: what the Lua files above it are built on.
local core = require "lbox.core"
local process = require "spec.support.process"

local function read_file(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

local function all_bytes()
  local bytes = {}
  for i = 0, 255 do
    bytes[#bytes + 1] = string.char(i)
  end
  return table.concat(bytes)
end

describe("the core module", function()
  it("says what it is", function()
    local header = read_file("include/lbox/lbox.h")
    assert.equal(header:match('LBOX_VERSION "([^"]+)"'), core.version)
    assert.equal(rawget(_G, "jit") and "luajit" or "lua5.4", core.abi)
    assert.truthy(core.curl:match("^%d+%.%d+%.%d+"))
  end)

  it("has a clock that never goes back", function()
    local last = core.now()
    for _ = 1, 1000 do
      local now = core.now()
      assert.is_true(now >= last)
      last = now
    end
  end)

  it("makes random bytes and UUIDs", function()
    assert.equal("", core.random(0))
    assert.equal(32, #core.random(32))
    assert.not_equal(core.random(16), core.random(16))
    assert.has_error(function() core.random(-1) end)
    assert.truthy(core.uuid():match("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x+$"))
    assert.equal(36, #core.uuid())
    assert.not_equal(core.uuid(), core.uuid())
  end)

  it("encodes and decodes base64", function()
    assert.equal("", core.base64_encode(""))
    assert.equal("aGk=", core.base64_encode("hi"))
    assert.equal("hi", core.base64_decode("aGk="))
    assert.equal("hi", core.base64_decode("aG\nk=\n"))
    assert.equal(all_bytes(), core.base64_decode(core.base64_encode(all_bytes())))
    assert.is_nil(core.base64_decode("aGk"))
    assert.is_nil(core.base64_decode("a!k="))
  end)

  it("knows UTF-8", function()
    for _, text in ipairs {
      "", "plain", "gr\195\188\195\159", "\226\130\172", "\240\159\152\128", "\0",
    } do
      assert.is_true(core.is_utf8(text))
    end
    for _, bytes in ipairs {
      "\255", "\195", "\192\128", "\237\160\128", "\244\144\128\128", "a\128",
    } do
      assert.is_false(core.is_utf8(bytes))
    end
  end)

  it("makes UTF-8 of anything", function()
    local text = "gr\195\188\195\159 \226\130\172"
    assert.equal(text, core.utf8_repair(text))
    assert.equal("a\239\191\189b\239\191\189\239\191\189", core.utf8_repair("a\255b\226\130"))
    assert.equal(#text + 256 * 3 - 128 * 2, #core.utf8_repair(text .. all_bytes()))
    assert.is_true(core.is_utf8(core.utf8_repair(all_bytes():rep(100))))
  end)
end)

-- Every event a parser gives, as "name=bytes".
local function drain(parser, said)
  local name, bytes = parser:next()
  while name do
    said[#said + 1] = name .. "=" .. bytes
    name, bytes = parser:next()
  end
  return said
end

describe("a parser", function()
  it("gives the events of an agent stream", function()
    local parser = core.sse_parser()
    assert.is_true(parser:feed('event: text\ndata: {"text":"a"}\n\n'))
    assert.is_true(parser:feed("event: unheard of\ndata: 7\n\nevent: do"))
    assert.same({ 'text={"text":"a"}', "unheard of=7" }, drain(parser, {}))
    parser:feed("ne\ndata: {}")
    assert.is_nil(parser:next())
    parser:finish()
    assert.same({ "done={}" }, drain(parser, {}))
  end)

  it("gives output and exit of a command", function()
    local parser = core.exec_parser()
    local said = {}
    for byte in ('one\nevent: exit\ndata: {"exit_code":0}\n\n'):gmatch(".") do
      parser:feed(byte)
      drain(parser, said)
    end
    assert.same({ "output=o", "output=n", "output=e\n" }, said) -- the e might have been a tail
    parser:finish()
    assert.same({ 'exit={"exit_code":0}' }, drain(parser, {}))
  end)

  it("tells an error from an exit", function()
    local parser = core.exec_parser()
    parser:feed('event: error\ndata: {"error":"no"}\n\n')
    parser:finish()
    assert.same({ 'error={"error":"no"}' }, drain(parser, {}))
  end)

  it("keeps every byte of the data", function()
    local bytes = all_bytes():gsub("[\r\n\27]", "")
    local parser = core.sse_parser()
    parser:feed("event: text\ndata: " .. bytes .. "\n\n")
    assert.same({ "text=" .. bytes }, drain(parser, {}))
  end)

  it("cuts a name that no server sends", function()
    local parser = core.sse_parser()
    parser:feed("event: " .. ("n"):rep(1000) .. "\ndata: 1\n\n")
    assert.same({ ("n"):rep(128) .. "=1" }, drain(parser, {}))
  end)

  it("holds no more than its maximum", function()
    local parser = core.sse_parser(100)
    assert.is_true(parser:feed(("x"):rep(100)))
    assert.is_false(parser:feed("y"))
    assert.has_error(function() core.sse_parser(0) end)
  end)

  it("takes nothing after its end, and no more than 64 MiB unread", function()
    local parser = core.exec_parser()
    assert.is_true(parser:feed(("x"):rep(1024 * 1024)))
    assert.is_false(parser:feed(("x"):rep(64 * 1024 * 1024)))
    parser:finish()
    assert.has_error(function() parser:feed("x") end, "lbox.core: the parser is finished")
  end)

  it("is safe from finalizers that feed it while it hands out an event", function()
    local parser = core.sse_parser()
    local more = "event: text\ndata: " .. ("y"):rep(3000) .. "\n\n"
    local left, wrong, seen = 300, 0, 0
    collectgarbage("setpause", 0)
    for i = 1, 2000 do
      local proxy = rawget(_G, "newproxy") and newproxy(true) -- luacheck: ignore newproxy
      local finalizer = { __gc = function()
        if left > 0 then
          left = left - 1
          parser:feed(more)
        end
      end }
      if proxy then
        getmetatable(proxy).__gc = finalizer.__gc
      else
        setmetatable({}, finalizer)
      end
      parser:feed(("event: name%d\ndata: %s\n\n"):format(i, ("z"):rep(2 * i)))
      local name, bytes = parser:next()
      while name do
        seen = seen + 1
        local n = name:match("^name(%d+)$")
        if bytes ~= (n and ("z"):rep(2 * tonumber(n)) or ("y"):rep(3000)) then
          wrong = wrong + 1
        end
        name, bytes = parser:next()
      end
    end
    collectgarbage("setpause", 200)
    assert.equal(0, wrong)
    assert.is_true(seen >= 2000)
  end)

  it("is of its own type", function()
    local parser, engine = core.sse_parser(), core.engine()
    assert.has_error(function() parser.next(engine) end)
    assert.has_error(function() parser.next(nil) end)
    assert.has_error(function() parser.feed(parser) end)
    engine:close()
  end)
end)

-- Whether a descriptor is readable, as another event loop would see it.
local function readable(fd)
  local outer = core.engine()
  local watch = outer:watch(fd)
  watch:arm("r")
  local is = outer:step(0)
  watch:close()
  outer:close()
  return is
end

describe("the engine", function()
  local engine

  before_each(function()
    engine = core.engine()
  end)

  after_each(function()
    engine:close()
  end)

  it("is idle at first", function()
    assert.is_nil(engine:timeout())
    assert.is_false(engine:step(0))
    assert.is_nil(engine:ready())
    assert.is_false(readable(engine:pollfd()))
  end)

  it("shows a host that there is something to run", function()
    engine:wake(true)
    assert.equal(0, engine:timeout())
    assert.is_true(readable(engine:pollfd()))
    local before = core.now()
    engine:step(10000)
    assert.is_true(core.now() - before < 5000)
    engine:wake(false)
    assert.is_nil(engine:timeout())
    assert.is_false(readable(engine:pollfd()))
  end)

  it("wakes at the deadline", function()
    local at = core.now() + 30
    engine:deadline(at)
    assert.is_true(engine:timeout() > 0 and engine:timeout() <= 31)
    engine:step()
    assert.is_true(core.now() >= at)
    assert.is_nil(engine:timeout())
  end)

  it("shows a host the deadline on its descriptor", function()
    local fd, outer = engine:pollfd(), core.engine()
    local watch = outer:watch(fd)
    engine:deadline(core.now() + 20)
    watch:arm("r")
    assert.is_true(outer:step(10000))
    outer:close()
  end)

  it("forgets a deadline", function()
    engine:deadline(core.now() + 5)
    engine:deadline(nil)
    assert.is_nil(engine:timeout())
    for _, never in ipairs { -1, 1 / 0, -1 / 0, 0 / 0, 1e300 } do
      engine:deadline(never)
      assert.is_nil(engine:timeout())
    end
  end)

  it("waits no longer than asked", function()
    local before = core.now()
    assert.is_false(engine:step(20))
    local took = core.now() - before
    assert.is_true(took >= 19 and took < 5000)
    assert.is_false(engine:step(0.001))
  end)

  it("refuses everything once closed", function()
    engine:close()
    engine:close()
    for _, name in ipairs { "pollfd", "timeout", "step", "ready", "deadline", "wake" } do
      assert.has_error(function() engine[name](engine) end, "lbox.core: the engine is closed")
    end
    assert.has_error(function() engine:request { method = "GET", url = "http://127.0.0.1/" } end,
      "lbox.core: the engine is closed")
  end)

  it("leaves no descriptor behind", function()
    collectgarbage()
    local before = process.open_fds()
    for i = 1, 20 do
      local e = core.engine()
      e:watch(e:pollfd())
      if i % 2 == 0 then
        e:close()
      end
    end
    collectgarbage()
    collectgarbage()
    assert.equal(before, process.open_fds())
  end)
end)

describe("a watch", function()
  local engine, path, file, fd, watch

  before_each(function()
    engine = core.engine()
    path = os.tmpname()
    os.execute(("rm -f %s && mkfifo %s"):format(path, path))
    file = assert(io.open(path, "r+")) -- both ends of the pipe
    file:setvbuf("no")
    fd = process.fd_of(path)
    watch = engine:watch(fd)
  end)

  after_each(function()
    watch:close()
    engine:close()
    file:close()
    os.remove(path)
  end)

  it("says when a descriptor can be written", function()
    watch:arm("rw")
    assert.is_true(engine:step(0))
    assert.equal(watch:id(), engine:ready())
    assert.equal("w", watch:events())
    assert.is_nil(watch:events())
  end)

  it("says when a descriptor can be read, once per arming", function()
    watch:arm("r")
    assert.is_false(engine:step(0))
    file:write("x")
    assert.is_true(engine:step(1000))
    assert.equal(watch:id(), engine:ready())
    assert.equal("r", watch:events())
    assert.is_false(engine:step(0))
    watch:arm("r")
    assert.is_true(engine:step(0))
  end)

  it("says at once that a plain file never makes one wait", function()
    local name = os.tmpname()
    local plain = assert(io.open(name, "r"))
    local other = engine:watch(process.fd_of(name))
    other:arm("r")
    assert.is_true(engine:step(0))
    assert.equal(other:id(), engine:ready())
    assert.equal("r", other:events())
    other:close()
    plain:close()
    os.remove(name)
  end)

  it("is not heard of once closed", function()
    watch:arm("w")
    engine:step(0)
    watch:close()
    watch:close()
    assert.is_nil(engine:ready())
    assert.is_number(watch:id())
    assert.has_error(function() watch:arm("r") end, "lbox.core: the watch is closed")
    assert.has_error(function() watch:events() end, "lbox.core: the watch is closed")
  end)

  it("ends with the object, and outlives the engine", function()
    watch:arm("w")
    watch = engine:watch(fd)
    collectgarbage()
    collectgarbage()
    assert.is_false(engine:step(0))
    engine:close()
    assert.has_error(function() watch:arm("r") end, "lbox.core: the engine is closed")
    watch:close()
  end)

  it("refuses what is no descriptor and no mode", function()
    assert.has_error(function() engine:watch(-1) end)
    assert.has_error(function() engine:watch("x") end)
    assert.has_error(function() watch:arm("x") end)
    local none = engine:watch(1000000)
    assert.has_error(function() none:arm("r") end,
      "lbox.core: the descriptor cannot be watched: Bad file descriptor")
    none:close()
  end)
end)

describe("a request", function()
  local peer, url, out, engine

  setup(function()
    out = os.tmpname()
    -- The pipe is the server's standard input: when it closes, the server ends.
    peer = io.popen("python3 spec/support/http_peer.py >" .. out, "w")
    local port
    local give_up = core.now() + 20000
    repeat
      os.execute("sleep 0.05")
      port = read_file(out):match("^(%d+)\n")
    until port or core.now() > give_up
    url = "http://127.0.0.1:" .. assert(port, "the peer did not start")
  end)

  teardown(function()
    peer:close()
    os.remove(out)
  end)

  before_each(function()
    engine = core.engine()
  end)

  after_each(function()
    engine:close()
  end)

  local function start(path, options)
    options = options or {}
    options.method = options.method or "GET"
    options.url = options.url or url .. path
    return engine:request(options)
  end

  -- Turns the engine until `ready()`, for at most ten seconds.
  local function turn(ready)
    local give_up = core.now() + 10000
    while not ready() do
      assert(core.now() < give_up, "nothing came of it")
      engine:step(100)
      repeat until not engine:ready()
    end
  end

  local function finish(req)
    turn(function() return req:done() end)
    return req
  end

  -- Reads a stream to its end, as "name=bytes".
  local function read_all(req)
    local said = {}
    turn(function()
      local done = req:done()
      drain(req, said)
      return done
    end)
    return said
  end

  it("brings status, headers and body", function()
    local req = start("/hello")
    assert.is_nil(req:status())
    assert.is_false(req:done())
    finish(req)
    assert.equal(200, req:status())
    assert.equal("one", req:header("X-Peer"))
    assert.equal("one", req:header("x-peer"))
    assert.is_nil(req:header("X-Pee"))
    assert.equal("hello", req:body())
    assert.is_nil(req:failure())
    assert.is_nil(req:next())
  end)

  it("posts its id to the ready queue", function()
    local req = start("/hello")
    local give_up, id = core.now() + 10000, nil
    while not id and core.now() < give_up do
      engine:step(100)
      id = engine:ready()
    end
    assert.equal(req:id(), id)
  end)

  it("sends method, headers and body", function()
    local bytes = all_bytes()
    local req = finish(start("/echo", {
      method = "POST", body = bytes, headers = { "X-Test: yes", "Content-Type: text/plain" },
    }))
    assert.equal(201, req:status())
    assert.equal("POST /echo|yes|text/plain|" .. bytes, req:body())
    assert.equal("POST /echo|None|None|", finish(start("/echo", { method = "POST" })):body())
  end)

  it("reads an agent stream as it comes", function()
    assert.same({
      'run_start={"run_id":"r1"}', 'text={"text":"gr\195\188\195\159"}', "odd name=1", "done={}",
    }, read_all(start("/sse", { mode = "sse" })))
  end)

  it("does not take what a cut stream left for an event", function()
    local req = start("/sse-cut", { mode = "sse" })
    local said = read_all(req)
    assert.equal("odd name=1", said[#said])
    assert.equal("partial", (req:failure()))
  end)

  it("reads a command's output and its exit", function()
    local req = start("/exec", { mode = "exec" })
    local said = read_all(req)
    assert.equal('exit={"exit_code":3,"cpu_ns":9}', table.remove(said))
    assert.equal("one\ntwo ", (table.concat(said):gsub("output=", "")))
    assert.is_nil(req:failure())
  end)

  it("shows no exit of a command when the stream was cut right after it", function()
    local req = start("/exec-cut", { mode = "exec" })
    assert.equal("one\ntwo ", (table.concat(read_all(req)):gsub("output=", "")))
    local kind, message, sent, code = req:failure()
    assert.equal("partial", kind)
    assert.is_string(message)
    assert.is_true(sent)
    assert.is_number(code)
  end)

  it("reads bytes as they come", function()
    local said = table.concat(read_all(start("/bytes?3000000", { mode = "raw" })))
    assert.equal(3000000, #(said:gsub("data=", "")))
  end)

  it("does not stream what is no answer to a stream", function()
    local req = finish(start("/nowhere", { mode = "sse" }))
    assert.equal(404, req:status())
    assert.is_nil(req:next())
    assert.equal('{"error":"not here"}', req:body())
    assert.is_nil(req:failure())
  end)

  it("refuses an answer that is larger than the limit", function()
    local req = finish(start("/bytes?5000", { max_body = 4999 }))
    assert.equal("too_large", (req:failure()))
    assert.equal(5000, #finish(start("/bytes?5000", { max_body = 5000 })):body())
  end)

  it("says that nothing left when no one listens", function()
    local req = finish(start("", { method = "POST", url = "http://127.0.0.1:1/" }))
    local kind, message, sent, code = req:failure()
    assert.equal("connect", kind)
    assert.equal("Connection refused", message)
    assert.is_false(sent)
    assert.equal(7, code)
    assert.is_nil(req:status())
  end)

  it("is cancelled, as often as one likes", function()
    local req = start("/never")
    engine:step(50)
    req:cancel()
    req:cancel()
    assert.is_true(req:done())
    assert.equal("cancelled", (req:failure()))
  end)

  it("is over when its engine is closed", function()
    local req = start("/silent", { mode = "sse" })
    turn(function() return req:status() end)
    engine:close()
    assert.is_true(req:done())
    assert.equal("cancelled", (req:failure()))
  end)

  it("leaves nothing behind when it is dropped in mid-stream", function()
    collectgarbage()
    engine:close()
    local before = process.open_fds()
    engine = core.engine()
    for _ = 1, 5 do
      local req = start("/silent", { mode = "sse" })
      turn(function() return req:status() end)
    end
    collectgarbage()
    collectgarbage()
    engine:close()
    assert.equal(before, process.open_fds())
  end)

  it("refuses wrong options", function()
    local function refuses(text, options)
      assert.has_error(function() engine:request(options) end, "lbox.core: " .. text)
    end
    refuses("a request needs 'method' and 'url'", { method = "GET" })
    refuses("option 'url' must be a string", { method = "GET", url = 1 })
    refuses("option 'url' has a line break or NUL in it", { method = "GET", url = "http://a\0b/" })
    refuses("option 'method' has a line break or NUL in it", { method = "GET\r\nX: y", url = url })
    refuses("no mode 'fast'", { method = "GET", url = url, mode = "fast" })
    refuses("header 2 has a line break or NUL in it",
      { method = "GET", url = url, headers = { "A: b", "A: b\r\nC: d" } })
    refuses("header 1 is not a string", { method = "GET", url = url, headers = { 7 } })
    refuses("option 'headers' must be a list of strings",
      { method = "GET", url = url, headers = "A: b" })
    local function refuses_parts(text, parts, body)
      refuses(text, { method = "POST", url = url, parts = parts, body = body })
    end
    refuses_parts("option 'parts' must be a list of tables", "x")
    refuses_parts("part 1 is not a table", { "x" })
    for _, part in ipairs { {}, { name = "a" }, { text = "b" }, { name = "a", text = "b", path = "c" } } do
      refuses_parts("part 1 needs 'name', and either 'text' or 'path'", { part })
    end
    refuses_parts("'text' of part 2 must be a string", { { name = "a", text = "b" }, { name = "a", text = 1 } })
    refuses_parts("'path' of part 1 has a NUL in it", { { name = "a", path = "a\0b" } })
    refuses_parts("'type' of part 1 has a line break in it", { { name = "a", path = "a", type = "a\r\nb" } })
    refuses_parts("a request has 'body' or 'parts', not both", { { name = "a", text = "b" } }, "body")
    for _, max in ipairs { 0, -1, 0 / 0, 1 / 0, "x" } do
      refuses("option 'max_body' must be a number of bytes",
        { method = "GET", url = url, max_body = max })
    end
  end)
end)
