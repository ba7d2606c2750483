local regex = require "lbox.regex"

describe("a regular expression", function()
  -- Pattern, texts with a match, texts without.
  local CASES = {
    { "", { "", "a" }, {} },
    { "b", { "abc" }, { "", "acd" } },
    { "^a+?$", { "a", "aa" }, { "", "ab" } },
    { "^a*?b??$", { "", "aab" }, { "abb" } },
    { "^é+$", { "é", "éé" }, { "", "e", "\195" } },
    { "^.$", { "é", "😀", "\195" }, { "", "ab", "\n", "\r", "\226\128\168" } },
    { "^[à-ÿ]+$", { "éà" }, { "a", "ā" } },
    { "^[^é]$", { "e", "\n", "😀" }, { "é" } },
    { "^(foo|ba[rz])+$", { "foobarbaz" }, { "fooba", "" } },
    { "^(?:a|)b$", { "ab", "b" }, { "a" } },
    { "a|b$", { "ac", "cb" }, { "bc" } },
    { "^[a-c-e]+$", { "abc-e" }, { "d" } },
    { "^[]$|^[^]$", { "a", "\n" }, { "" } },
    { "^[-^.[$]+$", { "-^.[$" }, { "a" } },
    { "^[\\]\\\\\\-\\b]+$", { "]\\-\b" }, { "b" } },
    { "^a{2}b{1,}c{0,2}$", { "aab", "aabbcc" }, { "ab", "aac", "aabccc" } },
    { "^(a?){3}$", { "", "aaa" }, { "aaaa" } },
    { "^(a*)*$", { "", "aaa" }, { "b" } },
    { "^\\d{4}-\\d\\d$", { "2024-05" }, { "2024-5", "２０２４-05" } },
    { "^\\w+\\s\\S$", { "a_1 é", "b\194\160x" }, { "é x" } },
    { "^[\\d\\s]+$", { "1 2" }, { "a" } },
    { "^[^\\W\\d]+$", { "abc_" }, { "a1" } },
    { "\\bcat\\b", { "a cat.", "cat" }, { "cats", "concat" } },
    { "\\Bcat", { "concat" }, { "a cat" } },
    { "^\\u00e9\\u{1F600}\\ud83d\\ude00\\x41\\t\\0\\cA$", { "é😀😀A\t\0\1" }, { "" } },
    { "^\\$\\.\\/\\-\\%$", { "$./-%" }, { "" } },
    { "%d", { "%d" }, { "1" } },
  }

  it("means what it means in ECMAScript", function()
    for _, case in ipairs(CASES) do
      for _, text in ipairs(case[2]) do
        assert.is_true(regex.matches(case[1], text), ("%s should match %q"):format(case[1], text))
      end
      for _, text in ipairs(case[3]) do
        assert.is_false(regex.matches(case[1], text), ("%s should not match %q"):format(case[1], text))
      end
    end
  end)

  it("is refused when it is broken or not of the part that is known", function()
    for pattern, why in pairs {
      ["(?=a)"] = "not (?=", ["(?<!a)"] = "not (?<!", ["(?<n>a)"] = "not (?<n", ["(?i)a"] = "not (?i",
      ["(?"] = "not (?",
      ["(a)\\1"] = "\\1 is not supported", ["\\p{L}"] = "\\p is not supported", ["\\Aa"] = "\\A is not",
      ["[\\B]"] = "\\B is not", ["\\00"] = "\\0 is not",
      ["a\\"] = "backslash", ["\\é"] = "backslash", ["\\u12"] = "without its digits",
      ["\\ud800"] = "no character", ["\\u{110000}"] = "no character", ["\\u{10000000000000041}"] = "no character",
      ["\\x4"] = "two digits", ["\\c1"] = "letter",
      ["("] = "( without its )", ["a)"] = ") without its (", ["[a"] = "[ without its ]",
      ["a]"] = "] as a character is written \\]", ["{a"] = "{ as a character", ["a{x}"] = "{ as a character",
      ["a{2"] = "{ without its }", ["a{,2}"] = "{ as a character", ["a{3,2}"] = "less than its least",
      ["*a"] = "* with nothing to repeat", ["a**"] = "nothing to repeat", ["a++"] = "nothing to repeat",
      ["a|+"] = "nothing to repeat", ["^*"] = "an assertion that is repeated",
      ["[b-a]"] = "before its first", ["[\\d-z]"] = "no first or last", ["[a-\\d]"] = "no first or last",
      ["a{10001}"] = "more than 10000", ["(a{100}){1000}"] = "longer than 10000",
      ["((){9999}){9999}"] = "longer than 10000", ["\255"] = "UTF-8",
      [("("):rep(5000)] = "nested deeper",
    } do
      local program, reason = regex.compile(pattern)
      assert.is_nil(program, pattern)
      assert.is_truthy(reason:find(why, 1, true), ("%s: %s"):format(pattern, reason))
    end
  end)

  it("takes time in proportion to the text", function()
    local text = ("a"):rep(20000)
    local started = os.clock()
    assert.is_false(regex.matches("^(a+)+$", text .. "b"))
    assert.is_false(regex.matches("^(a|a)*b$", text))
    assert.is_false(regex.matches("^(.*,){5}x", text))
    assert.is_true(regex.matches("^.{1,5000}$", text:sub(1, 5000)))
    assert.is_true(os.clock() - started < 5)
  end)
end)
