-- Bugs for the harness to find. As a program, `lbox spec/kill/planted.lua NAME serve …`, the server with one of them.
local bugs = {
  { name = "a write is answered before it is done", file = "lua/lbox/server/routes/files.lua",
    find = "box:write_file(path, bytes)", replace = [[server.scope:spawn(function()
      require("lbox.async").sleep(20)
      box:write_file(path, bytes)
    end)]] },
  { name = "runs that were going are left so", file = "lua/lbox/server/store.lua",
    find = "WHERE status = 'running'\"", replace = "WHERE status = 'no status'\"" },
  { name = "what is half made is no rubbish", file = "lua/lbox/server/trees.lua",
    find = 'name:sub(1, #NEW) == NEW or ', replace = "" },
  { name = "a sandbox holds the server's end of its socket too", file = "lua/lbox/server/sandbox.lua",
    find = "[bubblewrap.STATUS_FD] = lock,", replace = "[bubblewrap.STATUS_FD] = lock, [15] = ours," },
  { name = "settings are kept a moment later", file = "lua/lbox/server/boxes.lua",
    find = "self.store:set_config(row.id, config)",
    replace = "async.at(async.now() + 100, function() self.store:set_config(row.id, config) end)" },
}

--- The source of a bug's module with the bug in it.
local function source(bug)
  local file = assert(io.open(bug.file, "rb"))
  local text = file:read("a")
  file:close()
  local at, stop = text:find(bug.find, 1, true)
  assert(at, ("%s does not say %q any more"):format(bug.file, bug.find))
  return text:sub(1, at - 1) .. bug.replace .. text:sub(stop + 1)
end

if arg[0]:find("planted%.lua$") then
  for _, bug in ipairs(bugs) do
    if bug.name == arg[1] then
      local module = bug.file:match("^lua/(.*)%.lua$"):gsub("/", ".")
      package.preload[module] = assert(load(source(bug), "=" .. module))
    end
  end
  table.remove(arg, 1)
  os.exit(require "lbox.cli.main"(arg))
end

return bugs
