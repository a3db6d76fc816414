// A bias that makes up for what quantization does to a layer's mean output.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace qmill {

struct CorrectedBias {
  at::Tensor values;          // of the bias's own type, in fresh memory
  double largest_change = 0;  // of a value, as stored
};

// b' = b + (W - What) mean(x): with W x + b the output, What x + b' has the same mean over the inputs. `bias` [N], floating; `mean_shift` F64 [N]
// is the second term (report/measure.h). Nothing when a value would not be finite in the bias's type.
std::optional<CorrectedBias> correct_bias(const at::Tensor& bias, const at::Tensor& mean_shift);

}  // namespace qmill
