#include "grid_table.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace qmill {
namespace {

// The first float that Grid::nearest rounds to `code` and not to the one before it.
float threshold(const Grid& grid, int code) {
  const double middle = (static_cast<double>(grid.value(code - 1)) + static_cast<double>(grid.value(code))) / 2;
  const auto rounded = static_cast<float>(middle);
  const bool is_taken = static_cast<double>(rounded) == middle ? code % 2 == 0 : static_cast<double>(rounded) > middle;
  return is_taken ? rounded : std::nextafter(rounded, std::numeric_limits<float>::infinity());
}

}  // namespace

GridTable::GridTable(const Grid& given) : grid(given), values(given.values) {
  for (int code = grid.lowest + 1; code <= grid.highest; ++code) thresholds.push_back(threshold(grid, code));
  if (has_few_codes()) return;
  std::vector<std::int32_t> codes(kBuckets);
  std::vector<float> changes(kBuckets, std::numeric_limits<float>::infinity());
  constexpr std::uint32_t kRest = (std::uint32_t{1} << kBucketShift) - 1;
  for (std::size_t bucket = 0; bucket < kBuckets; ++bucket) {
    const auto start = static_cast<std::uint32_t>(bucket) << kBucketShift;
    float first = std::bit_cast<float>(start), last = std::bit_cast<float>(start | kRest);
    if (std::signbit(first)) std::swap(first, last);
    if (std::isnan(first)) first = std::isnan(last) ? 0 : last;  // infinity, and values that are handled apart
    if (std::isnan(last)) last = first;
    const auto begin = std::upper_bound(thresholds.begin(), thresholds.end(), first);
    const auto end = std::upper_bound(thresholds.begin(), thresholds.end(), last);
    if (end - begin > 1) return;
    codes[bucket] = grid.lowest + static_cast<std::int32_t>(begin - thresholds.begin());
    if (begin != end) changes[bucket] = *begin;
  }
  bucket_codes = std::move(codes);
  bucket_thresholds = std::move(changes);
}

}  // namespace qmill
