// A bias that makes up for what quantization does to a layer's mean output.
#pragma once

#include "../report/row_decoder.h"
#include "task_pool.h"

#include <optional>

namespace qmill {

struct CorrectedBias {
  at::Tensor values;          // of the bias's own type, in fresh memory
  double largest_change = 0;  // of a value, as stored
};

// b' = b + (W - What) mean(x): with W x + b the output, What x + b' has the same mean over the inputs. Sums in F64, row by row: the same
// values for every number of threads. Nothing when a value would not be finite in the bias's type.
// `bias` [N], floating; `weight` [N,K]; `stored` are its rows as a reader decodes them; `mean` F32 [K].
std::optional<CorrectedBias> correct_bias(const at::Tensor& bias, const at::Tensor& weight, const RowDecoder& stored,
                                          const at::Tensor& mean, TaskPool& tasks);

}  // namespace qmill
