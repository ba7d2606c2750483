-- On the loop of real headless Neovim.
local cpath = (os.getenv("LUA_CPATH") or ""):gsub("/5%.4/", "/luajit/")

local ticking = "the editor's timer went on true\n"

local function slurp(path)
  local file = io.open(path)
  local text = file and file:read("*a") or ""
  if file then
    file:close()
  end
  os.remove(path)
  return text
end

--- Runs one mode of neovim_editor.lua. Returns the exit status, what it told, what was printed.
local function nvim(mode)
  local out = os.tmpname()
  local a, _, c = os.execute(("LUA_CPATH='%s' SPEC_MODE=%s SPEC_OUT=%s timeout 60 nvim --headless "
    .. "-u NONE -i NONE -n -c 'luafile spec/loop/neovim_editor.lua' >%s.err 2>&1 </dev/null"
    ):format(cpath, mode, out, out))
  return type(a) == "number" and a or c, slurp(out), slurp(out .. ".err")
end

local function check(mode, expected)
  local status, told, printed = nvim(mode)
  assert.are.equal("", printed)
  assert.are.equal(expected, told)
  assert.are.equal(0, status)
end

describe("in Neovim", function()
  it("tasks run where the editor's API may be used, and a busy one never stalls it", function()
    check("tasks", "fast false\n" .. ("let in\n"):rep(8) .. "written by a task\n" .. ticking)
  end)

  it("a call outside of tasks blocks while the editor's timers go on", function()
    check("sync", "let in\nslept true\ntimeout\nAB\nCD\n" .. ticking)
  end)

  it("waits that cannot yield nest", function()
    check("nested", "<1><2><3><4><5><6><7><8><9><10>\n" .. ticking)
  end)

  it("errors are shown as strings and nothing crashes", function()
    local status, told, printed = nvim("error")
    assert.are.equal("", printed)
    assert.are.equal(0, status)
    assert.matches("alive", told)
    for _, text in ipairs { "plain trouble", "error object is a table value", "in a callback" } do
      assert.matches("notify string 4 lbox: [^\n]*" .. text, told)
    end
  end)

  it("a callback of the editor's loop cannot wait and is told so, but may start a task", function()
    check("fast", "false usage a callback of the event loop cannot wait: "
      .. "call it from vim.schedule or a task\na task started there runs false\n")
  end)

  it("quitting cancels the tasks and closes what they opened, without waiting", function()
    local status, told, printed = nvim("quit")
    assert.are.equal("", printed)
    assert.are.equal(0, status)
    assert.are.equal(5, select(2, told:gsub("woken false cancelled", "")))
    assert.are.equal(5, select(2, told:gsub("closed", "")))
  end)

  it("quitting from a task is clean, and ends the others", function()
    check("quit_in_task", "closed\n")
  end)

  it("quitting while a call blocks is clean", function()
    check("quit_in_wait", "")
  end)

  it("lbox can be closed and used again", function()
    check("again", "again\n")
  end)
end)
