-- Files of this machine, as the core writes what was fetched.
local core = require "lbox.core"
local directory = require "spec.support.directory"
local process = require "spec.support.process"

describe("a local directory", function()
  local place, dir

  setup(function()
    place = directory.new()
  end)

  teardown(function()
    place:remove()
  end)

  before_each(function()
    place:clear()
    dir = assert(core.directory(place.path))
  end)

  it("makes files that appear once they are committed", function()
    local file = assert(dir:create("a"))
    assert.is_true(file:write("some "))
    assert.is_true(file:write("bytes"))
    assert.is_nil(place:read("a"))
    assert.is_true(file:commit())
    assert.equal("some bytes", place:read("a"))
    file:discard()
    assert.equal("./a\n", place:list())
    assert.has_error(function() file:write("more") end, "lbox.core: the file is closed")
    assert.has_error(function() file:commit() end, "lbox.core: the file is closed")
  end)

  it("keeps nothing of a file that is discarded or forgotten", function()
    collectgarbage()
    collectgarbage()
    local fds = process.open_fds()
    local file = assert(dir:create("a"))
    file:write("x")
    file:discard()
    file:discard()
    file = assert(dir:create("a"))
    file:write("x")
    file = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.equal("", place:list())
    assert.equal(fds, process.open_fds())
  end)

  it("leads only to what is in it", function()
    for _, name in ipairs { "", ".", "..", "a/b", "/tmp", "../a" } do
      for _, method in ipairs { "create", "enter" } do
        local made, why = dir[method](dir, name)
        assert.is_nil(made)
        assert.is_string(why)
      end
    end
    assert.has_error(function() dir:create("a\0b") end)
    assert.equal("", place:list())
    place:sh("mkdir real && ln -s real link")
    assert.is_nil((dir:enter("link")))
    local real = assert(dir:enter("real"))
    assert.is_true(assert(real:create("x")):commit())
    assert.equal("./link\n./real\n./real/x\n", place:list())
  end)

  it("is closed once it is told so, and its files are not", function()
    local file = assert(dir:create("a"))
    dir:close()
    dir:close()
    assert.has_error(function() dir:enter("a") end, "lbox.core: the directory is closed")
    assert.is_true(file:commit())
    assert.equal("", place:read("a"))
  end)

  it("is told from a file, whose size is known", function()
    local path = place:write("a", "four")
    assert.equal(4, core.file_size(path))
    assert.is_false(core.is_directory(path))
    assert.is_true(core.is_directory(place.path))
    assert.is_false(core.is_directory(place.path .. "/none"))
    assert.same({ nil, "it is a directory" }, { core.file_size(place.path) })
    assert.same({ nil, "No such file or directory" }, { core.file_size(place.path .. "/none") })
    assert.same({ nil, "Not a directory" }, { core.directory(path) })
  end)

  it("is made with its parents", function()
    assert(core.directory(place.path .. "/x/y/z")):close()
    assert.equal("./x\n./x/y\n./x/y/z\n", place:list())
  end)
end)
