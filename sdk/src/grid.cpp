#include <qmill/grid.h>

#include "tile_kernels.h"

#include <qmill/numerics/rounding.h>
#include <qmill/numerics/row_kernels.h>

#include <algorithm>
#include <cmath>

namespace qmill {

ScaleGrid::~ScaleGrid() = default;

float ScaleGrid::wish(const float* row, std::int64_t n, std::int64_t tile_columns, const Grid& grid, float* wished) const {
  const std::int64_t tiles = (n + tile_columns - 1) / tile_columns;
  tile_magnitudes(row, n, tile_columns, wished);
  const float peak = largest_magnitude(wished, tiles);
  const float top = grid.largest();
  for (std::int64_t tile = 0; tile < tiles; ++tile) wished[tile] = std::max(wished[tile] / top, kSmallestScale);
  return peak;
}

at::Tensor ScaleGrid::common(const at::Tensor&) const { return {}; }

bool ScaleGrid::rounds_values() const { return false; }

void ScaleGrid::round_values(const Grid& grid, float scale, float, float* values) const {
  for (int code = grid.lowest; code <= grid.highest; ++code) *values++ = grid.value(code) * scale;
}

int Grid::nearest(float x) const {
  if (std::isnan(x)) return lowest;
  if (values.empty()) return static_cast<int>(std::clamp(std::nearbyint(x), static_cast<float>(lowest), static_cast<float>(highest)));
  const auto above = std::lower_bound(values.begin(), values.end(), x);
  if (above == values.begin()) return lowest;
  if (above == values.end()) return highest;
  const int code = lowest + static_cast<int>(above - values.begin());  // of `above`
  const double middle = (static_cast<double>(above[-1]) + static_cast<double>(*above)) / 2;
  if (static_cast<double>(x) == middle) return code % 2 == 0 ? code : code - 1;
  return static_cast<double>(x) > middle ? code : code - 1;
}

TileScales stored_scales(const WishedScales& wished, const Grid& grid) {
  if (grid.scale_grid == nullptr) return {wished.values};
  const at::Tensor common = grid.scale_grid->common(wished.peaks);
  return {grid.scale_grid->stored(wished.values, common), common};
}

TileScales narrow_bands(const TileScales& scales, std::int64_t begin, std::int64_t count) {
  const bool is_by_band = scales.common.defined() && scales.common.dim() == 1;
  return {scales.values.narrow(0, begin, count), is_by_band ? scales.common.narrow(0, begin, count) : scales.common};
}

}  // namespace qmill
