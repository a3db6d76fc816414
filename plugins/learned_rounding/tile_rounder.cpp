#include "tile_rounder.h"

#include <qmill/numerics/products.h>
#include <qmill/numerics/rounding.h>

#include <algorithm>
#include <array>
#include <numeric>

namespace learned_rounding {

using qmill::LayerContext;

void TileRounder::round_shifted(std::int64_t row, float* shift, std::int8_t* codes) const {
  const float* weights = weight(row);
  for (std::int64_t k = 0; k < columns(); ++k) {
    // A tile of zeros has nothing to be shifted by: any shift is many of its steps.
    const bool is_zero = codes_.scale(row, k) <= qmill::kSmallestScale;
    shift[k] = is_zero ? weights[k] : weights[k] - shift[k];
  }
  codes_.round(row, shift, codes);
}

void TileRounder::errors(std::int64_t row, const std::int8_t* codes, float* out) const {
  codes_.decode(row, codes, out);
  const float* weights = weight(row);
  for (std::int64_t k = 0; k < columns(); ++k) out[k] -= weights[k];
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
