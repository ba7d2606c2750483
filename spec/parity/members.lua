-- What the SDKs have to call, and what of that no operation calls.
local lbox = require "lbox"

local M = {}

-- What no operation calls, and why.
M.EXCEPTIONS = {
  ts = {
    ["box.log"] = "writes to the console",
    ["box.getPreviewUrl"] = "the old name of getPublicURL",
    ["box.listPreviews"] = "the old name of listPublicURLs",
    ["box.deletePreview"] = "the old name of deletePublicURL",
  },
  py = {},
  lua = {
    ["stream.chunks"] = "is what `read` calls",
    ["stream.wait"] = "asks the server only for a run that was left, see get a run by id",
    ["stream.cancel"] = "is that of a run",
    ["stream.logs"] = "is that of a run",
    ["tab.goto"] = "another name of open",
  },
}

--- The methods of an object of lbox.
local function methods_of(object)
  local index = getmetatable(object).__index
  if type(index) == "function" then
    for i = 1, 255 do
      local name, value = debug.getupvalue(index, i)
      if name == "checked" then
        index = value
        break
      end
    end
  end
  local names = {}
  for name in pairs(index) do
    names[#names + 1] = name
  end
  return names
end

local function keys(class)
  local names = {}
  for name in pairs(class) do
    names[#names + 1] = name
  end
  return names
end

--- The members of lbox, by the names that the operations give to objects: { ["box.files"] = { "read", … } }.
--- Needs a server with a box b1.
function M.of_lbox()
  local box, ephemeral = lbox.Box.get("b1"), lbox.EphemeralBox.create()
  local stream = box.exec:stream("ls")
  local members = {
    Box = keys(lbox.Box),
    EphemeralBox = keys(lbox.EphemeralBox),
    box = methods_of(box),
    ephemeral = methods_of(ephemeral),
    run = methods_of(box.exec:command("ls")),
    s = methods_of(box.exec:session { cmd = "ls" }),
    stream = methods_of(stream),
    tab = methods_of(box.browser:get_tab("t1")),
    recording = methods_of(box.browser.recordings:start()),
    ["box.browser.tab"] = methods_of(box.browser.tab),
    ["box.browser.recordings"] = methods_of(box.browser.recordings),
  }
  stream:close()
  for name, value in pairs(box) do
    local mt = type(value) == "table" and getmetatable(value)
    if mt and mt.__name == "lbox.box." .. name then
      members["box." .. name] = methods_of(value)
    end
  end
  return members
end

--- The members with a list of options each, which is empty where the SDK does not tell.
local function with_options(list)
  local options = {}
  for name, value in pairs(list) do
    options[type(name) == "number" and value or name] = type(value) == "table" and value or {}
  end
  return options
end

local function escaped(text)
  return (text:gsub("%p", "%%%0"))
end

--- Where a member is called in a piece of code: what follows the call. lbox calls methods with a colon.
local function call_of(code, sdk, label, name)
  local separator = sdk == "lua" and not label:find("^%u") and ":" or "."
  local stop = select(2, code:find("%f[%w_]" .. escaped(label .. separator .. name) .. "%f[^%w_]"))
  return stop and code:sub(stop + 1)
end

--- What of an SDK's members, and of their options, no operation uses, and the exceptions that are none: a
--- sorted list of names.
function M.unused(sdk, members, operations)
  local unused, exists = {}, {}
  for label, list in pairs(members) do
    for name, options in pairs(with_options(list)) do
      local called, used = false, {}
      for _, operation in ipairs(operations) do
        local arguments = operation[sdk] and call_of(operation[sdk], sdk, label, name)
        called = called or arguments
        for _, option in ipairs(arguments and options or {}) do
          used[option] = used[option] or arguments:find("%f[%w_]" .. option .. "=")
        end
      end
      local full = label .. "." .. name
      exists[full] = true
      if not called and not M.EXCEPTIONS[sdk][full] then
        unused[#unused + 1] = full
      elseif called and M.EXCEPTIONS[sdk][full] then
        unused[#unused + 1] = full .. " is an exception, and is called"
      end
      for _, option in ipairs(called and options or {}) do
        if not used[option] then
          unused[#unused + 1] = ("%s(%s)"):format(full, option)
        end
      end
    end
  end
  for name in pairs(M.EXCEPTIONS[sdk]) do
    if not exists[name] then
      unused[#unused + 1] = name .. " is an exception, and is not there"
    end
  end
  table.sort(unused)
  return unused
end

return M
