#include <qmill/numerics/tile_codes.h>

#include "grid_table.h"

#include <qmill/numerics/row_kernels.h>

#include <algorithm>
#include <array>

namespace qmill {
namespace {

using Values = std::array<float, kMostCodes>;

// In halves of sums, which are exact where the values are.
int nearest_of(const float* values, int count, float x) {
  int place = 0;
  for (int i = 0; i + 1 < count; ++i) place += x + x > values[i] + values[i + 1] ? 1 : 0;
  return place;
}

}  // namespace

TileCodes::TileCodes(const Grid& grid, const Layout& layout, std::int64_t columns, TileScales scales)
    : grid_(grid),
      rounder_(grid),
      scales_{scales.values.contiguous(), scales.common.defined() ? scales.common.contiguous() : at::Tensor()},
      scale_of_(scales_.values.const_data_ptr<float>()),
      rounds_values_(grid.scale_grid != nullptr && grid.scale_grid->rounds_values()),
      columns_(columns),
      tile_rows_(layout.tile_rows),
      tile_columns_(layout.tile_columns),
      tiles_(scales_.values.size(1)) {
  if (!scales_.common.defined()) return;
  common_ = scales_.common.const_data_ptr<float>();
  common_step_ = scales_.common.dim() == 1 ? 1 : 0;
}

void TileCodes::values_at(std::int64_t row, std::int64_t column, float* values) const {
  if (!rounds_values_) {
    const float factor = scale(row, column);
    for (int code = grid_.lowest; code <= grid_.highest; ++code) *values++ = grid_.value(code) * factor;
    return;
  }
  const float common = common_ == nullptr ? 0.0f : common_[row / tile_rows_ * common_step_];
  grid_.scale_grid->round_values(grid_, scale(row, column), common, values);
}

float TileCodes::rounded_value(std::int64_t row, std::int64_t column, int code) const {
  Values values;
  values_at(row, column, values.data());
  return values[static_cast<std::size_t>(code - grid_.lowest)];
}

int TileCodes::nearest(std::int64_t row, std::int64_t column, float value) const {
  if (!rounds_values_) return grid_.nearest(value / scale(row, column));
  Values values;
  values_at(row, column, values.data());
  return grid_.lowest + nearest_of(values.data(), grid_.highest - grid_.lowest + 1, value);
}

void TileCodes::round(std::int64_t row, const float* values, std::int8_t* codes) const {
  if (!rounds_values_) return rounder_.round_tiles(values, columns_, tile_columns_, scale_of_ + row / tile_rows_ * tiles_, codes);
  for (std::int64_t first = 0; first < columns_; first += tile_columns_) {
    const std::int64_t count = std::min(tile_columns_, columns_ - first);
    Values table;
    values_at(row, first, table.data());
    round_to_values(values + first, count, table.data(), grid_.highest - grid_.lowest + 1, grid_.lowest, codes + first);
  }
}

void TileCodes::decode(std::int64_t row, const std::int8_t* codes, float* values) const {
  for (std::int64_t first = 0; first < columns_; first += tile_columns_) {
    const std::int64_t count = std::min(tile_columns_, columns_ - first);
    if (rounds_values_) {
      Values table;
      values_at(row, first, table.data());
      for (std::int64_t k = first; k < first + count; ++k) values[k] = table[static_cast<std::size_t>(codes[k] - grid_.lowest)];
    } else if (grid_.values.empty()) {
      scale_codes(codes + first, count, scale(row, first), values + first);
    } else {
      const float factor = scale(row, first);
      for (std::int64_t k = first; k < first + count; ++k) values[k] = grid_.value(codes[k]) * factor;
    }
  }
}

}  // namespace qmill
