--- Methods of a box: reaching its ports from outside. On the wire these are previews (box-api.md §1.10).
local client = require "lbox.client"
local errors = require "lbox.errors"
local options = require "lbox.options"

---@class lbox.PublicUrlOptions: lbox.CallOptions
---@field bearer_token boolean|nil  asks for a token, which the answer names
---@field basic_auth boolean|nil    asks for user and password, which the answer names

local CREATE_OPTIONS = client.call_options { bearer_token = "boolean", basic_auth = "boolean" }
local READ_OPTIONS = client.read_options {}

local LAST_PORT = 65535

local function check_port(port)
  if type(port) ~= "number" or port % 1 ~= 0 or port < 1 or port > LAST_PORT then
    errors.raise("usage", ("port must be a whole number from 1 to %d, got %s"):format(LAST_PORT, options.shown(port)))
  end
  return port
end

---@class lbox.Box
local methods = {}

--- Opens a port of the box to the internet; of a local box, to this machine.
---@param port integer
---@param opts lbox.PublicUrlOptions|nil
---@return { url: string, port: integer, token: string?, username: string?, password: string? }
function methods:get_public_url(port, opts)
  opts = options.call(opts, CREATE_OPTIONS, "box:get_public_url")
  return self._link:object("url", {
    method = "POST", path = "/preview", opts = opts,
    json = { port = check_port(port), bearer_token = opts.bearer_token, basic_auth = opts.basic_auth },
  })
end

--- The open ports, without their secrets: a list of { id, port, url, created_at, basic_auth, bearer_token }.
---@param opts lbox.ReadOptions|nil
---@return table[]
function methods:list_public_urls(opts)
  opts = options.call(opts, READ_OPTIONS, "box:list_public_urls")
  return self._link:list("previews", { path = "/preview", opts = opts })
end

--- Closes a port.
---@param port integer
---@param opts lbox.ReadOptions|nil
function methods:delete_public_url(port, opts)
  opts = options.call(opts, READ_OPTIONS, "box:delete_public_url")
  self._link:perform { method = "DELETE", path = ("/preview/%d"):format(check_port(port)), opts = opts }
end

return methods
