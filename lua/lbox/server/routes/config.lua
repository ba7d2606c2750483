--- What a box was given, changed later (box-api.md §1.3).
local errors = require "lbox.errors"
local fields = require "lbox.server.fields"
local git_identity = require "lbox.server.git_identity"
local json = require "lbox.json"
local network_policy = require "lbox.server.network_policy"
local settings = require "lbox.server.settings"
local skills = require "lbox.server.skills"

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

--- A handler: `check(body, config)` raises or returns the settings to change; they are kept and the answer is
--- empty.
local function setter(spec, check)
  return function(server, request, params)
    local row = server.boxes:get(params.id)
    local body = fields.check(request:json(), spec)
    local changes = check(body, row.config)
    server.boxes:configure(row, function(config)
      for name, value in pairs(changes) do
        config[name] = value
      end
    end)
    request:answer(200, {})
  end
end

local set_model = setter({ model = "string!" }, function(body)
  settings.model(body.model)
  return { model = body.model }
end)

local set_custom_runner = setter({ custom_runner = "object!" }, function(body, config)
  if config.agent ~= "custom" then
    refuse(400, ("a custom harness can only be configured on a box with the harness \"custom\", not %q"):format(
      config.agent or "none"))
  end
  settings.custom_runner(body.custom_runner)
  return { custom_runner = body.custom_runner }
end)

local function set_network_policy(server, request, params)
  local row = server.boxes:get(params.id)
  server.boxes:set_network_policy(row, network_policy.check(request:json()))
  request:answer(200, {})
end

-- ------------------------------------------------------------------------------------ init command

local function get_startup(server, request, params)
  request:answer(200, { init_command = server.boxes:get(params.id).config.init_command })
end

local set_startup = setter({ init_command = "string!" }, function(body)
  settings.init_command(body.init_command)
  if not body.init_command:find("%S") then
    refuse(400, "the init command must not be empty: DELETE takes it away")
  end
  return { init_command = body.init_command }
end)

local function delete_startup(server, request, params)
  server.boxes:configure(server.boxes:get(params.id), function(config)
    config.init_command = nil
  end)
  request:answer(200, {})
end

-- --------------------------------------------------------------------------------- labels and skills

--- Adds to a list, or removes from it: `at` is where the value is in it, nil when it is not.
local function change_list(server, row, field, value, change)
  return server.boxes:configure(row, function(config)
    local list = config[field] or {}
    local at
    for i, each in ipairs(list) do
      at = each == value and i or at
    end
    change(list, at)
    config[field] = #list > 0 and list or nil
  end)[field] or {}
end

local function add_label(server, request, params)
  local row = server.boxes:get(params.id)
  local label = fields.check(request:json(), { label = "string!" }).label
  settings.label(label)
  local labels = change_list(server, row, "labels", label, function(list, at)
    if at then
      refuse(409, "Label already added")
    end
    list[#list + 1] = label
    settings.labels(list)
  end)
  request:answer(200, { message = "Label added", labels = json.array(labels) })
end

local function remove_label(server, request, params)
  local labels = change_list(server, server.boxes:get(params.id), "labels", params.label, function(list, at)
    if not at then
      refuse(404, ("the box has no label %q"):format(params.label))
    end
    table.remove(list, at)
  end)
  request:answer(200, { message = "Label removed", labels = json.array(labels) })
end

local function add_skill(server, request, params)
  local row = server.boxes:get(params.id)
  local skill = fields.check(request:json(), { skill_id = "string!" }).skill_id
  settings.skills { skill }
  skills.install(server, row, { skill })
  change_list(server, row, "skills", skill, function(list, at)
    if not at then
      list[#list + 1] = skill
      settings.skills(list)
    end
  end)
  request:answer(200, {})
end

local function remove_skill(server, request, params)
  local row = server.boxes:get(params.id)
  local skill = params.owner .. "/" .. params.repo .. (params.skill and "/" .. params.skill or "")
  local kept = {}
  for _, each in ipairs(row.config.skills or {}) do
    kept[#kept + 1] = each ~= skill and each or nil
  end
  if #kept == #(row.config.skills or {}) then
    refuse(404, ("the box has no skill %q"):format(skill))
  end
  skills.remove(server, row, skill, kept)
  change_list(server, row, "skills", skill, function(list, at)
    table.remove(list, at or #list + 1)
  end)
  request:answer(200, {})
end

-- --------------------------------------------------------------------------------------------- git

local function set_git(server, request, params)
  local row = server.boxes:get(params.id)
  local body = fields.check(request:json(), { git_user_name = "string", git_user_email = "string" })
  settings.git_identity(body)
  request:answer(200, git_identity.set(server, row, body))
end

return {
  { "PUT", "/v2/box/{id}/config/model", set_model },
  { "PUT", "/v2/box/{id}/config/custom-runner", set_custom_runner },
  { "PUT", "/v2/box/{id}/config/network-policy", set_network_policy },
  { "PUT", "/v2/box/{id}/config/git", set_git },
  { "PUT", "/v2/box/{id}/git-config", set_git },
  { "GET", "/v2/box/{id}/startup", get_startup },
  { "PUT", "/v2/box/{id}/startup", set_startup },
  { "DELETE", "/v2/box/{id}/startup", delete_startup },
  { "POST", "/v2/box/{id}/config/labels", add_label },
  { "DELETE", "/v2/box/{id}/config/labels/{label}", remove_label },
  { "POST", "/v2/box/{id}/config/skills", add_skill },
  { "DELETE", "/v2/box/{id}/config/skills/{owner}/{repo}", remove_skill },
  { "DELETE", "/v2/box/{id}/config/skills/{owner}/{repo}/{skill}", remove_skill },
}
