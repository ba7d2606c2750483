-- embed.lua OUT LUA_ROOT INIT ARGPARSE FILE...
-- Writes a C file that holds Lua files as byte arrays under their module names, and lbox-init
-- as one more array: `lbox_embedded` (name, bytes, size; ended by a NULL name) and `lbox_init_program`.

local out_path, root, init_path, argparse_path = arg[1], arg[2], arg[3], arg[4]

local function read(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("a")
  file:close()
  return bytes
end

local function module_name(path)
  local name = path:sub(#root + 2):gsub("%.lua$", ""):gsub("/", "."):gsub("%.init$", "")
  return name
end

local function c_array(bytes)
  local lines = {}
  for i = 1, #bytes, 20 do
    lines[#lines + 1] = table.concat({ bytes:byte(i, i + 19) }, ",")
  end
  return table.concat(lines, ",\n") .. ",0"
end

local out = assert(io.open(out_path, "wb"))
out:write('#include "embedded.h"\n\n')

local names = {}
local function add(name, path)
  local bytes = read(path)
  assert(load(bytes, "=" .. path))
  out:write(("static const unsigned char file_%d[] = {\n%s};\n"):format(#names, c_array(bytes)))
  names[#names + 1] = ('  { "%s", (const char *)file_%d, %d },\n'):format(name, #names, #bytes)
end

for i = 5, #arg do
  add(module_name(arg[i]), arg[i])
end
add("argparse", argparse_path)

out:write("\nconst struct lbox_embedded lbox_embedded[] = {\n", table.concat(names), "  { 0, 0, 0 }\n};\n\n")
local init = read(init_path)
out:write("static const unsigned char init_bytes[] = {\n", c_array(init), "};\n")
out:write("const struct lbox_embedded lbox_init_program =\n",
  ('  { "lbox-init", (const char *)init_bytes, %d };\n'):format(#init))
out:close()
