// LDLQ as it is written down: one column after the other, in F64.
#pragma once

#include <qmill/coded_format.h>

#include <ATen/ops/linalg_cholesky.h>
#include <ATen/ops/linalg_inv.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace qmill::testing {

inline Layout tiles_of(Scaling scaling, std::int64_t rows, std::int64_t columns) {
  Layout layout;
  layout.scaling = scaling;
  layout.tile_rows = scaling == Scaling::tensor ? rows : scaling == Scaling::block ? 32 : 1;
  layout.tile_columns = scaling == Scaling::block ? 32 : columns;
  return layout;
}

// Values that no integers stand for; the largest is not 1.
inline Grid uneven_grid() {
  Grid grid;
  grid.lowest = -8;
  grid.highest = 7;
  grid.values = {-2.0f, -1.4f, -1.0f, -0.8f, -0.55f, -0.36f, -0.18f, 0.0f, 0.25f, 0.5f, 0.75f, 0.96f, 1.12f, 1.44f, 1.7f, 2.0f};
  return grid;
}

inline Grid integers_to(int highest) {
  Grid grid;
  grid.lowest = -highest;
  grid.highest = highest;
  return grid;
}

inline double mean_diagonal(const at::Tensor& hessian) { return hessian.diagonal().to(at::kDouble).mean().item<double>(); }

// H + damping, in F64; inputs that are always zero get the mean of the diagonal besides.
inline at::Tensor damped(const at::Tensor& hessian, double relative_damping) {
  const at::Tensor result = hessian.to(at::kDouble).clone();
  const double mean = mean_diagonal(hessian);
  at::Tensor diagonal = result.diagonal();
  diagonal.add_(diagonal.eq(0).to(at::kDouble), mean).add_(relative_damping * mean);
  return result;
}

inline std::vector<std::int64_t> order_of(const at::Tensor& hessian, bool by_activation) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(hessian.size(0)));
  std::iota(order.begin(), order.end(), 0);
  const at::Tensor diagonal = hessian.diagonal().to(at::kDouble).contiguous();
  const auto* d = diagonal.const_data_ptr<double>();
  if (by_activation) std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return d[a] > d[b]; });
  return order;
}

inline at::Tensor permuted(const at::Tensor& matrix, const std::vector<std::int64_t>& order) {
  const auto n = static_cast<std::int64_t>(order.size());
  const at::Tensor result = at::zeros({n, n}, at::kDouble);
  const at::Tensor source = matrix.contiguous();
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      result.mutable_data_ptr<double>()[i * n + j] =
          source.const_data_ptr<double>()[order[static_cast<std::size_t>(i)] * n + order[static_cast<std::size_t>(j)]];
  return result;
}

// R upper with R R^T = matrix: the Cholesky factor of the matrix read backwards.
inline at::Tensor upper_root(const at::Tensor& matrix) { return at::linalg_cholesky(matrix.flip({0, 1})).flip({0, 1}).contiguous(); }

inline int nearest_code(const Grid& grid, double value) {
  if (grid.values.empty())
    return static_cast<int>(std::clamp(std::nearbyint(value), static_cast<double>(grid.lowest), static_cast<double>(grid.highest)));
  int best = grid.lowest;
  for (int code = grid.lowest; code <= grid.highest; ++code)
    if (std::fabs(value - static_cast<double>(grid.value(code))) < std::fabs(value - static_cast<double>(grid.value(best)))) best = code;
  return best;
}

// What one value becomes.
struct TileRounding {
  const float* scales;
  std::int64_t tiles;
  const Grid& grid;
  const Layout& layout;

  double scale(std::int64_t row, std::int64_t column) const {
    return static_cast<double>(scales[row / layout.tile_rows * tiles + column / layout.tile_columns]);
  }
  int code(double value, std::int64_t row, std::int64_t column) const { return nearest_code(grid, value / scale(row, column)); }
  double decode(int code, std::int64_t row, std::int64_t column) const {
    return static_cast<double>(grid.value(code)) * scale(row, column);
  }
};

// Codes I8 [N,K] of v_k = w_k + sum_{j<k} (w_j - q_j) U_jk.
inline at::Tensor ldlq_codes(const at::Tensor& weight, const at::Tensor& scales, const Grid& grid, const Layout& layout,
                             const at::Tensor& hessian, double damping, bool by_activation) {
  const std::int64_t rows = weight.size(0), columns = weight.size(1);
  const std::vector<std::int64_t> order = order_of(hessian, by_activation);
  const at::Tensor root = upper_root(permuted(damped(hessian, damping), order));
  const at::Tensor transposed = root.div(root.diagonal()).t().contiguous();  // row k: U_jk
  const TileRounding rounding{scales.const_data_ptr<float>(), scales.size(1), grid, layout};
  const at::Tensor codes = at::zeros({rows, columns}, at::kChar);
  std::vector<double> errors(static_cast<std::size_t>(rows * columns));  // [K][N]
  std::vector<double> values(static_cast<std::size_t>(rows));
  for (std::int64_t k = 0; k < columns; ++k) {
    const std::int64_t column = order[static_cast<std::size_t>(k)];
    const double* u = transposed.const_data_ptr<double>() + k * columns;
    for (std::int64_t r = 0; r < rows; ++r)
      values[static_cast<std::size_t>(r)] = static_cast<double>(weight.const_data_ptr<float>()[r * columns + column]);
    for (std::int64_t j = 0; j < k; ++j)
      for (std::int64_t r = 0; r < rows; ++r) values[static_cast<std::size_t>(r)] += u[j] * errors[static_cast<std::size_t>(j * rows + r)];
    for (std::int64_t r = 0; r < rows; ++r) {
      const int code = rounding.code(values[static_cast<std::size_t>(r)], r, column);
      codes.mutable_data_ptr<std::int8_t>()[r * columns + column] = static_cast<std::int8_t>(code);
      errors[static_cast<std::size_t>(k * rows + r)] =
          static_cast<double>(weight.const_data_ptr<float>()[r * columns + column]) - rounding.decode(code, r, column);
    }
  }
  return codes;
}

// The same codes as GPTQ writes it: with the Cholesky factor of the inverse, all later columns changed after each.
inline at::Tensor gptq_codes(const at::Tensor& weight, const at::Tensor& scales, const Grid& grid, const Layout& layout,
                             const at::Tensor& hessian, double damping) {
  const std::int64_t rows = weight.size(0), columns = weight.size(1);
  const at::Tensor factor = at::linalg_cholesky(at::linalg_inv(damped(hessian, damping)), true).contiguous();
  const TileRounding rounding{scales.const_data_ptr<float>(), scales.size(1), grid, layout};
  const at::Tensor codes = at::zeros({rows, columns}, at::kChar);
  const at::Tensor changing = weight.to(at::kDouble).clone();
  for (std::int64_t r = 0; r < rows; ++r) {
    double* w = changing.mutable_data_ptr<double>() + r * columns;
    for (std::int64_t k = 0; k < columns; ++k) {
      const double* c = factor.const_data_ptr<double>() + k * columns;
      const int code = rounding.code(w[k], r, k);
      codes.mutable_data_ptr<std::int8_t>()[r * columns + k] = static_cast<std::int8_t>(code);
      const double error = (w[k] - rounding.decode(code, r, k)) / c[k];
      for (std::int64_t j = k; j < columns; ++j) w[j] -= error * c[j];
    }
  }
  return codes;
}

// W - decoded, F64 [N,K].
inline at::Tensor exact_errors(const at::Tensor& weight, const CodedWeight& coded, const Grid& grid, const Layout& layout) {
  const std::int64_t columns = weight.size(1);
  const TileRounding rounding{coded.scales.const_data_ptr<float>(), coded.scales.size(1), grid, layout};
  const at::Tensor errors = weight.to(at::kDouble).clone();
  for (std::int64_t i = 0; i < errors.numel(); ++i)
    errors.mutable_data_ptr<double>()[i] -= rounding.decode(coded.codes.const_data_ptr<std::int8_t>()[i], i / columns, i % columns);
  return errors;
}

// e H e^T of each row, F64 [N].
inline at::Tensor exact_objectives(const at::Tensor& errors, const at::Tensor& hessian) {
  return errors.matmul(hessian.to(at::kDouble)).mul(errors).sum({1});
}

inline std::int64_t differing(const at::Tensor& a, const at::Tensor& b) { return a.ne(b).sum().item<std::int64_t>(); }

}  // namespace qmill::testing
