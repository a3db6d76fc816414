#include "grid_table.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace qmill {
namespace {

constexpr std::uint32_t kRestCount = std::uint32_t{1} << GridTable::kRestBits;

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
  find_small_float();
  if (small_float.mantissa_bits != 0) return;
  if (has_few_codes())
    fill_levels();
  else
    fill_buckets();
}

void GridTable::find_small_float() {
  if (grid.lowest != -grid.highest || grid.value(0) != 0) return;
  const float step = grid.value(1);
  int exponent = 0;
  if (std::frexp(step, &exponent) != 0.5f || !std::isnormal(step)) return;
  if (!std::isfinite(std::ldexp(grid.largest(), 24))) return;  // kernels add so much
  for (int bits = 1; bits <= kMostMantissaBits; ++bits) {
    const int ones = 1 << bits;
    bool fits = grid.highest > ones;
    for (int code = 1; code <= grid.highest; ++code) {
      const int power = std::max(0, code / ones - 1);
      const float expected = std::ldexp(step, power) * static_cast<float>(code < ones ? code : ones + code % ones);
      fits = fits && grid.value(code) == expected && grid.value(-code) == -expected;
    }
    if (fits) small_float = {bits, grid.highest, std::ldexp(step, bits), grid.largest()};
  }
}

std::int32_t GridTable::place_of(float x) const {
  return static_cast<std::int32_t>(std::upper_bound(thresholds.begin(), thresholds.end(), x) - thresholds.begin());
}

void GridTable::fill_levels() {
  values.resize(kFewCodes, values.back());
  for (int level = 0; level < kLevels; ++level) {
    levels[static_cast<std::size_t>(level)].fill(std::numeric_limits<float>::quiet_NaN());
    const std::size_t step = kFewCodes >> level;
    for (std::size_t i = 0; i < std::size_t{1} << level; ++i) {
      const std::size_t middle = i * step + step / 2 - 1;
      if (middle < thresholds.size()) levels[static_cast<std::size_t>(level)][i] = thresholds[middle];
    }
  }
}

void GridTable::fill_buckets() {
  std::vector<std::int32_t> made(kBuckets);
  for (std::size_t bucket = 0; bucket < kBuckets; ++bucket) {
    const auto start = static_cast<std::uint32_t>(bucket) << kRestBits;
    const auto place = [&](std::uint32_t rest) { return place_of(std::bit_cast<float>(start | rest)); };
    // From infinity on only NaN follows, which kernels handle by themselves.
    const std::uint32_t count = std::isfinite(std::bit_cast<float>(start)) ? kRestCount : 1;
    const std::int32_t first = std::isnan(std::bit_cast<float>(start)) ? 0 : place(0);
    const std::int32_t last = count == 1 ? first : place(count - 1);
    if (std::abs(last - first) > 1) return;
    std::uint32_t rest = kRestCount;
    if (last != first) {
      std::uint32_t same = 0;  // still the first code
      rest = count - 1;        // the other one
      while (rest - same > 1) {
        const std::uint32_t middle = same + (rest - same) / 2;
        (place(middle) == first ? same : rest) = middle;
      }
    }
    made[bucket] = static_cast<std::int32_t>(rest << 8) | first;
  }
  buckets = std::move(made);
}

}  // namespace qmill
