#include "bias_correction.h"

#include <qmill/error.h>

#include <algorithm>
#include <cmath>

namespace qmill {

std::optional<CorrectedBias> correct_bias(const at::Tensor& bias, const at::Tensor& weight, const RowDecoder& stored,
                                          const at::Tensor& mean, TaskPool& tasks) {
  constexpr std::int64_t kValuesPerTask = 1 << 17;
  if (weight.dim() != 2 || bias.dim() != 1 || bias.size(0) != weight.size(0) || mean.dim() != 1 || mean.size(0) != weight.size(1) ||
      mean.scalar_type() != at::kFloat)
    throw Error(ErrorKind::internal, "a bias, a weight and a mean of inputs do not fit each other");
  const std::int64_t rows = weight.size(0);
  const std::int64_t columns = weight.size(1);
  const std::int64_t group = std::max<std::int64_t>(1, kValuesPerTask / std::max<std::int64_t>(1, columns));
  const at::Tensor means = mean.contiguous();
  const float* input = means.const_data_ptr<float>();
  const RowDecoder original = plain_rows(weight);
  at::Tensor corrected = bias.to(at::kDouble, false, true);
  double* out = corrected.mutable_data_ptr<double>();
  tasks.parallel((rows + group - 1) / group, [&](std::int64_t task) {
    std::vector<float> expected(static_cast<std::size_t>(columns)), found(expected.size());
    for (std::int64_t row = task * group; row < std::min(rows, (task + 1) * group); ++row) {
      original(row, row + 1, expected.data());
      stored(row, row + 1, found.data());
      double change = 0;
      for (std::size_t i = 0; i < expected.size(); ++i) change += (static_cast<double>(expected[i]) - found[i]) * input[i];
      out[row] += change;
    }
  });
  CorrectedBias result{corrected.to(bias.scalar_type()), 0};
  const at::Tensor before = bias.to(at::kDouble);
  const at::Tensor after = result.values.to(at::kDouble);
  for (std::int64_t row = 0; row < rows; ++row) {
    const double value = after.const_data_ptr<double>()[row];
    if (!std::isfinite(value)) return std::nullopt;
    result.largest_change = std::max(result.largest_change, std::abs(value - before.const_data_ptr<double>()[row]));
  }
  return result;
}

}  // namespace qmill
