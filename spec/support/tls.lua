-- TLS servers for specs (tls_server.mjs), and certificates for them.
local M = {}
M.__index = M

local function shell(command)
  local pipe = io.popen(command)
  local text = pipe:read("*a")
  pipe:close()
  return text
end

-- Made by openssl from the request r.pem.
local SIGN = "openssl x509 -req -in r.pem -signkey key.pem -extfile ext -out cert.pem -days "

--- Starts a server in one of the modes of tls_server.mjs. `cert`: "expired", or the host name in a
--- certificate that is not for this address; nil: one that is good.
---@param mode string
---@param port string|nil
---@param cert string|nil
function M.start(mode, port, cert)
  local dir = shell("mktemp -d"):match("%S+")
  local host = (cert == nil or cert == "expired") and "IP:127.0.0.1" or "DNS:" .. cert
  shell(("cd %s && echo 'subjectAltName=%s' >ext && openssl req -new -newkey ec -pkeyopt "
    .. "ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out r.pem -subj /CN=localhost 2>&1 && %s %d 2>&1"):format(
      dir, host, SIGN, cert == "expired" and -1 or 2))
  local pid = shell(("node spec/support/tls_server.mjs %s/key.pem %s/cert.pem %s %s >%s/out 2>&1 </dev/null & echo $!")
    :format(dir, dir, mode, port or "", dir)):match("%d+")
  local said
  for _ = 1, 200 do
    said = shell(("cat %s/out"):format(dir))
    if said:find("\n") then
      break
    end
    os.execute("sleep 0.02")
  end
  local listens_at = said:match("^(%d+)\n$") or error("the TLS server did not start: " .. said, 0)
  return setmetatable({
    dir = dir, pid = pid, url = "https://127.0.0.1:" .. listens_at, ca_file = dir .. "/cert.pem",
  }, M)
end

function M:stop()
  shell(("kill %s; rm -rf %s"):format(self.pid, self.dir))
end

return M
