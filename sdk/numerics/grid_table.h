// A grid's table of values, prepared for kernels: between which floats its codes change.
#pragma once

#include <qmill/grid.h>

#include <cstdint>
#include <vector>

namespace qmill {

struct GridTable {
  // `grid` has a table.
  explicit GridTable(const Grid& grid);

  // Tables of at most so many codes are searched from end to end; longer ones by the first bits of a value.
  static constexpr std::size_t kFewCodes = 16;
  static constexpr int kBucketShift = 20;  // sign, exponent and three bits of the mantissa are left
  static constexpr std::size_t kBuckets = std::size_t{1} << (32 - kBucketShift);

  bool has_few_codes() const { return values.size() <= kFewCodes; }
  bool has_buckets() const { return !bucket_codes.empty(); }

  Grid grid;
  std::vector<float> values;
  std::vector<float> thresholds;          // code lowest + i becomes lowest + i + 1 at thresholds[i], the first value that is nearer to it
  std::vector<std::int32_t> bucket_codes;  // of the smallest value of each bucket; empty: few codes, or a bucket in which more than one changes
  std::vector<float> bucket_thresholds;    // where it changes; infinite: not in this bucket
};

// [n] values to codes, the quotients in F32. The tables of values are those of Grid::nearest.
void round_to_table(const float* values, std::int64_t n, float scale, const GridTable& table, std::int8_t* codes);

}  // namespace qmill
