--- `box.browser`: the Chromium of a box made with `browser = true` (box-api.md §1.11). Its pages are in tab.lua,
--- what records it is in recordings.lua.
local client = require "lbox.client"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local recordings = require "lbox.recordings"
local tab = require "lbox.tab"

local M = {}

local READ_OPTIONS = client.read_options {}
local CALL_OPTIONS = client.call_options {}

-- What a browser takes to be asked something that needs no model.
local TIMEOUT_MS = 60000

---@class lbox.BoxBrowser
---@field tab lbox.BoxTabs
---@field recordings lbox.BoxRecordings
local methods = {}

--- The open tabs.
---@param opts lbox.ReadOptions|nil
---@return lbox.Tab[]
function methods:list_tabs(opts)
  opts = options.call(opts, READ_OPTIONS, "box.browser:list_tabs")
  local spec = { path = "/browser/tabs", opts = opts, deadline = self._link:deadline(opts, TIMEOUT_MS) }
  local tabs = {}
  for i, data in ipairs(self._link:list("tabs", spec)) do
    tabs[i] = tab.of_data(self._link, data)
  end
  return tabs
end

--- The tab with this id, whether or not there is one: no request is made.
---@param id string
---@return lbox.Tab
function methods:get_tab(id)
  return tab.of_data(self._link, { id = options.nonblank(id, "the id of a tab") })
end

--- Where a program that speaks the Chrome DevTools Protocol reaches the browser. The address has a token in it.
---@param opts lbox.CallOptions|nil
---@return string
function methods:cdp_url(opts)
  opts = options.call(opts, CALL_OPTIONS, "box.browser:cdp_url")
  return self._link:text("cdp_url", {
    method = "POST", path = "/browser/connect", opts = opts, deadline = self._link:deadline(opts, TIMEOUT_MS),
  })
end

local new = namespace.of_box("box.browser", methods)

---@param link lbox.Link
---@return lbox.BoxBrowser
function M.new(link)
  local self = new(link)
  self.tab, self.recordings = tab.new(link), recordings.new(link)
  return self
end

return M
