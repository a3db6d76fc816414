#include <qmill/grid.h>

#include <algorithm>
#include <cmath>

namespace qmill {

ScaleGrid::~ScaleGrid() = default;

at::Tensor ScaleGrid::common(const at::Tensor&) const { return {}; }

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

TileScales stored_scales(const at::Tensor& wished, const Grid& grid) {
  if (grid.scale_grid == nullptr) return {wished, {}};
  const at::Tensor common = grid.scale_grid->common(wished);
  return {grid.scale_grid->stored(wished, common), common};
}

}  // namespace qmill
