-- The SDK runs on LuaJIT and 5.4: names that one of them lacks are used with a fallback.
std = "min"
read_globals = { "unpack", table = { fields = { "unpack" } }, coroutine = { fields = { "isyieldable" } },
  math = { fields = { "type", "tointeger" } } }
max_line_length = 120
include_files = { "lua/**/*.lua", "spec/**/*.lua", "examples/**/*.lua", "bench/**/*.lua", "cmake/*.lua" }

files["lua/lbox/server"] = { std = "lua54" }
files["lua/lbox/cli"] = { std = "lua54" }
files["cmake"] = { std = "lua54" }
files["bench"] = { std = "lua54", read_globals = { "lbox" } }
files["examples"] = { std = "lua54", read_globals = { "lbox" } }
files["spec/nvim/editor.lua"] = { globals = { "vim" } }
files["spec"] = { std = "max+busted", read_globals = { "lbox", "vim" } }
files["spec/server"] = { std = "lua54+busted", read_globals = { "lbox" } }
files["lua/lbox/loop/uv.lua"] = { read_globals = { "vim" } }
files["lua/lbox/json.lua"] = { read_globals = { "vim" } }

-- Tables, a line for each thing.
files["spec/parity/operations.lua"] = { max_line_length = 140 }
files["spec/parity/features.lua"] = { max_line_length = 140 }
