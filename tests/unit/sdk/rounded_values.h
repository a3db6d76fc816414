// A grid whose values a format rounds, for tests: to multiples of the row's step, as asym_w4a8_int8 does it.
#pragma once

#include <qmill/grid.h>
#include <qmill/layout.h>

#include <ATen/TensorOperators.h>

#include <cmath>

namespace qmill::testing {

class RoundedToSteps final : public ScaleGrid {
 public:
  at::Tensor common(const at::Tensor& peaks) const override { return peaks.div(12).clamp_min(1e-8); }
  at::Tensor stored(const at::Tensor& wished, const at::Tensor&) const override { return wished.clone(); }
  bool rounds_values() const override { return true; }
  void round_values(const Grid& grid, float scale, float common, float* values) const override {
    for (int code = grid.lowest; code <= grid.highest; ++code) *values++ = std::nearbyint(grid.value(code) * scale / common) * common;
  }
};

// The grid with values of a coarse step: some codes are worth the same.
inline Grid rounded(Grid grid) {
  static const RoundedToSteps scales;
  grid.scale_grid = &scales;
  return grid;
}

inline Layout short_tiles(std::int64_t columns) {
  Layout layout;
  layout.scaling = Scaling::block;
  layout.tile_columns = columns;
  return layout;
}

// What a code is worth, as it is written down.
inline double worth(const Grid& grid, const Layout& layout, const TileScales& scales, std::int64_t row, std::int64_t column, int code) {
  const float scale = scales.values[row / layout.tile_rows][column / layout.tile_columns].item<float>();
  if (grid.scale_grid == nullptr || !grid.scale_grid->rounds_values())
    return static_cast<double>(grid.value(code)) * static_cast<double>(scale);
  const float step = scales.common[row / layout.tile_rows].item<float>();
  return static_cast<double>(std::nearbyint(grid.value(code) * scale / step) * step);
}

}  // namespace qmill::testing
