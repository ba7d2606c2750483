--- Regular expressions of JSON Schema: the part of ECMA-262 (with its flag u) that doc/schemas.md lists.
--- A pattern becomes a set of states that are followed side by side, so that no text takes longer than
--- its length times that of the pattern; what is not of this part is refused, never guessed.
local characters = require "lbox.regex.characters"
local reader = require "lbox.regex.reader"

local M = {}

-- A pattern with its counts written out is at most this long.
local MAX_STATES = 10000

-- A state goes on to `next` over a character of `set` or where `test` holds, or to all of `branches`.

local END = {}

--- The state in which `node` begins when `next_state` comes after it.
local function build(node, next_state, budget)
  budget.left = budget.left - 1
  if budget.left < 0 then
    reader.refuse(("it is longer than %d with its counts written out"):format(MAX_STATES))
  end
  if node.set or node.test then
    return { set = node.set, test = node.test, next = next_state }
  elseif node.list then
    for i = #node.list, 1, -1 do
      next_state = build(node.list[i], next_state, budget)
    end
    return next_state
  elseif node.choices then
    local branches = {}
    for i, choice in ipairs(node.choices) do
      branches[i] = build(choice, next_state, budget)
    end
    return { branches = branches }
  end
  local state = next_state
  if node.max == math.huge then
    state = {}
    state.branches = { build(node.item, state, budget), next_state }
  else
    for _ = node.min + 1, node.max do
      state = { branches = { build(node.item, state, budget), next_state } }
    end
  end
  for _ = 1, node.min do
    state = build(node.item, state, budget)
  end
  return state
end

-- First states by pattern, as long as memory is not needed.
local compiled = setmetatable({}, { __mode = "v" })

--- Whether `pattern` can be used. Raises nothing.
---@param pattern string
---@return table|nil program  nil when it is no regular expression of this part
---@return string|nil why
function M.compile(pattern)
  local program = compiled[pattern]
  if program then
    return program
  end
  local ok, result = pcall(function()
    return build(reader.read(pattern), END, { left = MAX_STATES })
  end)
  if ok then
    compiled[pattern] = result
    return result
  elseif type(result) == "table" and result.why then
    return nil, result.why
  end
  error(result, 0)
end

--- Puts into `reached` the states with a set that can be had from `state` before the character at `at`.
---@param seen table     where each state was last met
---@param waiting table  room for branches
---@return boolean over  whether the end was reached
local function follow(state, codes, at, reached, seen, waiting)
  local n = 0
  while state do
    local next_state
    if state == END then
      return true
    elseif seen[state] ~= at then
      seen[state] = at
      if state.set then
        reached[#reached + 1] = state
      elseif state.test then
        next_state = state.test(codes, at) and state.next or nil
      else
        for _, branch in ipairs(state.branches) do
          n = n + 1
          waiting[n] = branch
        end
      end
    end
    if not next_state and n > 0 then
      next_state = waiting[n]
      n = n - 1
    end
    state = next_state
  end
  return false
end

--- Whether the text has a match anywhere. The pattern is one that `compile` takes.
---@param pattern string
---@param text string
---@return boolean
function M.matches(pattern, text)
  local first = assert(M.compile(pattern))
  local codes = characters.decode(text)
  local states, seen, waiting = {}, {}, {}
  for at = 1, #codes + 1 do
    local reached = {}
    for _, state in ipairs(states) do
      if characters.contains(state.set, codes[at - 1])
        and follow(state.next, codes, at, reached, seen, waiting) then
        return true
      end
    end
    if follow(first, codes, at, reached, seen, waiting) then
      return true
    end
    states = reached
  end
  return false
end

return M
