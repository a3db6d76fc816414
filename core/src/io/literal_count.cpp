#include "io/literal_count.h"

#include <algorithm>
#include <cctype>

namespace qmill {
namespace {

constexpr int kMaxDepth = 200;  // deeper groups count nothing

// Recursive descent over the grammar: alternatives of sequences of (atom, quantifier).
class Counter {
 public:
  explicit Counter(std::string_view pattern) : text_(pattern) {}

  std::size_t alternatives(int depth) {
    std::size_t fewest = sequence(depth);
    while (!at_end() && peek() == '|') {
      ++at_;
      fewest = std::min(fewest, sequence(depth));
    }
    return fewest;
  }

 private:
  bool at_end() const { return at_ >= text_.size(); }
  char peek() const { return text_[at_]; }
  bool starts(std::string_view prefix) const { return text_.substr(at_).starts_with(prefix); }

  std::size_t sequence(int depth) {
    std::size_t count = 0;
    while (!at_end() && peek() != '|' && peek() != ')') {
      const std::size_t atom_count = atom(depth);
      count += is_optional() ? 0 : atom_count;
    }
    return count;
  }

  std::size_t atom(int depth) {
    const char c = text_[at_++];
    switch (c) {
      case '\\':
        return escape();
      case '[':
        return character_class();
      case '(':
        return group(depth);
      case '.':
      case '^':
      case '$':
        return 0;
      default:
        return literal();
    }
  }

  // One character, of one byte or more.
  std::size_t literal() {
    while (!at_end() && (static_cast<unsigned char>(peek()) & 0xc0) == 0x80) ++at_;
    return 1;
  }

  // What follows a backslash and a letter and belongs to them: "{name}", "<name>", two hexadecimal digits.
  void skip_argument(char letter) {
    constexpr std::string_view kBraced = "pPxogkN";
    const char open = at_end() ? '\0' : peek();
    const char close = open == '{' ? '}' : open == '<' ? '>' : open == '\'' ? '\'' : '\0';
    const bool is_reference = letter == 'k' || letter == 'g';
    if (close != '\0' && (open == '{' ? kBraced.find(letter) != std::string_view::npos : is_reference)) {
      at_ = std::min(text_.find(close, at_ + 1), text_.size() - 1) + 1;
    } else if (letter == 'x') {
      for (int digit = 0; digit < 2 && !at_end() && std::isxdigit(static_cast<unsigned char>(peek())); ++digit) ++at_;
    } else if ((letter == 'p' || letter == 'P' || letter == 'c') && !at_end()) {
      ++at_;
    } else if (std::isdigit(static_cast<unsigned char>(letter)) || is_reference) {
      while (!at_end() && (std::isdigit(static_cast<unsigned char>(peek())) || (is_reference && peek() == '-'))) ++at_;
    }
  }

  std::size_t escape() {
    if (at_end()) return 0;
    const char c = text_[at_++];
    if (c == 'Q') {  // \Q...\E: all of it literally
      const std::size_t end = std::min(text_.find("\\E", at_), text_.size());
      const std::size_t count = end - at_;
      at_ = std::min(end + 2, text_.size());
      return count;
    }
    if (!std::isalnum(static_cast<unsigned char>(c))) return literal();
    // Letters and digits after a backslash are classes, anchors, references and character codes.
    skip_argument(c);
    return 0;
  }

  std::size_t character_class() {
    const bool negated = !at_end() && peek() == '^';
    if (negated) ++at_;
    std::size_t members = 0;
    bool first = true;
    bool is_literal = true;
    while (!at_end() && (peek() != ']' || first)) {
      first = false;
      if (starts("[:")) {
        at_ = std::min(text_.find(":]", at_), text_.size() - 1) + 1;
        is_literal = false;
      }
      if (!at_end() && peek() == '\\') {
        ++at_;
        is_literal = is_literal && !at_end() && !std::isalnum(static_cast<unsigned char>(peek()));
      }
      if (!at_end()) {
        ++at_;
        literal();
      }
      ++members;
    }
    if (!at_end()) ++at_;
    return !negated && is_literal && members == 1 ? 1 : 0;
  }

  std::size_t group(int depth) {
    bool counts = !starts("*");  // a verb: "(*COMMIT)"
    if (starts("?")) {
      counts = starts("?:") || starts("?>") || starts("?|") || starts("?P<") || starts("?'") ||
               (starts("?<") && !starts("?<=") && !starts("?<!"));
      if (starts("?#")) return skip_comment();
      at_ += 1;
      // Up to where the group's own pattern begins; inline flags such as (?i) have none.
      const std::size_t name_end = starts("P<") || (starts("<") && counts) ? text_.find('>', at_)
                                   : starts("'")                           ? text_.find('\'', at_ + 1)
                                                                           : at_;
      at_ = std::min(name_end, text_.size() - 1) + 1;
    }
    if (depth >= kMaxDepth) {
      at_ = text_.size();
      return 0;
    }
    const std::size_t count = alternatives(depth + 1);
    if (!at_end()) ++at_;  // ')'
    return counts ? count : 0;
  }

  std::size_t skip_comment() {
    at_ = std::min(text_.find(')', at_), text_.size() - 1) + 1;
    return 0;
  }

  // Consumes a quantifier after an atom; whether it allows the atom to be absent.
  bool is_optional() {
    if (at_end()) return false;
    bool optional = false;
    if (peek() == '?' || peek() == '*' || peek() == '+') {
      optional = peek() != '+';
      ++at_;
    } else if (peek() == '{' && at_ + 1 < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_ + 1]))) {
      const std::size_t end = text_.find('}', at_);
      if (end == std::string_view::npos) return false;
      std::size_t digit = at_ + 1;
      while (digit < end && text_[digit] == '0') ++digit;
      optional = !std::isdigit(static_cast<unsigned char>(text_[digit]));
      at_ = end + 1;
    } else {
      return false;
    }
    if (!at_end() && (peek() == '?' || peek() == '+')) ++at_;  // lazy, possessive
    return optional;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

std::size_t count_literals(std::string_view pattern) { return Counter(pattern).alternatives(0); }

}  // namespace qmill
