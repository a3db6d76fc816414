#include <qmill/pattern_filter.h>

#include <algorithm>

namespace qmill {
namespace {

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> segments;
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

const std::string* first_match(const std::vector<std::string>& patterns, std::string_view name) {
  for (const std::string& pattern : patterns)
    if (segments_match(pattern, name)) return &pattern;
  return nullptr;
}

}  // namespace

bool segments_match(std::string_view pattern, std::string_view name) {
  const bool anchored = pattern.starts_with('^');
  if (anchored) pattern.remove_prefix(1);
  const std::vector<std::string_view> wanted = split(pattern);
  const std::vector<std::string_view> found = split(name);
  if (wanted.size() > found.size()) return false;
  const std::size_t last_start = anchored ? 0 : found.size() - wanted.size();
  for (std::size_t start = 0; start <= last_start; ++start)
    if (std::equal(wanted.begin(), wanted.end(), found.begin() + static_cast<std::ptrdiff_t>(start), glob_match)) return true;
  return false;
}

PatternFilter::PatternFilter(FilterData data) : data_(std::move(data)) {}
PatternFilter::~PatternFilter() = default;

FilterVerdict PatternFilter::classify(const TensorInfo& tensor) const {
  if (const std::string* pattern = first_match(data_.remove, tensor.name)) return {Treatment::remove, *pattern};
  if (const std::string* pattern = first_match(data_.keep, tensor.name)) return {Treatment::keep, *pattern};
  return {};
}

double PatternFilter::detect(std::span<const TensorInfo> tensors) const {
  if (data_.fingerprint.empty()) return 0;
  const auto occurs = [&](const std::string& pattern) {
    return std::any_of(tensors.begin(), tensors.end(), [&](const TensorInfo& tensor) { return segments_match(pattern, tensor.name); });
  };
  const auto hits = std::count_if(data_.fingerprint.begin(), data_.fingerprint.end(), occurs);
  return static_cast<double>(hits) / static_cast<double>(data_.fingerprint.size());
}

}  // namespace qmill
