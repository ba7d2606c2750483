-- A model server for specs: says the turns it is given (see model_routes.lua) and remembers what it was asked.
local fault = require "spec.support.fault"
local http = require "lbox.http"
local json = require "lbox.json"

local M = {}
M.__index = M

function M.start()
  return setmetatable({ server = fault.start('require("spec.support.model_routes")(routes)') }, M)
end

function M:port()
  return tonumber(self.server.port)
end

--- What the model says from now on; forgets what it has not said.
function M:script(turns)
  local transfer = http.send { method = "POST", url = self.server.url .. "/_turns",
    headers = { "Content-Type: application/json" }, body = json.encode { turns = json.array(turns) } }
  transfer:wait(function(req) return req:done() end)
  assert(transfer.req:status() == 200, "the model server did not take the turns")
  transfer:close()
  self.asked_before = #self:all()
end

function M:all()
  local asked = {}
  for _, request in ipairs(self.server:log()) do
    if request.path:match("^/v1/") then
      request.json = json.decode(request.body)
      asked[#asked + 1] = request
    end
  end
  return asked
end

--- The requests since the last script that offered tools: those of turns.
function M:asked()
  local asked = {}
  for i, request in ipairs(self:all()) do
    local tools = i > self.asked_before and request.json and request.json.tools
    if type(tools) == "table" and tools[1] then
      asked[#asked + 1] = request
    end
  end
  return asked
end

function M:stop()
  self.server:stop()
end

return M
