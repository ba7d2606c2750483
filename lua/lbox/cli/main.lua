--- The command line of the lbox program: interpreter options as in lua5.4, ours beside them, and
--- the commands. Returns the exit status.
local program = require "lbox.program"

-- Exit status of scripts that fail, as lua5.4's. Commands have their own.
local SCRIPT_FAILED = 1
-- Of a script that a signal ended: this and its number.
local DIED_OF = 128
local SIGQUIT = 3

local COMMANDS = {
  doctor = "say what works on this machine and what to do about what does not",
  gc = "list or delete boxes that killed programs left behind",
  help = "show this text",
  serve = "run the local box server",
}

local USAGE = [=[
usage: lbox [options] [script [args]]
       lbox COMMAND [options]

options of the interpreter:
  -e STAT         run the string STAT
  -l MOD          require MOD into a global (NAME=MOD: into NAME)
  -v              print versions
  -E              ignore the environment (LUA_PATH, LUA_CPATH, LUA_INIT)
  -W              turn warnings on
  -               run standard input; -- ends the options

options of lbox:
  --local         use local boxes: this user's server, started when it does not run
  --base-url URL  use the Box API at URL
  --api-key KEY   the key of that API (default: UPSTASH_BOX_API_KEY)
  --timeout T     default time limit of a call: 90, 90s, 1500ms or 5m
  --debug         log every request on stderr
  --version       print versions and the parts of the local sandbox

commands:
]=]

local function usage()
  local names = {}
  for name in pairs(COMMANDS) do
    names[#names + 1] = name
  end
  table.sort(names)
  local lines = { USAGE }
  for _, name in ipairs(names) do
    lines[#lines + 1] = ("  %-15s %s\n"):format(name, COMMANDS[name])
  end
  return table.concat(lines)
end

local function complain(message)
  io.stderr:write(message:find("^lbox: ") and "" or "lbox: ", message, "\n")
end

--- Reads `90`, `90s`, `1500ms`, `5m` as milliseconds.
local function duration(text)
  local number, unit = tostring(text):match("^(%d+%.?%d*)(%a*)$")
  local factor = ({ [""] = 1000, s = 1000, ms = 1, m = 60000 })[unit]
  return number and factor and tonumber(number) * factor
end

--- Splits the command line. The returned table has `actions` in order ({"e"|"l", text}), `script`
--- (index of it in argv, or nil), the flags, and `client`: what lbox.configure takes.
local function parse(argv)
  local opts = { actions = {}, client = {} }
  local i = 1

  local function value(name)
    i = i + 1
    if argv[i] == nil then
      return nil, ("option '%s' needs a value"):format(name)
    end
    return argv[i]
  end

  local with_value = {
    ["-e"] = function(v) opts.actions[#opts.actions + 1] = { "e", v } end,
    ["-l"] = function(v) opts.actions[#opts.actions + 1] = { "l", v } end,
    ["--base-url"] = function(v)
      if opts.client.base_url == "local" then
        return "--local and --base-url say two things"
      end
      opts.client.base_url = v
    end,
    ["--api-key"] = function(v) opts.client.api_key = v end,
    ["--timeout"] = function(v)
      opts.client.timeout = duration(v)
      if not opts.client.timeout then
        return ("'%s' is not a time: write 90, 90s, 1500ms or 5m"):format(v)
      end
    end,
  }
  local plain = {
    ["-v"] = function() opts.version = true end,
    ["-E"] = function() opts.no_environment = true end,
    ["-W"] = function() warn("@on") end,
    ["--local"] = function()
      if opts.client.base_url and opts.client.base_url ~= "local" then
        return "--local and --base-url say two things"
      end
      opts.client.base_url = "local"
    end,
    ["--debug"] = function() opts.client.debug = true end,
    ["--version"] = function() opts.long_version = true end,
    ["--help"] = function() opts.help = true end,
    ["-h"] = function() opts.help = true end,
  }

  while argv[i] do
    local word = argv[i]
    if word:sub(1, 1) ~= "-" or word == "-" then
      break
    elseif word == "--" then
      i = i + 1
      break
    end
    local name, inline = word:match("^(%-%-[^=]+)=(.*)$")
    if not name and #word > 2 and with_value[word:sub(1, 2)] then
      name, inline = word:sub(1, 2), word:sub(3)
    end
    name = name or word
    if with_value[name] then
      local text, why = inline, nil
      if not text then
        text, why = value(name)
      end
      why = why or with_value[name](text)
      if why then
        return nil, why
      end
    elseif plain[name] and not inline then
      local why = plain[name]()
      if why then
        return nil, why
      end
    else
      local known = {}
      for key in pairs(with_value) do known[#known + 1] = key end
      for key in pairs(plain) do known[#known + 1] = key end
      table.sort(known)
      local near = require("lbox.errors").nearest(name, known)
      return nil, ("unknown option '%s'%s; 'lbox help' lists them"):format(
        word, near and (" (did you mean '%s'?)"):format(near) or "")
    end
    i = i + 1
  end
  opts.script = argv[i] and i or nil
  return opts
end

--- `arg` as lua5.4 sets it: the script at 0, its arguments after it, the rest before.
local function make_arg(argv, script)
  local arg = {}
  local shift = script or 0
  for i = 0, #argv do
    arg[i - shift] = argv[i]
  end
  return arg
end

--- Cancels `task` when somebody wants the script to end (SIGINT, SIGTERM, SIGHUP), and prints what is going on
--- for SIGQUIT. Returns a function that ends this and returns the signal that ended the script, if one
--- did.
local function listen_to_signals(task)
  local async, posix = require "lbox.async", require "lbox.server.posix"
  local fd = program.signals()
  local watch, came = async.engine():watch(fd), nil
  async.source(watch:id(), function()
    local number = (posix.read(fd, 1) or ""):byte()
    if number == SIGQUIT then
      io.stderr:write(tostring(async.tasks()), "\n")
    elseif number then
      came = came or number
      task:cancel("interrupted")
    end
    watch:arm("r")
  end, true)
  watch:arm("r")
  return function()
    async.source(watch:id(), nil, true)
    watch:close()
    return came
  end
end

--- Runs `chunk` as the main task. An error, also one of a task that made it fail, is printed with the
--- traceback of where it was raised.
---@return integer status
local function run_main(chunk, ...)
  local async, errors = require "lbox.async", require "lbox.errors"
  local stop_listening
  local ok, err = pcall(async.run, function(...)
    stop_listening = listen_to_signals(async.current())
    return chunk(...)
  end, ...)
  local signal = stop_listening and stop_listening()
  if not ok and not (signal and errors.is(err, "cancelled")) then
    complain(async.describe(err))
  end
  if signal then
    complain("interrupted")
    return DIED_OF + signal
  end
  return ok and 0 or SCRIPT_FAILED
end

local function run_string(text, name)
  local chunk, why = load(text, name)
  if not chunk then
    complain(why)
    return SCRIPT_FAILED
  end
  return run_main(chunk)
end

local function run_action(action)
  local kind, text = action[1], action[2]
  if kind == "e" then
    return run_string(text, "=(command line)")
  end
  local name, module = text:match("^([^=]+)=(.*)$")
  return run_main(function()
    _G[name or text] = require(module or text)
  end)
end

local function run_init()
  local name = "LUA_INIT_5_4"
  local init = os.getenv(name)
  if not init then
    name, init = "LUA_INIT", os.getenv("LUA_INIT")
  end
  if not init then
    return 0
  elseif init:sub(1, 1) == "@" then
    return run_main(function() return dofile(init:sub(2)) end)
  end
  return run_string(init, "=" .. name)
end

local function run_script(argv, index)
  local name = argv[index]
  local chunk, why = loadfile(name ~= "-" and name or nil)
  if not chunk then
    complain(why)
    return SCRIPT_FAILED
  end
  return run_main(chunk, table.unpack(argv, index + 1))
end

local function print_version()
  print(("lbox %s  %s  libcurl %s"):format(
    require("lbox.core").version, _VERSION, require("lbox.core").curl))
end

local function print_long_version()
  print_version()
  local found = require("lbox.server.sandbox").probe()
  print("bubblewrap " .. (found.bwrap or "not found"))
end

--- Runs a command module; its `main(args)` returns the exit status.
local function run_command(name, argv, index, opts)
  local args = table.move(argv, index + 1, #argv, 1, {})
  return require("lbox.cli." .. name).main(args, opts)
end

return function(argv)
  local opts, why = parse(argv)
  if not opts then
    complain(why)
    return SCRIPT_FAILED
  end
  local command = opts.script and argv[opts.script]
  local topic = command == "help" and argv[opts.script + 1]
  if COMMANDS[topic] and topic ~= "help" then
    return run_command(topic, { "--help" }, 0, opts)
  elseif topic and topic ~= "help" then
    complain(("there is no command '%s': gc, help, serve or doctor"):format(topic))
    return SCRIPT_FAILED
  elseif opts.help or command == "help" then
    io.stdout:write(usage())
    return 0
  elseif opts.long_version then
    print_long_version()
    return 0
  elseif COMMANDS[command] then
    return run_command(command, argv, opts.script, opts)
  end

  require("lbox.server.posix").raise_nofile_limit() -- each stream of a fan-out takes a descriptor
  -- lbox, arg and our flags are in place before the first line of the user's runs.
  _G.arg = make_arg(argv, opts.script)
  require("lbox.config").program(opts.client)
  _G.lbox = require "lbox"

  if opts.version then
    print_version()
  end
  local status = opts.no_environment and 0 or run_init()
  for _, action in ipairs(opts.actions) do
    status = status == 0 and run_action(action) or status
  end
  if status ~= 0 then
    return status
  elseif opts.script then
    return run_script(argv, opts.script)
  elseif #opts.actions == 0 and not opts.version then
    if program.isatty(0) then
      io.stdout:write(usage())
      return 0
    end
    return run_script({ "-" }, 1)
  end
  return 0
end
