--- `box.browser.recordings`: videos of what a box's browser shows (box-api.md §1.11).
local client = require "lbox.client"
local core = require "lbox.core"
local errors = require "lbox.errors"
local file_transfer = require "lbox.file_transfer"
local json = require "lbox.json"
local namespace = require "lbox.namespace"
local options = require "lbox.options"
local url = require "lbox.url"

local M = {}

local READ_OPTIONS = client.read_options {}
local CALL_OPTIONS = client.call_options {}

---@class lbox.recordings.StartOptions: lbox.CallOptions
---@field max_duration_seconds integer|nil

local START_OPTIONS = client.call_options { max_duration_seconds = "count" }

---@class lbox.recordings.DownloadOptions: lbox.ReadOptions
---@field path string|nil  of the file; nil: `box-recording-ID.mp4` (or `.ts`) in the current directory

local DOWNLOAD_OPTIONS = client.read_options { path = "text" }

local VIDEOS = { ["video/mp4"] = "mp4", ["video/mp2t"] = "ts" }

local START_MS, STOP_MS = 60000, 180000
local PAGE_SIZE = 100
-- A server that always names one more page is not believed for ever.
local MAX_PAGES = 1000

---@class lbox.Recording
---@field id string
---@field box_id string
---@field status "recording"|"completed"|"failed"|"deleted"
---@field started_at integer   Unix ms, and so is ended_at
---@field expires_at integer   Unix seconds
---@field ended_at integer|nil
---@field duration_ms integer|nil
---@field size_bytes integer|nil
---@field markers table[]

---@class lbox.RecordingHandle
---@field id string
local handle = {}

---@class lbox.BoxRecordings
local methods = {}

local function path_of(id)
  return "/browser/recordings/" .. url.segment(id, "the id of a recording")
end

local function get(link, id, opts)
  return link:object("id", { method = "GET", path = path_of(id), opts = opts })
end

local function stop(link, opts)
  return link:object("id", {
    method = "POST", path = "/browser/recordings/stop", opts = opts, deadline = link:deadline(opts, STOP_MS),
  })
end

--- Ends this recording, if it still goes on: the browser of a box has one at a time.
---@param opts lbox.CallOptions|nil
---@return lbox.Recording
function handle:stop(opts)
  opts = options.call(opts, CALL_OPTIONS, "recording:stop")
  local now = get(self._link, self.id, { headers = opts.headers, timeout = opts.timeout })
  if now.status ~= "recording" then
    return now
  end
  return stop(self._link, opts)
end

local handle_metatable = namespace.metatable("recording", handle)

--- Begins to record.
---@param opts lbox.recordings.StartOptions|nil
---@return lbox.RecordingHandle
function methods:start(opts)
  opts = options.call(opts, START_OPTIONS, "box.browser.recordings:start")
  local link = self._link
  local data = link:object("id", {
    method = "POST", path = "/browser/recordings", json = { max_duration_seconds = opts.max_duration_seconds },
    opts = opts, deadline = link:deadline(opts, START_MS),
  })
  return setmetatable({ id = data.id, _link = link }, handle_metatable)
end

--- Ends whatever is recorded in the box.
---@param opts lbox.CallOptions|nil
---@return lbox.Recording
function methods:stop(opts)
  return stop(self._link, options.call(opts, CALL_OPTIONS, "box.browser.recordings:stop"))
end

--- All recordings of the box.
---@param opts lbox.ReadOptions|nil
---@return lbox.Recording[]
function methods:list(opts)
  opts = options.call(opts, READ_OPTIONS, "box.browser.recordings:list")
  local link = self._link
  local deadline = link.client:deadline(opts.timeout)
  local all, cursor = {}, nil
  for _ = 1, MAX_PAGES do
    local spec = {
      method = "GET", path = "/browser/recordings", query = { { "limit", PAGE_SIZE }, { "cursor", cursor } },
      opts = opts, deadline = deadline,
    }
    local answer = json.strip_nulls((link:request(spec)))
    for _, each in ipairs(type(answer.recordings) == "table" and answer.recordings or {}) do
      all[#all + 1] = each
    end
    cursor = answer.next_cursor
    if type(cursor) ~= "string" or cursor == "" then
      return all
    end
  end
  link:nonsense({ method = "GET", path = link.path .. "/browser/recordings" }, 200)
end

--- One of them.
---@param id string
---@param opts lbox.ReadOptions|nil
---@return lbox.Recording
function methods:get(id, opts)
  return get(self._link, id, options.call(opts, READ_OPTIONS, "box.browser.recordings:get"))
end

--- Fetches the video of a recording into a file of this machine, which appears whole or not at all.
---@param id string
---@param opts lbox.recordings.DownloadOptions|nil
---@return string path
function methods:download(id, opts)
  opts = options.call(opts, DOWNLOAD_OPTIONS, "box.browser.recordings:download")
  if opts.path and (opts.path:sub(-1) == "/" or core.is_directory(opts.path)) then
    errors.raise("usage", ("path of box.browser.recordings:download must be that of a file, got the directory %q")
      :format(opts.path))
  end
  local link = self._link
  local spec = {
    method = "GET", path = path_of(id) .. "/download", opts = opts, deadline = link.client:deadline(opts.timeout),
  }
  return file_transfer.save(link, spec, function(req)
    local content_type = (req:header("content-type") or ""):match("^%s*([^;%s]*)"):lower()
    local extension = VIDEOS[content_type]
    if not extension then
      errors.raise("api", ("recording %s came as %q, which is no video"):format(id, content_type), { box_id = link.id })
    end
    return opts.path or ("./box-recording-%s.%s"):format(id:gsub("[^%w_-]", "_"), extension)
  end)
end

M.new = namespace.of_box("box.browser.recordings", methods)

return M
