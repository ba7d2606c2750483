-- For each rule of doc/concurrency.md the smallest change of the code that breaks it.
return {
  -- 1: a task is not the scope of what it spawns
  { file = "async/combinators.lua", find = "return tasks.start(waits.current().scope, nil, fn, ...)",
    replace = "return tasks.start(rt.root, nil, fn, ...)" },
  -- 2: closed before the tasks ended
  { file = "async/task.lua", find = "function leave(scope)\n  if scope.first then",
    replace = "function leave(scope)\n  Scope.run_closers(scope, note)\n  if scope.first then" },
  -- 3: begins although it was cancelled before
  { file = "async/task.lua", find = "  if task.cancel_error then\n    -- Cancelled before it began",
    replace = "  if false then\n    -- Cancelled before it began" },
  -- 4: errors of nobody's tasks are dropped
  { file = "async/task.lua", find = "elseif not first and not others then",
    replace = "elseif first and not others then" },
  -- 5: spawning in a scope that was left is taken
  { file = "async/task.lua", find = "function M.start(owner, name, fn, ...)\n  if owner.left then",
    replace = "function M.start(owner, name, fn, ...)\n  if false then" },
  -- 6: a task begins inside of spawn
  { file = "async/task.lua", find = "  loop:wake(task)\n  return task", replace = "  resume(task)\n  return task" },
  -- 7: nested without end
  { file = "async/wait.lua", find = "local MAX_NESTED = 20", replace = "local MAX_NESTED = 2000" },
  -- 8: a deadlock is a hang
  { file = "async/wait.lua",
    find = "    elseif loop:idle() then\n      deadlock()",
    replace = "    elseif false then\n      deadlock()" },
  -- 9: a fast task keeps the turn
  { file = "async/wait.lua", find = "local SLICE_MS = 2", replace = "local SLICE_MS = 2000" },
  -- 10: who resumes a task from outside gets away with it
  { file = "async/wait.lua", find = "  if yield(YIELD) == GO then\n    return nil\n  end",
    replace = "  if yield(YIELD) ~= false then\n    return nil\n  end" },
  -- 11: an awaited error does not fail the owner
  { file = "async/task.lua", find = 'if owner.on_error ~= "report" then',
    replace = "if not first and not others then" },
  -- 12: the last error is raised instead of the first
  { file = "async/scope.lua",
    find = "  if not scope.failed then\n    scope.failed, scope.failure = true, err\n  end\n  if scope.on_error",
    replace = "  scope.failed, scope.failure = true, err\n  if scope.on_error" },
  -- 13: where it was awaited is not told
  { file = "async/trace.lua", find = "elseif seen_in[seen] ~= co and seen.parts < MAX_PARTS then",
    replace = "elseif false then" },
  -- 14: the cancel is an event: the first wait raises, the next does not
  { file = "async/wait.lua", find = "  if op.on_cancel then\n    op.on_cancel(op)\n  end\n  error(err, 0)",
    replace = "  if op.on_cancel then\n    op.on_cancel(op)\n  end\n"
      .. "  M.current().scope.cancel_error = false\n  error(err, 0)" },
  -- 15: the last reason counts
  { file = "async/combinators.lua", find = "  if not self.cancel_error then\n    Scope.cancel(self, reason)",
    replace = "  do\n    self.cancel_error = false\n    Scope.cancel(self, reason)" },
  -- 16: a result that is there is dropped
  { file = "async/wait.lua", find = "    if not op.settled then\n      give_up(op, err or scope.cancel_error)\n    end",
    replace = "    if not op.settled or scope.cancel_error then\n"
      .. "      give_up(op, err or scope.cancel_error)\n    end" },
  -- 17: a scope cut short is left as if it were complete
  { file = "async/task.lua",
    find = "if unfinished and scope.cancel_error and not scope.failed then",
    replace = "if false then" },
  -- 18: a shield keeps nothing off
  { file = "async/combinators.lua", find = "return limited(tasks.new_scope(nil, true), ms, message, fn)",
    replace = "return limited(tasks.new_scope(nil, false), ms, message, fn)" },
  -- 19: the limit passes
  { file = "async/combinators.lua", find = "  Scope.cancel(timer.scope, timer.reason)",
    replace = "  do return timer end" },
  -- 20: what is open is not told of the cancel
  { file = "async/scope.lua", find = "xpcall(closer.fn, handler, scope.cancel_error or nil)",
    replace = "xpcall(closer.fn, handler, nil)" },
  -- 21: does not wait for those it cancelled
  { file = "async/combinators.lua", find = "finish(tasks.run_scope(scope, gather_all, scope, results, fns, n))",
    replace = "gather_all(rt.root, results, fns, n) M.sleep(3) error('failed', 0)" },
  -- 22: the losers go on
  { file = "async/combinators.lua", find = 'race.scope:cancel("another won the race")', replace = "return" },
  -- 23: one more than may be
  { file = "async/combinators.lua",
    find = "for _ = 1, math.min(limit, job.n) do",
    replace = "for _ = 1, math.min(limit + 1, job.n) do" },
  -- 24: the latest is served first
  { file = "async/waiters.lua", find = "  local op = self.first\n", replace = "  local op = self.last\n" },
  -- 25: does not wait for what was spawned
  { file = "async/combinators.lua", find = 'return tasks.start(scope, "main", fn, ...):await()',
    replace = "do local r = { fn(...) } Scope.cancel(scope) return unpack(r) end" },
  -- 26: waits for clean-up as long as it takes
  { file = "async/task.lua", find = "if left <= 0 and (loop.head > loop.tail or left < -OVERTIME_MS) then",
    replace = "if left <= -3000 then" },
  -- 27: what the server has not named is left to go on
  { file = "client.lua", find = "    if spec.undo and transfer.req:sent() then", replace = "    if false then" },
  -- 28: a time limit leaves it to go on
  { file = "client.lua", find = "  if not spec.undo or not transfer.req:sent() then", replace = "  if true then" },
  -- 29: what is under way goes on
  { file = "budget.lua", find = "      entry:stop(self, reason(self, name))", replace = "      return entry" },
  -- 30: each refused request is on its own
  { file = "pace.lua", find = "  if not fan_out then", replace = "  if true then" },
}
