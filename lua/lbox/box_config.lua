--- Methods of a box: what of its making can be changed later.
local client = require "lbox.client"
local enums = require "lbox.enums"
local errors = require "lbox.errors"
local options = require "lbox.options"
local settings = require "lbox.box_settings"

local READ_OPTIONS = client.read_options {}
local CALL_OPTIONS = client.call_options {}

---@class lbox.Box
local methods = {}

--- Changes the model of the box's agent.
---@param model string
---@param opts lbox.CallOptions|nil
function methods:configure_model(model, opts)
  opts = options.call(opts, CALL_OPTIONS, "box:configure_model")
  options.nonblank(model, "model")
  self._link:perform { method = "PUT", path = "/config/model", json = { model = model }, opts = opts }
  self.model_config.model = model
end

--- Changes the program that is the box's agent. Raises `usage` without a request when the harness of the box is
--- another than `custom`.
---@param harness lbox.CustomHarness
---@param opts lbox.CallOptions|nil
function methods:configure_custom_harness(harness, opts)
  opts = options.call(opts, CALL_OPTIONS, "box:configure_custom_harness")
  local runner = settings.custom_runner(harness)
  if self.model_config.harness ~= enums.Agent.CUSTOM then
    errors.raise("usage", ("box %s has the harness %s: only that of a custom one can be configured"):format(
      self.id, self.model_config.harness or "none"), { box_id = self.id })
  end
  self._link:perform {
    method = "PUT", path = "/config/custom-runner", json = { custom_runner = runner }, opts = opts,
  }
end

--- Changes what the box may reach, at once.
---@param policy lbox.NetworkPolicy
---@param opts lbox.CallOptions|nil
function methods:update_network_policy(policy, opts)
  opts = options.call(opts, CALL_OPTIONS, "box:update_network_policy")
  local wire = settings.network_policy(policy)
  self._link:perform { method = "PUT", path = "/config/network-policy", json = wire, opts = opts }
  self.network_policy = wire
end

--- The command that runs in the background at every start of the box's container; "" when there is none.
---@param opts lbox.ReadOptions|nil
---@return string
function methods:get_init_command(opts)
  opts = options.call(opts, READ_OPTIONS, "box:get_init_command")
  local spec = { method = "GET", path = "/startup", opts = opts }
  local command = self._link:ask(spec).init_command or ""
  if type(command) ~= "string" then
    self._link:nonsense(spec, 200)
  end
  return command
end

--- Sets it, from the next start on.
---@param command string
---@param opts lbox.CallOptions|nil
function methods:set_init_command(command, opts)
  opts = options.call(opts, CALL_OPTIONS, "box:set_init_command")
  options.nonblank(command, "the init command")
  self._link:perform { method = "PUT", path = "/startup", json = { init_command = command }, opts = opts }
end

--- Takes it away. What it started runs on.
---@param opts lbox.ReadOptions|nil
function methods:delete_init_command(opts)
  opts = options.call(opts, READ_OPTIONS, "box:delete_init_command")
  self._link:perform { method = "DELETE", path = "/startup", opts = opts }
end

return methods
