local fault = require "spec.support.fault"
local lbox = require "lbox"
local raised = fault.raised
local Box = lbox.Box

describe("the environment of boxes to come", function()
  local server

  setup(function()
    server = fault.answering({
      ["GET /v2/box/settings/env"] = '{"env_vars":{"TOKEN":"ab***"}}',
      ["GET /old/v2/box/settings/env"] = '{"TOKEN":"cd***"}',
      ["PUT /v2/box/settings/env"] = "{}",
      ["PUT /v2/box/settings/env/MY%20KEY"] = { 400, '{"error":"the value hush-hush-hush is not allowed"}' },
      ["PUT /v2/box/settings/env/TOKEN"] = "{}",
      ["DELETE /v2/box/settings/env/TOKEN"] = "{}",
      ["POST /v2/box/new/thing"] = '{"made":[1,null]}',
    }, [==[
local function echo(reply, request, as_page)
  local value = json.decode(request.body).value
  local pad = ("z"):rep(tonumber(request.headers["x-pad"]))
  local id = { ["X-Request-Id"] = "id " .. value:gsub("%c", " ") }
  if as_page then
    reply:text(400, pad .. request.body, id)
  else
    reply:json(400, { error = pad .. value .. request.body, code = "code " .. value }, id)
  end
end
routes["PUT /v2/box/settings/env/ECHO"] = function(reply, request) echo(reply, request, false) end
routes["PUT /v2/box/settings/env/PAGE"] = function(reply, request) echo(reply, request, true) end
]==])
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

  it("never shows a part of a value, in whatever form it comes back", function()
    local values = {
      ["-----BEGIN KEY-----\nMIIabcdef\n-----END KEY-----"] = "MIIabcdef", ["pass  word two"] = "word two",
      ["quo\"te\\secret"] = "secret", ["hunter2-hunter2-hunter2"] = "hunter2",
    }
    for value, part in pairs(values) do
      for _, pad in ipairs { 0, 160, 180, 195, 470, 490 } do
        for _, name in ipairs { "ECHO", "PAGE" } do
          local err = raised(Box.set_env, name, value, server:options { headers = { ["X-Pad"] = tostring(pad) } })
          for _, text in ipairs { tostring(err), err.code or "", err.request_id or "" } do
            assert.is_nil(text:find(part, 1, true), text)
          end
        end
      end
    end
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
