--- Keys of model providers: the one a box was given, the one stored on this machine, or none because the box's
--- environment has it. A key goes into the environment of the harness's process and nowhere else.
local errors = require "lbox.errors"
local providers = require "lbox.server.harness.providers"

local M = {}

local MAX_KEY, SHOWN = 4096, 8
local MANAGED, STORED = "UPSTASH_KEY", "STORED_KEY"

local function refuse(status, message)
  errors.raise("api", message, { status_code = status })
end

--- Raises 400 unless it can be a key, 422 for the hosted service's own.
---@param key string|nil
function M.check(key)
  if key == MANAGED then
    refuse(422, "agent_api_key UPSTASH_KEY: a local server has no managed key; pass a key of your own, or store one "
      .. "and pass STORED_KEY")
  elseif key and (#key > MAX_KEY or not key:match("^[\33-\126]+$")) then
    refuse(400, ("agent_api_key must be 1 to %d printable ASCII characters without spaces"):format(MAX_KEY))
  end
end

local function stored(server, provider)
  local row = server.store:rows("SELECT api_key FROM credentials WHERE provider = ?", provider.id)[1]
  return row and row.api_key
end

local function has_own(env, provider)
  for _, name in ipairs { provider.key, table.unpack(provider.others or {}) } do
    if env[name] and env[name] ~= "" then
      return true
    end
  end
  return false
end

--- The key for a run; nil when the box's environment has one. Raises 422 when there is none.
---@param server table
---@param config table  the box's
---@param provider lbox.server.Provider
---@param harness lbox.server.Harness
---@return string|nil
function M.of(server, config, provider, harness)
  local key = config.agent_api_key
  if key and key ~= STORED then
    return key
  elseif not key and has_own(config.env_vars or {}, provider) then
    return nil
  end
  key = stored(server, provider)
  if not key then
    refuse(422, ("%s has no key for %s: pass agent.api_key when the box is created, or give the box %s in its env%s")
      :format(harness.name, provider.id, provider.key,
        config.agent_api_key and "; none is stored on this machine" or ""))
  end
  return key
end

-- ---------------------------------------------------------------------------------- stored keys

--- The stored keys as the wire has them: their beginnings only.
---@return table[]
function M.list(server)
  local out = {}
  for i, row in ipairs(server.store:rows("SELECT * FROM credentials ORDER BY provider")) do
    out[i] = { provider = row.provider, key_prefix = row.api_key:sub(1, math.min(SHOWN, #row.api_key // 4)),
      created_at = row.created_at }
  end
  return out
end

--- Stores the key of a provider, in the place of another. Raises 400.
function M.store(server, id, key)
  if not providers.get(id) then
    refuse(400, ("no provider %q: %s"):format(id, table.concat(providers.ids(), ", ")))
  elseif key == MANAGED or key == STORED then
    refuse(400, "invalid key")
  end
  M.check(key)
  server.store:write("INSERT OR REPLACE INTO credentials (provider, api_key, created_at) VALUES (?, ?, ?)", id, key,
    os.time())
end

--- Forgets the key of a provider.
function M.remove(server, id)
  server.store:write("DELETE FROM credentials WHERE provider = ?", id)
end

return M
