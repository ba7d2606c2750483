local config = require "lbox.config"
local fault = require "spec.support.fault"

-- No variable of the machine the specs run on may decide.
local BARE = { UPSTASH_BOX_API_KEY = false, UPSTASH_BOX_BASE_URL = false,
  UPSTASH_DISABLE_TELEMETRY = false }

local function resolve(opts, variables)
  local settings
  local all = {}
  for name, value in pairs(BARE) do
    all[name] = value
  end
  for name, value in pairs(variables or {}) do
    all[name] = value
  end
  fault.with_env(all, function()
    settings = config.resolve(opts)
  end)
  return settings
end

local function refused(opts, variables)
  return fault.raised(resolve, opts, variables)
end

describe("settings", function()
  after_each(function()
    config.configure { api_key = "", base_url = "", timeout = 600000, proxy = "" }
    config.program { api_key = "", base_url = "" }
  end)

  it("have defaults", function()
    local settings = resolve { api_key = "k" }
    assert.are.equal("https://us-east-1.box.upstash.com", settings.base_url)
    assert.are.equal(600000, settings.timeout)
    assert.is_true(settings.telemetry)
    assert.is_false(settings.debug)
  end)

  it("come from the argument, then configure, then a flag, then the environment", function()
    local env = { UPSTASH_BOX_API_KEY = "env", UPSTASH_BOX_BASE_URL = "http://env" }
    assert.are.equal("env", resolve(nil, env).api_key)
    assert.are.equal("http://env", resolve(nil, env).base_url)
    config.program { api_key = "flag", base_url = "http://flag" }
    assert.are.equal("flag", resolve(nil, env).api_key)
    config.configure { api_key = "configured", base_url = "http://configured" }
    assert.are.equal("configured", resolve(nil, env).api_key)
    assert.are.equal("http://configured", resolve(nil, env).base_url)
    local settings = resolve({ api_key = "argument", base_url = "http://argument" }, env)
    assert.are.equal("argument", settings.api_key)
    assert.are.equal("http://argument", settings.base_url)
  end)

  it("take an empty string as not given", function()
    local settings = resolve({ api_key = "", base_url = "" }, { UPSTASH_BOX_API_KEY = "env" })
    assert.are.equal("env", settings.api_key)
    assert.are.equal("https://us-east-1.box.upstash.com", settings.base_url)
    assert.matches("api_key is required", refused(nil, { UPSTASH_BOX_API_KEY = "" }).message)
  end)

  it("need a key, and say where it may come from", function()
    local err = refused {}
    assert.are.equal("usage", err.kind)
    assert.are.equal("api_key is required: pass api_key, set UPSTASH_BOX_API_KEY, or use local "
      .. "boxes "
      .. "(lbox --local)", err.message)
  end)

  it("keep the path of a base URL and cut its trailing slashes", function()
    assert.are.equal("http://h:1/a/b", resolve({ api_key = "k",
      base_url = "http://h:1/a/b//" }).base_url)
  end)

  it("refuse what is no HTTP address, without showing its password", function()
    for _, url in ipairs { "h", "ftp://h", "http://", "http:///x", "http://a b", "http://h?x=1" } do
      assert.are.equal("usage", refused({ api_key = "k", base_url = url }).kind, url)
    end
    assert.not_matches("hunter2", refused({ api_key = "k",
      base_url = "ftp://me:hunter2@h" }).message)
  end)

  it("refuse a key that would break a header, without showing it", function()
    local err = refused { api_key = "secret\r\nX-Evil: 1" }
    assert.are.equal("usage", err.kind)
    assert.not_matches("secret", err.message)
  end)

  it("refuse what libcurl would take in part", function()
    for _, name in ipairs { "proxy", "no_proxy", "ca_file" } do
      local err = fault.raised(config.resolve, { api_key = "k", [name] = "a\0b" })
      assert.are.equal("usage", err.kind)
      assert.truthy(err.message:find(name .. " must not contain", 1, true), err.message)
    end
  end)

  it("turn telemetry off for any value of the variable", function()
    local telemetry = require "lbox.telemetry"
    fault.with_env({ UPSTASH_DISABLE_TELEMETRY = "" }, function()
      local list = {}
      telemetry.add(list, true)
      assert.are.same({}, list)
    end)
    fault.with_env({ UPSTASH_DISABLE_TELEMETRY = false, CI = "1", VERCEL = false, CF_PAGES = false,
      UPSTASH_CONSOLE = false, AWS_REGION = false, AWS_LAMBDA_FUNCTION_NAME = false }, function()
      local list = {}
      telemetry.add(list, true)
      assert.are.equal(3, #list)
      assert.matches("^Upstash%-Telemetry%-Sdk: lbox@%d", list[1])
      assert.matches("^Upstash%-Telemetry%-Runtime: lua", list[2])
      assert.are.equal("Upstash-Telemetry-Platform: ci", list[3])
      list = {}
      telemetry.add(list, false)
      assert.are.same({}, list)
    end)
  end)

  it("check what configure is given", function()
    assert.matches("unknown option \"api_kye\" %(did you mean \"api_key\"%?%)",
      fault.raised(config.configure, { api_kye = "k" }).message)
    assert.are.equal("usage", fault.raised(config.configure, { timeout = -1 }).kind)
    assert.are.equal("usage", fault.raised(config.configure, { timeout = "1s" }).kind)
    assert.are.equal("usage", fault.raised(config.configure).kind)
  end)
end)
