#include "calibration/substitute_hessian.h"

#include "calibration/input_rows.h"

#include <qmill/numerics/row_kernels.h>
#include <qmill/tensor.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <mutex>

namespace qmill {

at::Tensor lora_hessian(const at::Tensor& down, TaskPool& tasks) {
  const std::int64_t columns = down.size(1);
  at::Tensor hessian = at::zeros({columns, columns}, at::kFloat);
  add_products(down, hessian, tasks);
  float* h = hessian.mutable_data_ptr<float>();
  double trace = 0;
  for (std::int64_t i = 0; i < columns; ++i) trace += h[i * (columns + 1)];
  // Without a trace that can be divided by, A says nothing.
  const bool says_something = std::isfinite(trace) && trace > 0;
  complete_symmetric(hessian, says_something ? trace / static_cast<double>(columns) : 1, tasks);
  if (!says_something) hessian.zero_();
  for (std::int64_t i = 0; i < columns; ++i) h[i * (columns + 1)] += 1;
  return hessian;
}

at::Tensor largest_of_columns(const at::Tensor& weight, TaskPool& tasks) {
  constexpr std::int64_t kValuesPerTask = 1 << 17;
  const std::int64_t rows = weight.size(0);
  const std::int64_t columns = weight.size(1);
  const std::int64_t group = std::max<std::int64_t>(1, kValuesPerTask / columns);
  const std::int64_t count = (rows + group - 1) / group;
  const DType dtype = dtype_of(weight);
  const auto* bytes = static_cast<const std::byte*>(weight.const_data_ptr());
  at::Tensor largest = at::zeros({columns}, at::kFloat);
  float* out = largest.mutable_data_ptr<float>();
  std::mutex mutex;
  tasks.parallel(count, [&](std::int64_t task) {
    std::vector<float> row(static_cast<std::size_t>(columns)), found(row.size());
    for (std::int64_t i = task * group; i < std::min(rows, (task + 1) * group); ++i) {
      load_f32(bytes + i * columns * (dtype_bits(dtype) / 8), dtype, columns, row.data());
      for (std::size_t j = 0; j < row.size(); ++j) found[j] = std::max(found[j], std::abs(row[j]));
    }
    const std::lock_guard lock(mutex);  // a maximum does not depend on the order
    for (std::size_t j = 0; j < found.size(); ++j) out[j] = std::max(out[j], found[j]);
  });
  return largest;
}

at::Tensor smoothing_factors(const at::Tensor& input_max, const at::Tensor& weight_max, double alpha) {
  at::Tensor factors = at::empty({input_max.size(0)}, at::kFloat);
  const float* a = input_max.const_data_ptr<float>();
  const float* w = weight_max.const_data_ptr<float>();
  float* t = factors.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < factors.size(0); ++i) {
    const auto factor = static_cast<float>(std::pow(static_cast<double>(a[i]), alpha) / std::pow(static_cast<double>(w[i]), 1 - alpha));
    t[i] = std::isfinite(factor) ? std::max(factor, 1e-5f) : 1;
  }
  return factors;
}

at::Tensor diagonal_hessian(const at::Tensor& factors) {
  const std::int64_t columns = factors.size(0);
  const float* t = factors.const_data_ptr<float>();
  double sum = 0;
  for (std::int64_t i = 0; i < columns; ++i) sum += static_cast<double>(t[i]) * t[i];
  at::Tensor hessian = at::zeros({columns, columns}, at::kFloat);
  float* h = hessian.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < columns; ++i)
    h[i * (columns + 1)] = static_cast<float>(static_cast<double>(t[i]) * t[i] / sum * static_cast<double>(columns));
  return hessian;
}

}  // namespace qmill
