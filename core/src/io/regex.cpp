#include "io/regex.h"

#include "io/literal_count.h"

#include <qmill/error.h>

#include <fmt/format.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace qmill {
namespace {

// A tensor name has a hundred characters or so; honest patterns need a few thousand steps for it.
constexpr std::uint32_t kMaxSteps = 1'000'000;
constexpr std::uint32_t kMaxHeapKilobytes = 64 * 1024;

std::string pcre_message(int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  ~Code() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

Regex::Regex(std::string pattern) : Regex(std::move(pattern), PCRE2_UTF) {}
Regex Regex::of_bytes(std::string pattern) { return {std::move(pattern), 0}; }

Regex::Regex(std::string pattern, std::uint32_t flags) : pattern_(std::move(pattern)), code_(std::make_unique<Code>()) {
  int error = 0;
  PCRE2_SIZE place = 0;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern_.data()), pattern_.size(), flags | PCRE2_NEVER_BACKSLASH_C, &error,
                              &place, nullptr);
  if (code_->code == nullptr)
    throw Error(ErrorKind::usage,
                fmt::format("the pattern '{}' is not a regular expression: {} at character {}", pattern_, pcre_message(error), place));
  code_->context = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(code_->context, kMaxSteps);
  pcre2_set_depth_limit(code_->context, kMaxSteps);
  pcre2_set_heap_limit(code_->context, kMaxHeapKilobytes);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;

bool Regex::run(std::string_view text, std::uint32_t flags) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(pcre2_match_data_create_from_pattern(code_->code, nullptr),
                                                                                 &pcre2_match_data_free);
  const int result = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, flags, data.get(), code_->context);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0)
    throw Error(ErrorKind::usage, fmt::format("the pattern '{}' cannot be matched against '{}': {}", pattern_, text, pcre_message(result)),
                "write it without nested repetitions such as (a+)+");
  return true;
}

bool Regex::search(std::string_view text) const { return run(text, 0); }
bool Regex::matches_whole(std::string_view text) const { return run(text, PCRE2_ANCHORED | PCRE2_ENDANCHORED); }
std::size_t Regex::literal_count() const { return count_literals(pattern_); }

std::string escape_regex(std::string_view text) {
  constexpr std::string_view special = R"(\^$.[|()?*+{})";
  std::string escaped;
  for (const char c : text) {
    if (special.find(c) != std::string_view::npos) escaped += '\\';
    escaped += c;
  }
  return escaped;
}

}  // namespace qmill
