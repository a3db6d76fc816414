// Values to codes and back, for every grid and every layout of scales: the codes of a weight [N,K] whose scales are known.
#pragma once

#include <qmill/layout.h>
#include <qmill/numerics/grid_rounder.h>

namespace qmill {

// Borrows the grid; keeps the scales. Const functions are [any-thread] and write only the memory that they are given.
class QMILL_API TileCodes {
 public:
  // `scales`: as they are stored, one per tile of `layout`, for `columns` columns.
  TileCodes(const Grid& grid, const Layout& layout, std::int64_t columns, TileScales scales);

  const Grid& grid() const { return grid_; }
  std::int64_t columns() const { return columns_; }
  float scale(std::int64_t row, std::int64_t column) const { return scale_of_[row / tile_rows_ * tiles_ + column / tile_columns_]; }

  // What `code` is worth there.
  float value(std::int64_t row, std::int64_t column, int code) const {
    return rounds_values_ ? rounded_value(row, column, code) : grid_.value(code) * scale(row, column);
  }
  // The code whose value is nearest.
  int nearest(std::int64_t row, std::int64_t column, float value) const;

  // The codes nearest to the K values of a row.
  void round(std::int64_t row, const float* values, std::int8_t* codes) const;
  // What K codes of a row are worth.
  void decode(std::int64_t row, const std::int8_t* codes, float* values) const;

  // True: the values of a tile are those of ScaleGrid::round_values.
  bool rounds_values() const { return rounds_values_; }
  // What each code is worth in the tile of (row, column), the lowest first.
  void values_at(std::int64_t row, std::int64_t column, float* values) const;

 private:
  float rounded_value(std::int64_t row, std::int64_t column, int code) const;

  const Grid& grid_;
  GridRounder rounder_;
  TileScales scales_;
  const float* scale_of_;
  const float* common_ = nullptr;
  std::int64_t common_step_ = 0;  // 1: one per band
  bool rounds_values_;
  std::int64_t columns_;
  std::int64_t tile_rows_;
  std::int64_t tile_columns_;
  std::int64_t tiles_;
};

}  // namespace qmill
