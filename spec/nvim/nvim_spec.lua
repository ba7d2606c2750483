-- lbox in real headless Neovim: on its event loop, through one file descriptor.
local fault = require "spec.support.fault"
local support = require "spec.support.replay"

local function nvim(mode, url)
  local out = os.tmpname()
  local command = ("SPEC_MODE=%s SPEC_URL=%s SPEC_OUT=%s timeout 120 nvim --headless -u NONE -i NONE -n "
    .. "-c 'luafile spec/nvim/editor.lua' >%s.err 2>&1"):format(mode, url, out, out)
  local a, _, c = os.execute(command)
  local status = type(a) == "number" and a or c
  local function slurp(path)
    local file = io.open(path)
    local text = file and file:read("*a") or ""
    if file then
      file:close()
    end
    os.remove(path)
    return text
  end
  return status, slurp(out), slurp(out .. ".err")
end

describe("lbox in Neovim", function()
  local server

  setup(function()
    server = support.start(200000)
  end)

  teardown(function()
    server:stop()
  end)

  it("reads streams of 200,000 events while a 5 ms timer never stalls for more than 50 ms", function()
    local status, report, err = nvim("smooth", server.url)
    assert.are.equal(0, status, err)
    local events, worst, ticks = report:match("events (%d+) worst ([%d.]+) ticks (%d+)")
    assert.are.equal("2000000", events, report .. err)
    print(("  worst gap %s ms over %s ticks"):format(worst, ticks))
    assert.is_true(tonumber(worst) <= 50, "the timer stalled for " .. worst .. " ms")
    assert.is_true(tonumber(ticks) > 10)
  end)

  it("gives the same answer outside a task, where a call blocks", function()
    local status, report, err = nvim("sync", server.url)
    assert.are.equal(0, status, err)
    assert.are.equal("events 200000\n", report)
  end)

  it("shows an error of a task and goes on", function()
    local status, report, err = nvim("error", server.url)
    assert.are.equal(0, status, err)
    assert.matches("alive", report)
    assert.matches("notify string %d+ .*plain trouble", report)
    assert.matches("notify string %d+ .*usage", report)
  end)

  it("cancels its runs at the server when it quits", function()
    local faulty = fault.start([[
      routes["POST /v2/box/replay/run/stream"] = function(reply)
        reply:begin()
        reply:event("run_start", { run_id = "r" })
        for _ = 1, 1000 do
          reply:event("text", { text = "x" })
        end
        reply:hold()
      end
      routes["POST /v2/box/replay/runs/r/cancel"] = function(reply) reply:json(200, {}) end
    ]])
    local status, report, err = nvim("quit", faulty.url)
    local cancels = #faulty:log("POST /v2/box/replay/runs/r/cancel")
    faulty:stop()
    assert.are.equal(0, status, err)
    assert.are.equal("quitting\n", report)
    assert.are.equal(1, cancels)
  end)

  it("quits in mid-stream at once and cleanly", function()
    local status, report, err = nvim("quit", server.url)
    assert.are.equal(0, status, err)
    assert.are.equal("quitting\n", report)
    assert.not_matches("[Ee]rror", err)
  end)
end)
