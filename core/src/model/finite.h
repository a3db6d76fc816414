// Checks of tensors that callers give.
#pragma once

#include <qmill/numerics/row_kernels.h>

#include <ATen/core/Tensor.h>

#include <cmath>

namespace qmill {

// Whether all values of a floating tensor on the CPU are finite as F32.
inline bool is_finite(const at::Tensor& tensor) {
  const at::Tensor values = tensor.to(at::kFloat).contiguous();
  return std::isfinite(largest_magnitude(values.const_data_ptr<float>(), values.numel()));
}

}  // namespace qmill
