#include "run/correct_bias.h"

#include <qmill/error.h>

#include <algorithm>
#include <cmath>

namespace qmill {

std::optional<CorrectedBias> correct_bias(const at::Tensor& bias, const at::Tensor& mean_shift) {
  if (bias.dim() != 1 || mean_shift.dim() != 1 || bias.size(0) != mean_shift.size(0) || mean_shift.scalar_type() != at::kDouble)
    throw Error(ErrorKind::internal, "a bias and the error of its layer's mean output do not have the same size");
  const at::Tensor before = bias.to(at::kDouble).contiguous();
  at::Tensor corrected = before.clone();
  double* out = corrected.mutable_data_ptr<double>();
  for (std::int64_t row = 0; row < bias.size(0); ++row) out[row] += mean_shift.const_data_ptr<double>()[row];
  CorrectedBias result{corrected.to(bias.scalar_type()), 0};
  const at::Tensor after = result.values.to(at::kDouble);
  for (std::int64_t row = 0; row < bias.size(0); ++row) {
    const double value = after.const_data_ptr<double>()[row];
    if (!std::isfinite(value)) return std::nullopt;
    result.largest_change = std::max(result.largest_change, std::abs(value - before.const_data_ptr<double>()[row]));
  }
  return result;
}

}  // namespace qmill
