--- A tab of a box's browser, and `box.browser.tab`, which opens them (box-api.md §1.11).
local client = require "lbox.client"
local core = require "lbox.core"
local errors = require "lbox.errors"
local json = require "lbox.json"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local schema = require "lbox.schema"
local url = require "lbox.url"

local M = {}

local READ_OPTIONS = client.read_options {}
local CALL_OPTIONS = client.call_options {}

-- How long a page may take, and a model that looks at it.
local PAGE_MS, MODEL_MS = 60000, 180000
-- The time limit of `create` is the server's: the client waits this much longer.
local GRACE_MS = 30000

---@class lbox.tab.CreateOptions: lbox.CallOptions
---@field wait_until "load"|"domcontentloaded"|"networkidle"|nil

local CREATE_OPTIONS = client.call_options { wait_until = "text" }

---@class lbox.tab.ScreenshotOptions: lbox.ReadOptions
---@field encoding "bytes"|"base64"|nil
---@field full_page boolean|nil

local SCREENSHOT_OPTIONS = client.read_options { encoding = { "bytes", "base64" }, full_page = "boolean" }

---@class lbox.tab.ModelOptions: lbox.CallOptions
---@field model string|nil  another model than the box's

local MODEL_OPTIONS = client.call_options { model = "text" }

---@class lbox.Tab
---@field id string
---@field url string|nil    when it was asked for last
---@field title string|nil
local methods = {}

local function ask(self, method, name, opts, limit, body)
  local link = self._link
  local spec = {
    method = method, path = "/browser/" .. name, json = body, opts = opts, deadline = link:deadline(opts, limit),
  }
  if method == "GET" then
    spec.json, spec.query = nil, body
  end
  return link:request(spec), spec
end

--- Goes to a page. Also as `tab["goto"]`.
---@param address string
---@param opts lbox.CallOptions|nil
---@return { title: string, url: string, text: string, links: table[]? }
function methods:open(address, opts)
  opts = options.call(opts, CALL_OPTIONS, "tab:open")
  local body = { url = options.nonblank(address, "url"), tab = self.id }
  local content = json.strip_nulls((ask(self, "POST", "goto", opts, PAGE_MS, body)))
  self.url, self.title = content.url or self.url, content.title or self.title
  return content
end
methods["goto"] = methods.open

--- What the page says.
---@param opts lbox.ReadOptions|nil
---@return { title: string, url: string, text: string, links: table[]? }
function methods:content(opts)
  opts = options.call(opts, READ_OPTIONS, "tab:content")
  return json.strip_nulls((ask(self, "GET", "content", opts, PAGE_MS, { { "tab", self.id } })))
end

--- A picture of the page: the bytes of a PNG file, or them as base64 text.
---@param opts lbox.tab.ScreenshotOptions|nil
---@return string
function methods:screenshot(opts)
  opts = options.call(opts, SCREENSHOT_OPTIONS, "tab:screenshot")
  local answer, spec = ask(self, "GET", "screenshot", opts, PAGE_MS, {
    { "encoding", "base64" }, { "tab", self.id }, { "full_page", opts.full_page and "true" or nil },
  })
  local bytes = type(answer.data) == "string" and core.base64_decode(answer.data)
  if not bytes or bytes == "" then
    self._link:nonsense(spec, 200)
  end
  return opts.encoding == "base64" and answer.data or bytes
end

--- Reads data off the page by a model. Raises `schema` when they do not match.
---@param instruction string
---@param wanted any  what they have to be: see schema.lua
---@param opts lbox.tab.ModelOptions|nil
---@return any
function methods:extract(instruction, wanted, opts)
  opts = options.call(opts, MODEL_OPTIONS, "tab:extract")
  options.nonblank(instruction, "instruction")
  if wanted == nil then
    errors.raise("usage", "tab:extract needs a schema: what the data have to be")
  end
  local checked = schema.from(wanted)
  local answer = ask(self, "POST", "extract", opts, MODEL_MS, {
    instruction = instruction, schema = checked:to_json_schema(), tab = self.id, model = opts.model,
  })
  return checked:validate(answer.data)
end

--- Looks by a model for what can be done on the page.
---@param instruction string
---@param opts lbox.tab.ModelOptions|nil
---@return { description: string, selector: string?, url: string?, method: string?, arguments: table? }[]
function methods:observe(instruction, opts)
  opts = options.call(opts, MODEL_OPTIONS, "tab:observe")
  local answer = json.strip_nulls((ask(self, "POST", "observe", opts, MODEL_MS, {
    instruction = options.nonblank(instruction, "instruction"), tab = self.id, model = opts.model,
  })))
  return type(answer.elements) == "table" and answer.elements or {}
end

--- Does something on the page: what a text says, by a model, or an action that `observe` found, without one.
---@param what string|table
---@param opts lbox.tab.ModelOptions|nil
---@return { success: boolean, message: string, action_description: string, actions: table[] }
function methods:act(what, opts)
  opts = options.call(opts, MODEL_OPTIONS, "tab:act")
  local body = { tab = self.id }
  if type(what) == "table" then
    if type(what.selector) ~= "string" or what.selector == "" then
      errors.raise("usage", "tab:act needs an action with a selector: tab:observe did not find one")
    end
    body.action = what
  else
    body.instruction, body.model = options.nonblank(what, "instruction"), opts.model
  end
  return json.strip_nulls((ask(self, "POST", "act", opts, MODEL_MS, body)))
end

--- Where one can watch the tab. The address has a token in it.
---@param opts lbox.CallOptions|nil
---@return string
function methods:live_view_url(opts)
  opts = options.call(opts, CALL_OPTIONS, "tab:live_view_url")
  return self._link:text("screencast_url", {
    method = "POST", path = "/browser/screencast", json = { tab = self.id }, opts = opts,
    deadline = self._link:deadline(opts, PAGE_MS),
  })
end

--- Closes the tab.
---@param opts lbox.ReadOptions|nil
function methods:close(opts)
  opts = options.call(opts, READ_OPTIONS, "tab:close")
  local path = "/browser/tabs/" .. url.segment(self.id, "the id of a tab")
  self._link:perform { method = "DELETE", path = path, opts = opts }
end

local metatable = namespace.metatable("tab", methods)

--- The object for a tab that is there.
---@param link lbox.Link
---@param data { id: string, url: string?, title: string? }
---@return lbox.Tab
function M.of_data(link, data)
  return setmetatable({ id = data.id, url = data.url, title = data.title, _link = link }, metatable)
end

---@class lbox.BoxTabs
local opening = {}

--- Opens a tab. `timeout` (ms, 0: none) is that of the page and the server's; the client waits 30 s longer.
---@param address string
---@param opts lbox.tab.CreateOptions|nil
---@return lbox.Tab
function opening:create(address, opts)
  opts = options.call(opts, CREATE_OPTIONS, "box.browser.tab:create")
  local link = self._link
  local limit = opts.timeout and opts.timeout > 0 and opts.timeout + GRACE_MS or opts.timeout or PAGE_MS + GRACE_MS
  local spec = {
    method = "POST", path = "/browser/tabs", opts = opts, deadline = link.client:deadline(limit),
    json = { url = options.nonblank(address, "url"), wait_until = opts.wait_until, timeout = opts.timeout },
  }
  return M.of_data(link, link:object("id", spec))
end

M.new = namespace.of_box("box.browser.tab", opening)

return M
