--- What a box shares with its namespaces and runs: the client, where its requests go, whether it is
--- closed, and the streams that are open.
local errors = require "lbox.errors"
local options = require "lbox.options"
local url = require "lbox.url"
local workdir = require "lbox.workdir"

local M = {}

---@class lbox.Link
---@field client lbox.Client
---@field box table      the Box, for its cwd
---@field id string
---@field path string    "/v2/box/ID"
---@field harness string|nil    of the box's agent
---@field git_token string|nil  what clones into the box may use
---@field closed boolean
---@field streams table  open streams; weak, so that an abandoned one is collected
local Link = {}
Link.__index = Link

---@return lbox.Link
function M.new(client, id, box)
  if not id:find("%S") or id:find("%c") or id == "." or id == ".." then
    errors.raise("api", ("the server calls a box %q, which is no id: check base_url"):format(id))
  end
  return setmetatable({
    client = client,
    id = id,
    path = "/v2/box/" .. url.segment(id, "the id of a box"),
    box = box,
    closed = false,
    streams = setmetatable({}, { __mode = "k" }),
  }, Link)
end

function Link:check_open()
  if self.closed then
    errors.raise("usage", ("box %s is closed"):format(self.id), { box_id = self.id })
  end
end

--- Makes a client's spec, with a path below the box, one for this box.
function Link:spec(spec)
  self:check_open()
  spec.path = self.path .. spec.path
  spec.box_id = self.id
  return spec
end

function Link:request(spec)
  return self.client:request(self:spec(spec))
end

--- The same for answers whose fields are not free JSON: null in them is nil.
function Link:ask(spec)
  return self.client:ask(self:spec(spec))
end

--- Asks for a list; in the answer it is the field `name`, or all of it. Empty when the server has none or says
--- nothing.
---@param name string|nil
---@param spec lbox.client.Spec  without its method
---@param of string|nil  the type of its items: "table"
---@return any[]
function Link:list(name, spec, of)
  return self.client:list(self:spec(spec), name, of)
end

--- Asks for an object. Raises for one that lacks the field `name`, a text that is not empty.
---@param name string
---@param spec lbox.client.Spec
---@return table
function Link:object(name, spec)
  local object = self:ask(spec)
  if type(object[name]) ~= "string" or object[name] == "" then
    self:nonsense(spec, 200)
  end
  return object
end

--- Asks for nothing but such a text.
---@return string
function Link:text(name, spec)
  return self:object(name, spec)[name]
end

--- The deadline of a call: the caller's, else so many ms from now.
---@param opts table
---@param ms number
---@return lbox.Deadline
function Link:deadline(opts, ms)
  return self.client:deadline(opts.timeout or ms)
end

--- Sends a request whose answer says nothing more than that it was done.
function Link:perform(spec)
  self.client:send(self:spec(spec))
end

function Link:send(spec)
  return self.client:send(self:spec(spec))
end

--- Raises for an answer that lacks what has to be in it.
function Link:nonsense(spec, status)
  self.client:nonsense(spec, status)
end

--- The `folder` of a request: of `path` relative to the box's directory, or of that directory.
---@param path string|nil
---@return string|nil
function Link:folder(path)
  local cwd = self.box.cwd
  return workdir.folder(path and workdir.normalise(cwd, path) or cwd)
end

--- An absolute path in the box, of one that is relative to the box's directory.
---@param path string
---@param what string  for the error: "path"
---@return string
function Link:path_of(path, what)
  return workdir.absolute(self.box.cwd, options.nonblank(path, what))
end

--- Lets go of the box: every later call raises, open streams are closed.
function Link:close()
  if self.closed then
    return
  end
  self.closed = true
  for stream in pairs(self.streams) do
    stream:close()
  end
end

return M
