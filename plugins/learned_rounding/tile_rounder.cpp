#include "tile_rounder.h"

#include <qmill/numerics/products.h>
#include <qmill/numerics/rounding.h>

#include <algorithm>
#include <array>
#include <numeric>

namespace learned_rounding {

using qmill::LayerContext;

TileRounder::TileRounder(const at::Tensor& weight, const at::Tensor& scales, const qmill::Grid& grid, const qmill::Layout& layout)
    : weight_(weight.const_data_ptr<float>()),
      scales_(scales.const_data_ptr<float>()),
      grid_(grid),
      rounder_(grid),
      rows_(weight.size(0)),
      columns_(weight.size(1)),
      tile_rows_(layout.tile_rows),
      tile_columns_(layout.tile_columns),
      tiles_(scales.size(1)) {}

// Calls run(first, count, scale) for each part of a row that lies in one tile.
template <class Run>
void TileRounder::for_runs(std::int64_t row, Run run) const {
  const float* scales = scales_ + row / tile_rows_ * tiles_;
  for (std::int64_t first = 0; first < columns_; first += tile_columns_, ++scales)
    run(first, std::min(tile_columns_, columns_ - first), *scales);
}

void TileRounder::round_shifted(std::int64_t row, float* shift, std::int8_t* codes) const {
  const float* weights = weight(row);
  for_runs(row, [&](std::int64_t first, std::int64_t count, float scale) {
    float* values = shift + first;
    const float* w = weights + first;
    std::int8_t* out = codes + first;
    // A tile of zeros has nothing to be shifted by: any shift is many of its steps.
    if (scale <= qmill::kSmallestScale) std::fill_n(values, count, 0.0f);
    for (std::int64_t k = 0; k < count; ++k) values[k] = w[k] - values[k];
    rounder_.round(values, count, scale, out);
  });
}

void TileRounder::errors(std::int64_t row, const std::int8_t* codes, float* out) const {
  const float* weights = weight(row);
  for_runs(row, [&](std::int64_t first, std::int64_t count, float scale) {
    if (grid_.values.empty()) {
      for (std::int64_t k = first; k < first + count; ++k) out[k] = static_cast<float>(codes[k]) * scale - weights[k];
    } else {
      for (std::int64_t k = first; k < first + count; ++k) out[k] = grid_.value(codes[k]) * scale - weights[k];
    }
  });
}

at::Tensor matrix(std::int64_t rows, std::int64_t columns, LayerContext& context) {
  return context.allocate(std::array{rows, columns}, qmill::DType::f32);
}

at::Tensor all_errors(const TileRounder& rounder, const at::Tensor& codes, LayerContext& context) {
  at::Tensor errors = matrix(rounder.rows(), rounder.columns(), context);
  auto* out = errors.mutable_data_ptr<float>();
  const auto* in = codes.const_data_ptr<std::int8_t>();
  context.parallel(slices(rounder.rows()), [&](std::int64_t task) {
    const std::int64_t end = std::min(rounder.rows(), (task + 1) * kSliceRows);
    for (std::int64_t row = task * kSliceRows; row < end; ++row)
      rounder.errors(row, in + row * rounder.columns(), out + row * rounder.columns());
  });
  return errors;
}

double squared_norm(const at::Tensor& values, LayerContext& context) {
  const std::int64_t rows = values.size(0), columns = values.size(1);
  std::vector<double> sums(static_cast<std::size_t>(rows));
  const auto* data = values.const_data_ptr<float>();
  context.parallel(slices(rows), [&](std::int64_t task) {
    for (std::int64_t row = task * kSliceRows; row < std::min(rows, (task + 1) * kSliceRows); ++row)
      sums[static_cast<std::size_t>(row)] = qmill::dot(data + row * columns, data + row * columns, columns);
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace learned_rounding
