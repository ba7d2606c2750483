-- Requests as they are compared: what two clients may do differently and still ask the same is taken out here,
-- and nowhere else.
local json = require "lbox.json"

local M = {}

-- Of the headers these are compared. The others are the HTTP library's own (Accept, User-Agent, Host, lengths),
-- or telemetry, whose values name the SDK: of it the names are compared.
local TELEMETRY = "^upstash%-telemetry%-"

-- Python sends null for what is not given, where the other SDKs send nothing; the API takes it for the same.
-- By the end of the path, or the name of the object in the body.
local PYTHON_NULLS = {
  ["/git/clone"] = { "branch", "github_token" },
  ["/git/commit"] = { "author_name", "author_email" },
  ["/git/push"] = { "branch" },
  ["/git/create-pr"] = { "body", "base" },
  ["/git/create-issue"] = { "body" },
  ["/config/git"] = { "git_user_name", "git_user_email" },
  ["/config/network-policy"] = { "allowed_domains", "allowed_cidrs", "denied_cidrs" },
  network_policy = { "allowed_domains", "allowed_cidrs", "denied_cidrs" },
  mcp_servers = { "args", "headers" },
  files = { "filename" },
}

-- Fields of a multipart body whose text is JSON, in which white space means nothing.
local JSON_FIELDS = { json_schema = true, agent_options = true, webhook = true }

local UUID = "%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x"

local function decoded(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

--- A path as its decoded segments: which harmless characters are escaped is the library's choice. A slash
--- within a segment stays escaped. The local name of a run that the server has not named is any UUID.
local function path_of(path)
  path = path:gsub("[^/]+", function(segment) return (decoded(segment):gsub("/", "%%2F")) end)
  return (path:gsub(UUID, "{uuid}"))
end

--- A query as decoded pairs, in their order. A space may be a plus.
local function query_of(query)
  local pairs_in_order = json.array {}
  for pair in query:gmatch("[^&]+") do
    pairs_in_order[#pairs_in_order + 1] = decoded((pair:gsub("%+", " ")))
  end
  return pairs_in_order
end

local function drop_nulls(object, names)
  for _, name in ipairs(names or {}) do
    if object[name] == json.null then
      object[name] = nil
    end
  end
end

local function without_python_nulls(path, body)
  for place, names in pairs(PYTHON_NULLS) do
    local within = body[place]
    if place:sub(1, 1) == "/" and path:sub(-#place) == place then
      drop_nulls(body, names)
    elseif type(within) == "table" then
      drop_nulls(within, names)
      for _, item in ipairs(within) do
        drop_nulls(item, names)
      end
    end
  end
end

--- The command by which `cd` looks for a directory. The SDKs list it, and so take a file for one; lbox names
--- the dot inside, which only a directory has, and lists nothing.
local function cd_command(command)
  local words = table.concat(command, " ")
  local there = words:match("^ls %-d %-%- (/.*)/%.$") or words:match("^ls (/.*)$")
  return there and { "cd", there }
end

local function body_of(request)
  local body, why = json.decode(request.body)
  if body == nil then
    return "not JSON: " .. why
  end
  if request.sdk == "py" then
    without_python_nulls(request.path, body)
  end
  if type(body.command) == "table" then
    body.command = cd_command(body.command) or body.command
  end
  return body
end

--- The parts of one name in their order; the order of names means nothing.
local function parts_of(parts)
  local by_name = {}
  for _, part in ipairs(parts) do
    local list = by_name[part.name] or json.array {}
    by_name[part.name] = list
    list[#list + 1] = {
      filename = part.filename,
      type = part.type,
      content = JSON_FIELDS[part.name] and json.decode(part.content) or part.content,
    }
  end
  return by_name
end

--- A request as it is compared.
function M.normalise(request)
  local telemetry = json.array {}
  for name in pairs(request.headers) do
    if name:find(TELEMETRY) then
      telemetry[#telemetry + 1] = name
    end
  end
  table.sort(telemetry)
  local type_of = request.headers["content-type"]
  return {
    method = request.method,
    path = path_of(request.path),
    query = query_of(request.query),
    key = request.headers["x-box-api-key"],
    type = type_of and type_of:gsub(";%s*boundary=.*", ""),
    telemetry = telemetry,
    body = request.body ~= "" and body_of(request) or nil,
    parts = request.parts and parts_of(request.parts),
    frames = request.frames,
  }
end

-- ------------------------------------------------------------------------------ declared differences

local function copy(value)
  if type(value) ~= "table" then
    return value
  end
  local same = setmetatable({}, getmetatable(value))
  for key, item in pairs(value) do
    same[key] = copy(item)
  end
  return same
end

--- A request written short, { method, path, query =, body = }, in full, with the headers of a usual one.
function M.written(short, like)
  local has_body = short.body ~= nil
  return {
    method = short[1], path = short[2], query = json.array(short.query), key = like.key, telemetry = like.telemetry,
    type = has_body and "application/json" or nil, body = short.body,
  }
end

--- What an SDK has to send: what lbox sends, but for a declared difference.
function M.expected(requests, difference, none, like)
  local wanted = copy(requests)
  if not difference then
    return wanted
  elseif difference.none then
    return {}
  elseif difference.requests then
    for i, short in ipairs(difference.requests) do
      wanted[i] = M.written(short, like)
    end
    return wanted
  end
  if difference.without then
    table.remove(wanted, difference.without)
    return wanted
  end
  local request = wanted[difference.on or #wanted]
  request.path = difference.path or request.path
  request.query = difference.query and json.array(difference.query) or request.query
  for name, value in pairs(difference.body or {}) do
    if value == none then
      value = nil
    end
    request.body[name] = value
  end
  for i, kind in ipairs(difference.types or {}) do
    request.parts.files[i].type = kind
  end
  return wanted
end

--- Requests as text that a reader can compare.
function M.text(requests)
  local lines = {}
  for i, request in ipairs(requests) do
    local query = table.concat(request.query, "&")
    lines[#lines + 1] = ("%d %s %s%s"):format(i, request.method, request.path, query ~= "" and "?" .. query or "")
    for _, name in ipairs { "key", "type", "telemetry", "body", "parts", "frames" } do
      lines[#lines + 1] = request[name] ~= nil and ("  %s %s"):format(name, json.encode(request[name])) or nil
    end
  end
  return #lines > 0 and table.concat(lines, "\n") or "(no request)"
end

return M
