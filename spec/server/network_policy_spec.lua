-- Addresses, and what a custom policy says of one.
local addresses = require "lbox.server.addresses"
local logs = require "lbox.server.logs"
local network_policy = require "lbox.server.network_policy"
local posix = require "lbox.server.posix"

describe("a network", function()
  it("has the addresses that begin as it does", function()
    for text, cases in pairs {
      ["10.0.0.0/8"] = { ["10.0.0.0"] = true, ["10.255.255.255"] = true, ["11.0.0.0"] = false },
      ["172.16.0.0/12"] = { ["172.15.255.255"] = false, ["172.31.255.255"] = true, ["172.32.0.0"] = false },
      ["1.2.3.4"] = { ["1.2.3.4"] = true, ["1.2.3.5"] = false },
      ["1.2.3.5/31"] = { ["1.2.3.4"] = true, ["1.2.3.6"] = false },
      ["0.0.0.0/0"] = { ["255.1.2.3"] = true, ["::1"] = false },
      ["fe80::/10"] = { ["fe80::1"] = true, ["febf::1"] = true, ["fec0::1"] = false, ["1.2.3.4"] = false },
      ["::/0"] = { ["::1"] = true },
    } do
      for address, is_in in pairs(cases) do
        assert.are.equal(is_in, addresses.contains(addresses.subnet(text), posix.address(address)), address)
      end
    end
  end)

  it("is a text of a certain form", function()
    for _, text in ipairs { "", "1.2.3", "1.2.3.4/", "1.2.3.4/33", "::/129", "a.test", "1.2.3.4/8/8", "01.2.3.4",
      "1.2.3.4/+1", "fe80::1%eth0", "1.2.3.4 " } do
      assert.is_nil(addresses.subnet(text), text)
    end
  end)
end)

describe("addresses no box reaches", function()
  it("are all that are not of the internet", function()
    for _, text in ipairs { "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "169.254.169.254",
      "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.19.255.255",
      "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "::1",
      "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::7f00:1", "64:ff9b::8.8.8.8", "100::1", "2001::1",
      "2001:db8::1", "2002:7f00:1::", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1" } do
      assert.is_true(addresses.is_special(posix.address(text)), text)
    end
    for _, text in ipairs { "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255",
      "172.32.0.0", "192.0.1.1", "192.167.255.255", "192.169.0.0", "223.255.255.255", "2606:4700::1111",
      "2a00:1450::1" } do
      assert.is_false(addresses.is_special(posix.address(text)), text)
    end
  end)
end)

describe("a custom policy", function()
  local function allows(policy, name, address)
    policy.mode = "custom"
    return network_policy.objection(policy, name, posix.address(address), {}) == nil
  end

  it("allows names in whole, or below a suffix", function()
    local policy = { allowed_domains = { "Ok.Test", "*.sub.test" } }
    for name, is_in in pairs { ["ok.test"] = true, ["a.ok.test"] = false, ["notok.test"] = false, ["sub.test"] = false,
      ["a.sub.test"] = true, ["a.b.sub.test"] = true, ["asub.test"] = false, ["ok.test.evil.test"] = false,
      [".sub.test"] = false } do
      assert.are.equal(is_in, allows(policy, name, "93.184.216.34"), name)
    end
  end)

  it("allows addresses, and denies them first", function()
    local policy = { allowed_domains = { "ok.test" }, allowed_cidrs = { "93.184.0.0/16" },
      denied_cidrs = { "93.184.1.0/24" } }
    assert.is_true(allows(policy, "any.test", "93.184.216.34"))
    assert.is_false(allows(policy, "any.test", "93.185.216.34"))
    assert.is_true(allows(policy, "ok.test", "93.185.216.34"))
    assert.is_false(allows(policy, "ok.test", "93.184.1.2"))
    assert.is_false(allows(policy, "ok.test", "127.0.0.1"))
  end)

  it("knows what a name is", function()
    for text, name in pairs { ["OK.test."] = "ok.test", ["_x.a-b.test"] = "_x.a-b.test",
      ["xn--bcher-kva.test"] = "xn--bcher-kva.test", ["localhost"] = "localhost" } do
      assert.are.equal(name, network_policy.name(text))
    end
    for _, text in ipairs { "", ".", "a..b", "-a.test", "a b", "a.test/", "a\0.test", "b\195\188cher.test",
      ("a"):rep(64) .. ".test", ("a."):rep(127) .. "aa", "a:80", "*.a" } do
      assert.is_nil(network_policy.name(text), text)
    end
  end)
end)

describe("what is told of a box", function()
  it("is counted when it is the same, and pages", function()
    local log = logs.new()
    log:add("a", "info", "one")
    log:add("a", "warn", "two")
    log:add("a", "info", "one")
    log:add("b", "error", "other")
    local list = log:list("a")
    assert.are.equal("one (2 times)", list[1].message)
    assert.are.same({ "system", "warn", "two" }, { list[2].source, list[2].level, list[2].message })
    assert.are.equal("two", log:list("a", 1)[1].message)
    assert.are.equal(1, #log:list("a", 0, 1))
    assert.are.equal(0, #log:list("a", 5))
    log:forget("a")
    assert.are.equal(0, #log:list("a"))
    assert.are.equal(1, #log:list("b"))
  end)

  it("has a limit, however much there is", function()
    local log = logs.new()
    for i = 1, 100000 do
      log:add("a", "warn", "number " .. i)
    end
    local list = log:list("a")
    assert.is_true(#list <= 200)
    assert.matches("^more than can be told %(%d+ times%)$", list[#list].message)
  end)
end)
