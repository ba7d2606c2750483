std = "min"
max_line_length = 100
include_files = { "lua", "spec", "examples", "bench", "cmake" }
exclude_files = { "bench/node_modules", "spec/**/node_modules" }

files["lua/lbox/server"] = { std = "lua54" }
files["lua/lbox/cli"] = { std = "lua54" }
files["cmake"] = { std = "lua54" }
files["bench"] = { std = "lua54", read_globals = { "lbox" } }
files["examples"] = { std = "lua54", read_globals = { "lbox" } }
files["spec"] = { std = "max+busted", read_globals = { "lbox", "vim" } }
files["spec/server"] = { std = "lua54+busted", read_globals = { "lbox" } }
files["lua/lbox/loop/uv.lua"] = { read_globals = { "vim" } }
files["lua/lbox/json.lua"] = { read_globals = { "vim" } }
