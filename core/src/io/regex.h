// Regular expressions in Perl syntax, with a bound on the work of one match.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace qmill {

// Immutable; matching is thread-safe.
class Regex {
 public:
  // Throws Error(usage) that names the pattern, the place and the reason.
  explicit Regex(std::string pattern);
  // Of texts that may be any bytes: names of files.
  static Regex of_bytes(std::string pattern);
  ~Regex();
  Regex(Regex&&) noexcept;

  const std::string& pattern() const { return pattern_; }

  // Throws Error(usage) when the match takes more steps than any sane pattern needs (catastrophic backtracking).
  bool search(std::string_view text) const;
  bool matches_whole(std::string_view text) const;

  // How many characters every match must contain: "a+" and "(ab|c)" count 1, "\d" and "x*" count 0.
  std::size_t literal_count() const;

 private:
  Regex(std::string pattern, std::uint32_t flags);
  bool run(std::string_view text, std::uint32_t flags) const;

  struct Code;
  std::string pattern_;
  std::unique_ptr<Code> code_;
};

// `text` as a pattern that matches just it.
std::string escape_regex(std::string_view text);

}  // namespace qmill
