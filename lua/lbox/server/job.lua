--- Tasks of the server's that somebody may cancel. A task that is cancelled before it has begun does not
--- begin; a job does, and fails at once, so that it always undoes what was prepared for it.
local errors = require "lbox.errors"

---@class lbox.server.Job
local Job = {}
Job.__index = Job

--- Runs `fn` in the server's scope.
---@param server table
---@param fn fun(): any
---@param done fun(ok: boolean, result: any)|nil  called at its end, however that came; does not wait
---@return lbox.server.Job
function Job.start(server, fn, done)
  local job = setmetatable({}, Job)
  job.task = server.scope:spawn(function()
    job.begun = true
    local ok, result = pcall(function()
      if job.cancelled then
        errors.raise("cancelled", job.cancelled)
      end
      return fn()
    end)
    if done then
      done(ok, result)
    end
    return ok, result
  end)
  return job
end

--- Ends it. It has ended when `wait` returns.
---@param reason string
function Job:cancel(reason)
  self.cancelled = reason
  if self.begun then
    self.task:cancel(reason)
  end
end

--- Waits for its end: `true` and what `fn` returned, or `false` and the error.
---@return boolean ok, any result
function Job:wait()
  return self.task:await()
end

return Job
