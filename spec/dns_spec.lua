-- A resolver that does not answer, which no server of a test can be: a library that is loaded before the C library's.
local process = require "spec.support.process"

local program = os.getenv("LBOX_PROGRAM") or "build/lbox"

local SLOW = [[
#include <netdb.h>
#include <unistd.h>
int getaddrinfo(const char *name, const char *port, const struct addrinfo *hints, struct addrinfo **found)
{
  (void)name, (void)port, (void)hints, (void)found;
  sleep(20);
  return EAI_AGAIN;
}
]]

local SCRIPT = [[
local lbox = require "lbox"
local started = lbox.now()
local ok, err = pcall(lbox.Box.get, "b1", { api_key = "k", base_url = "http://slow.example", timeout = 200 })
print(ok, err.kind, lbox.now() - started < 2000)
]]

describe("a resolver that does not answer", function()
  local library = os.tmpname()

  setup(function()
    local source = os.tmpname()
    local file = assert(io.open(source, "w"))
    file:write(SLOW)
    file:close()
    assert(os.execute(("cc -shared -fPIC -x c -o %s %s"):format(library, source)))
    os.remove(source)
  end)

  teardown(function()
    os.remove(library)
  end)

  it("keeps neither a call from its deadline nor the program from its end", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(SCRIPT)
    file:close()
    local started = os.time()
    local said = process.output(("LD_PRELOAD=%s %s %s 2>&1"):format(library, program, path))
    os.remove(path)
    assert.are.equal("false\ttimeout\ttrue\n", said)
    assert.is_true(os.time() - started < 5)
  end)
end)
