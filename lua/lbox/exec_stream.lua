--- What comes back while a command or a piece of code runs: its output, then how it ended.
local failure = require "lbox.failure"
local json = require "lbox.json"
local runs = require "lbox.run"
local streams = require "lbox.stream"

local M = {}

local RUN_ID_HEADER = "x-lbox-run-id"

local function finish(self, data)
  local value = json.decode(data)
  local exit_code = type(value) == "table" and value.exit_code
  if not runs.is_exit_code(exit_code) then
    streams.fail(self, "failed", "stream",
      "the end of the command's output does not say its exit code")
  end
  self.exit_code = exit_code
  streams.finish(self, exit_code == 0 and "completed" or "failed")
  value.type = "exit"
  return json.strip_nulls(value)
end

local function refuse(self, data)
  local value = json.decode(data)
  local message = type(value) == "table" and value.error
  if type(message) ~= "string" or message == "" then
    message = "the command could not be run"
  end
  streams.fail(self, "failed", "run", failure.said(message))
end

local kind = {}

function kind.translate(self, event, data)
  if event == "output" then
    streams.keep(self, data)
    return { type = "output", data = data }
  elseif event == "exit" then
    return finish(self, data)
  end
  refuse(self, data)
end

--- Without its exit the command is lost: nothing can tell how it ended.
function kind.at_end(self)
  local what = self._req:failure() and "the output was cut off" or "the output ended"
  streams.fail(self, "failed", "stream", what .. " before the command's exit code came")
end

function kind.text(text)
  return text
end

---@class lbox.exec_stream.Options
---@field link lbox.Link
---@field type "command"|"code"
---@field spec lbox.client.Spec
---@field deadline lbox.Deadline
---@field idle_timeout number|nil

--- Starts a command and returns its stream.
---@param opts lbox.exec_stream.Options
---@return lbox.Stream
function M.open(opts)
  local self = streams.open {
    link = opts.link,
    type = opts.type,
    kind = kind,
    spec = opts.spec,
    deadline = opts.deadline,
    idle_timeout = opts.idle_timeout,
  }
  -- A local server says which run it is, so that a cancel reaches the command.
  self._run_id = self._transfer.req:header(RUN_ID_HEADER)
  return self
end

return M
