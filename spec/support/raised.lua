-- Calls `fn(...)`, which has to raise an error of that kind, and returns it.
local errors = require "lbox.errors"

return function(kind, fn, ...)
  local ok, err = pcall(fn, ...)
  assert(not ok, "no error was raised")
  assert(errors.is(err, kind), tostring(err))
  return err
end
