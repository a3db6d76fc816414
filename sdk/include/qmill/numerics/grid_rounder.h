// Rounding to any grid, integers or a table of values, vectorized: the same codes as Grid::nearest on every processor.
#pragma once

#include <qmill/grid.h>

#include <cstdint>
#include <memory>

namespace qmill {

struct GridTable;

// Immutable: share one among threads. Borrows nothing.
class QMILL_API GridRounder {
 public:
  explicit GridRounder(const Grid& grid);
  ~GridRounder();
  GridRounder(GridRounder&&) noexcept;

  // codes[i] = grid.nearest(values[i] / scale), the quotient in F32. Values are finite.
  void round(const float* values, std::int64_t n, float scale, std::int8_t* codes) const;
  // The same for a row of n values in tiles of `tile_columns`, each with its scale.
  void round_tiles(const float* values, std::int64_t n, std::int64_t tile_columns, const float* scales, std::int8_t* codes) const;

 private:
  int lowest_;
  int highest_;
  std::unique_ptr<const GridTable> table_;  // null: integers
};

}  // namespace qmill
