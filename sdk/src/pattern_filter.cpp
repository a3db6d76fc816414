#include <qmill/pattern_filter.h>

#include <algorithm>
#include <array>

namespace qmill {
namespace {

using Segments = std::vector<std::string_view>;

Segments split(std::string_view text) {
  Segments segments;
  for (;;) {
    const std::size_t dot = text.find('.');
    segments.push_back(text.substr(0, dot));
    if (dot == std::string_view::npos) return segments;
    text.remove_prefix(dot + 1);
  }
}

// '*' stands for any run of characters. Linear but for the last star, which is the only one that needs to move.
bool glob_match(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

// Whether `found` has `wanted` from segment `start` on.
bool match_at(std::size_t start, const Segments& wanted, const Segments& found) {
  return start + wanted.size() <= found.size() &&
         std::equal(wanted.begin(), wanted.end(), found.begin() + static_cast<std::ptrdiff_t>(start), glob_match);
}

const std::string* first_match(const std::vector<std::string>& patterns, std::string_view name) {
  for (const std::string& pattern : patterns)
    if (segments_match(pattern, name)) return &pattern;
  return nullptr;
}

}  // namespace

std::span<const std::string_view> name_prefixes() {
  static constexpr std::array<std::string_view, 9> kPrefixes = {"model.diffusion_model.",
                                                                "model.language_model.",
                                                                "language_model.model.",
                                                                "diffusion_model.",
                                                                "transformer.",
                                                                "model.model.",
                                                                "text_model.",
                                                                "model.",
                                                                "net."};
  return kPrefixes;
}

bool segments_match(std::string_view pattern, std::string_view name) {
  if (!pattern.starts_with('^')) {
    const Segments wanted = split(pattern);
    const Segments found = split(name);
    for (std::size_t start = 0; start + wanted.size() <= found.size(); ++start)
      if (match_at(start, wanted, found)) return true;
    return false;
  }
  const Segments wanted = split(pattern.substr(1));
  const auto begins = [&](std::string_view own_name) { return match_at(0, wanted, split(own_name)); };
  return begins(name) || std::any_of(name_prefixes().begin(), name_prefixes().end(), [&](std::string_view prefix) {
           return name.starts_with(prefix) && begins(name.substr(prefix.size()));
         });
}

PatternFilter::PatternFilter(FilterData data) : data_(std::move(data)) {}
PatternFilter::~PatternFilter() = default;

FilterVerdict PatternFilter::classify(const TensorInfo& tensor) const {
  if (const std::string* pattern = first_match(data_.remove, tensor.name)) return {Treatment::remove, *pattern};
  if (const std::string* pattern = first_match(data_.keep, tensor.name)) return {Treatment::keep, *pattern};
  return {};
}

}  // namespace qmill
