#include "io/regex.h"

#include "core_support.h"
#include "io/literal_count.h"

namespace qmill {
namespace {

using testing::expect_error;

TEST(Regex, SearchFindsThePatternAnywhereInTheName) {
  const Regex regex("attn\\.q");
  EXPECT_TRUE(regex.search("blocks.0.attn.q_proj"));
  EXPECT_FALSE(regex.search("blocks.0.attnXq_proj"));
}

TEST(Regex, WholeMatchNeedsEveryCharacter) {
  const Regex regex("blocks\\.\\d+");
  EXPECT_TRUE(regex.matches_whole("blocks.17"));
  EXPECT_FALSE(regex.matches_whole("blocks.17.attn"));
  EXPECT_FALSE(regex.matches_whole("my.blocks.17"));
}

TEST(Regex, WholeMatchTriesEveryAlternative) { EXPECT_TRUE(Regex("a|ab").matches_whole("ab")); }

TEST(Regex, PerlSyntaxIsUnderstood) {
  EXPECT_TRUE(Regex("(?<!cross_)attn").search("self_attn"));
  EXPECT_FALSE(Regex("(?<!cross_)attn").search("cross_attn"));
  EXPECT_TRUE(Regex("(?i)ATTN").search("attn"));
  EXPECT_TRUE(Regex("^layer\\.(\\d)\\.\\1$").search("layer.4.4"));
  EXPECT_TRUE(Regex("^.$").search("é"));  // a character, not a byte
}

TEST(Regex, ABadPatternIsNamedWithPlaceAndReason) {
  for (const char* pattern : {"(", "a)", "[a", "*a", "a{2,1}", "(?<n>a)(?<n>b)", "\\", "(?P<", "\\p{Nonsense}", "(?(1)a|b|c)"})
    expect_error(ErrorKind::usage, {pattern, "not a regular expression", "at character"}, [&] { Regex regex(pattern); });
}

TEST(Regex, InvalidUtf8InAPatternIsAnError) {
  expect_error(ErrorKind::usage, {"not a regular expression"}, [] { Regex regex("a\xff"); });
}

TEST(Regex, CatastrophicBacktrackingEndsInAnErrorThatNamesThePattern) {
  const std::string name(5000, 'a');
  // Possessive verbs and start optimizations aside, each of these is exponential in the length of the name.
  for (const char* pattern :
       {"(a+)+$", "(a|a)*$", "(a*)*$", "((a+)+)+$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(a|aa)+$", "(?:a?){40}a{40}$", "(.*)*x"})
    expect_error(ErrorKind::usage, {pattern, "cannot be matched"}, [&] {
      if (!Regex(pattern).search(name + "!"))
        throw Error(ErrorKind::usage, std::string(pattern) + " cannot be matched: it found out without an error");
    });
}

TEST(Regex, TheBacktrackingBoundIsReallyReached) {
  expect_error(ErrorKind::usage, {"(a+)+$", "limit", "nested repetitions"}, [] { Regex("(a+)+$").search(std::string(5000, 'a') + "!"); });
}

TEST(Regex, APatternThatIsTooLargeIsAnError) {
  expect_error(ErrorKind::usage, {"not a regular expression"}, [] { Regex regex("((((a{1000}){1000}){1000}){1000})"); });
  expect_error(ErrorKind::usage, {"not a regular expression"}, [] { Regex regex(std::string(5000, '(') + std::string(5000, ')')); });
}

TEST(Regex, AnEscapedNameMatchesJustItself) {
  for (const std::string name : {"a.b", "a+b", "x[0](y){z}^$|?*\\", "blocks.0.attn-q", "ünï.コード", "\"quoted\" #1", "\\Q\\E"}) {
    const Regex regex(escape_regex(name));
    EXPECT_TRUE(regex.matches_whole(name)) << name;
    EXPECT_FALSE(regex.matches_whole(name + "x")) << name;
  }
  EXPECT_FALSE(Regex(escape_regex("a.b")).search("aXb"));
}

struct LiteralCase {
  const char* pattern;
  std::size_t literals;
};

TEST(LiteralCount, CountsWhatEveryMatchMustContain) {
  const LiteralCase cases[] = {
      {"", 0},
      {"abc", 3},
      {"a.c", 2},
      {"^abc$", 3},
      {"a\\.b", 3},
      {"\\\\", 1},
      {"\\d\\w\\s\\b", 0},
      {"blocks\\.\\d+\\.attn", 12},
      {"a*", 0},
      {"a+", 1},
      {"a?b", 1},
      {"a{3}", 1},
      {"a{0,2}b", 1},
      {"a{1,2}b", 2},
      {"a{00}b", 1},
      {"a+?b*?c", 2},
      {"a++b*+c", 2},
      {"ab|c", 1},
      {"abc|", 0},
      {"(ab|c)", 1},
      {"x(ab|c)y", 3},
      {"(ab)?c", 1},
      {"(ab)*", 0},
      {"(?:ab|cde)f", 3},
      {"(?>ab)c", 3},
      {"(?|ab|cd)", 2},
      {"(?<name>ab)", 2},
      {"(?P<name>ab)", 2},
      {"(?'name'ab)", 2},
      {"(?=abc)d", 1},
      {"(?!abc)d", 1},
      {"(?<=abc)d", 1},
      {"(?<!abc)d", 1},
      {"(?#comment)d", 1},
      {"(?i)abc", 3},
      {"(?-i)abc", 3},
      {"[a]", 1},
      {"[\\.]", 1},
      {"[ab]", 0},
      {"[a-z]x", 1},
      {"[^a]x", 1},
      {"[]]", 1},
      {"[]a]x", 1},
      {"[\\]]x", 2},
      {"[\\d]x", 1},
      {"[[:alpha:]]x", 1},
      {"[^[:alpha:]]x", 1},
      {"\\Qa.b\\Ec", 4},
      {"\\Qa.b", 3},
      {"\\p{Lu}x", 1},
      {"\\pLx", 1},
      {"\\x{41}b", 1},
      {"\\x41b", 1},
      {"(a)\\1b", 2},
      {"(?<n>a)\\k<n>b", 2},
      {"(?<n>a)\\k'n'b", 2},
      {"(?<n>a)\\g{n}b", 2},
      {"(*COMMIT)ab", 2},
      {"é?", 0},
      {"éa", 2},
  };
  for (const LiteralCase& test : cases) EXPECT_EQ(count_literals(test.pattern), test.literals) << test.pattern;
}

TEST(LiteralCount, EveryPatternOfTheTableIsOneThatCanBeCompiled) {
  // The counter is made for valid patterns; a table of invalid ones would prove nothing.
  for (const char* pattern : {"a{00}b", "[]a]x", "(?|ab|cd)", "(?'name'ab)", "\\pLx", "(?<n>a)\\k'n'b", "(*COMMIT)ab"})
    EXPECT_NO_THROW(Regex regex(pattern)) << pattern;
}

TEST(LiteralCount, EndsOnUnbalancedAndHostileText) {
  const std::string deep(100'000, '(');
  for (const std::string& pattern : {std::string("("),
                                     std::string(")"),
                                     std::string("["),
                                     std::string("[["),
                                     std::string("[:"),
                                     std::string("[[:"),
                                     std::string("[\\"),
                                     std::string("\\"),
                                     std::string("\\Q"),
                                     std::string("\\p{"),
                                     std::string("a{"),
                                     std::string("a{1"),
                                     std::string("(?"),
                                     std::string("(?<"),
                                     std::string("(?P<"),
                                     std::string("(?'"),
                                     std::string("(?#"),
                                     std::string("|||"),
                                     std::string("((((|"),
                                     std::string("?"),
                                     std::string("(*"),
                                     std::string("\\k<"),
                                     std::string("\\x"),
                                     std::string("\xff\x80"),
                                     deep,
                                     deep + "a" + std::string(100'000, ')')})
    EXPECT_LE(count_literals(pattern), pattern.size());
}

TEST(LiteralCount, TextAfterAClosingBracketWithoutAnOpeningOneDoesNotHang) { EXPECT_LE(count_literals("a)b"), 3u); }

}  // namespace
}  // namespace qmill
