--- Characters of patterns and of the texts they are looked for in: code points, and sets of them.
local M = {}

M.LAST_CODE = 0x10FFFF

local REPLACEMENT = 0xFFFD

--- The code point of the character that starts at byte `at`, and where the next one starts. A byte that
--- is none counts as U+FFFD.
function M.decode_at(text, at)
  local lead = text:byte(at)
  if lead < 0x80 then
    return lead, at + 1
  end
  local tail = text:match("^[\194-\244]([\128-\191]+)", at) or ""
  local size = lead >= 0xF0 and 3 or lead >= 0xE0 and 2 or 1
  if #tail < size then
    return REPLACEMENT, at + 1
  end
  local code = lead % (size == 3 and 8 or size == 2 and 16 or 32)
  for i = 1, size do
    code = code * 64 + tail:byte(i) % 64
  end
  return code, at + 1 + size
end

--- The code points of a text.
function M.decode(text)
  local codes, n, at = {}, 0, 1
  while at <= #text do
    n = n + 1
    codes[n], at = M.decode_at(text, at)
  end
  return codes
end

-- A set of characters is a list of first, last, first, last …

local DIGIT = { 0x30, 0x39 }
local WORD = { 0x30, 0x39, 0x41, 0x5A, 0x5F, 0x5F, 0x61, 0x7A }
local SPACE = { 0x09, 0x0D, 0x20, 0x20, 0xA0, 0xA0, 0x1680, 0x1680, 0x2000, 0x200A, 0x2028, 0x2029,
  0x202F, 0x202F, 0x205F, 0x205F, 0x3000, 0x3000, 0xFEFF, 0xFEFF }

--- Whether the character is in the set.
function M.contains(set, code)
  for i = 1, #set, 2 do
    if code >= set[i] and code <= set[i + 1] then
      return true
    end
  end
  return false
end

--- All characters that are not in the set.
function M.complement(set)
  local ranges = {}
  for i = 1, #set, 2 do
    ranges[#ranges + 1] = { set[i], set[i + 1] }
  end
  table.sort(ranges, function(a, b) return a[1] < b[1] end)
  local out, from = {}, 0
  for _, range in ipairs(ranges) do
    if range[1] > from then
      out[#out + 1], out[#out + 2] = from, range[1] - 1
    end
    from = math.max(from, range[2] + 1)
  end
  if from <= M.LAST_CODE then
    out[#out + 1], out[#out + 2] = from, M.LAST_CODE
  end
  return out
end

--- The sets that \d, \w, \s and the others stand for.
M.CLASSES = {
  d = DIGIT, w = WORD, s = SPACE,
  D = M.complement(DIGIT), W = M.complement(WORD), S = M.complement(SPACE),
}

--- What a dot stands for.
M.NO_LINE_END = M.complement { 0x0A, 0x0A, 0x0D, 0x0D, 0x2028, 0x2029 }

--- Whether it is one that makes up words; nil, beyond the text, is none.
function M.is_word(code)
  return code ~= nil and M.contains(WORD, code)
end

return M
