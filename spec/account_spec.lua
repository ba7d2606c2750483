local fault = require "spec.support.fault"
local lbox = require "lbox"
local raised = fault.raised
local Box = lbox.Box

describe("the environment of boxes to come", function()
  local server

  setup(function()
    server = fault.answering {
      ["GET /v2/box/settings/env"] = '{"env_vars":{"TOKEN":"ab***"}}',
      ["GET /old/v2/box/settings/env"] = '{"TOKEN":"cd***"}',
      ["PUT /v2/box/settings/env"] = "{}",
      ["PUT /v2/box/settings/env/MY%20KEY"] = { 400, '{"error":"the value hush-hush-hush is not allowed"}' },
      ["PUT /v2/box/settings/env/TOKEN"] = "{}",
      ["DELETE /v2/box/settings/env/TOKEN"] = "{}",
      ["POST /v2/box/new/thing"] = '{"made":[1,null]}',
    }
  end)

  teardown(function()
    server:stop()
  end)

  it("is set, listed masked, and taken away", function()
    Box.set_env("TOKEN", "", server:options())
    assert.are.same({ value = "" }, server:sent("PUT /v2/box/settings/env/TOKEN").json)
    assert.are.same({ TOKEN = "ab***" }, Box.list_env(server:options()))
    assert.are.same({ TOKEN = "cd***" }, Box.list_env(server:options { base_url = server.url .. "/old" }))
    Box.delete_env("TOKEN", server:options())
    Box.set_all_env({ A = "1" }, server:options())
    assert.are.same({ env_vars = { A = "1" } }, server:sent("PUT /v2/box/settings/env").json)
  end)

  it("never shows a value", function()
    local err = raised(Box.set_env, "MY KEY", "hush-hush-hush", server:options())
    assert.is_nil(tostring(err):find("hush-hush", 1, true), tostring(err))
  end)

  it("refuses what cannot be right, before any request", function()
    for message, fn in pairs {
      ["the name of a variable must not be empty"] = function() Box.set_env("", "x", server:options()) end,
      ["the value of A must be a string, got number"] = function() Box.set_env("A", 1, server:options()) end,
      ["vars must be a table of strings by name"] = function() Box.set_all_env({ A = 1 }, server:options()) end,
    } do
      local err = raised(fn)
      assert.are.equal("usage", err.kind)
      assert.is_truthy(err.message:find(message, 1, true), err.message)
    end
  end)

  it("has a way to what lbox does not know yet", function()
    local opts = server:options { query = { b = 2, a = "x y" }, json = { k = 1 } }
    local answer = Box.request("post", "/v2/box/new/thing", opts)
    assert.are.same({ 1, lbox.null }, answer.made)
    local sent = server:sent "POST /v2/box/new/thing"
    assert.are.same({ query = "a=x%20y&b=2", json = { k = 1 } }, { query = sent.query, json = sent.json })
    assert.are.equal("usage", raised(Box.request, "GET", "v2/box", server:options()).kind)
    assert.are.equal("usage", raised(Box.request, "GET", "/v2/box?x=1", server:options()).kind)
  end)
end)
