-- Something that webhooks are sent to, in the process of the specs: `told` holds their bodies, `statuses` what it
-- answers to the next ones (200 after those).
local json = require "lbox.json"
local listener = require "lbox.server.listener"
local posix = require "lbox.server.posix"

local M = {}

function M.start()
  local fd, port = posix.listen { host = "127.0.0.1", port = 0 }
  local self = { url = ("http://127.0.0.1:%d/hook"):format(port), told = {}, statuses = {} }
  self.listener = listener.new { fd = fd, handler = function(request)
    self.told[#self.told + 1] = { body = json.decode(request:body()), key = request:header("X-Secret"),
      type = request:header("Content-Type") }
    request:answer(table.remove(self.statuses, 1) or 200, {})
  end }
  return self
end

return M
