// A grid's table of values, prepared for kernels: between which floats its codes change.
#pragma once

#include <qmill/grid.h>

#include <array>
#include <cstdint>
#include <vector>

namespace qmill {

inline constexpr std::size_t kMostCodes = 256;  // of an 8-bit code

struct GridTable {
  // `grid` has a table.
  explicit GridTable(const Grid& grid);

  // Other tables of at most so many codes are searched in registers, by halves; longer ones are looked up by the first bits of a value.
  static constexpr std::size_t kFewCodes = 16;
  static constexpr int kLevels = 4;
  static constexpr int kRestBits = 20;  // of a value: what sign, exponent and three bits of the mantissa leave
  static constexpr std::size_t kBuckets = std::size_t{1} << (32 - kRestBits);

  // Codes that count the values of a small float, the same on both sides of zero, need no table at all.
  struct SmallFloat {
    int mantissa_bits = 0;  // 0: they do not
    int highest = 0;        // code
    float smallest_normal = 0, largest = 0;
  };
  static constexpr int kMostMantissaBits = 3;

  bool has_few_codes() const { return values.size() <= kFewCodes; }
  bool has_buckets() const { return !buckets.empty(); }

  Grid grid;
  std::vector<float> values;      // of the codes; those of a search by halves are kFewCodes
  std::vector<float> thresholds;  // code lowest + i becomes lowest + i + 1 at thresholds[i], the first value that is nearer to it

  SmallFloat small_float;

  // Few codes: level l has 2^l thresholds, those in the middle of what the levels before it leave open; NaN, which no value passes, after the
  // last. Each level in whole vectors.
  std::array<std::array<float, kFewCodes>, kLevels> levels = {};

  // Many: by the first bits of a value, (rest << 8) | (code - lowest). The code is that of values whose other bits are below `rest`; of the
  // others it is the next one away from zero. Empty: several codes change among values with the same first bits.
  std::vector<std::int32_t> buckets;

 private:
  void find_small_float();
  void fill_levels();
  void fill_buckets();
  std::int32_t place_of(float x) const;  // its code - lowest
};

// [n] values to places: how many of the sums of neighbours in `table`, of `count` ascending values, are below twice the value.
void round_to_values(const float* values, std::int64_t n, const float* table, int count, int lowest, std::int8_t* codes);

// [n] values to codes, the quotients in F32: what Grid::nearest says of them. Each tile has its scale.
void round_to_table(const float* values, std::int64_t n, std::int64_t tile_columns, const float* scales, const GridTable& table,
                    std::int8_t* codes);

}  // namespace qmill
