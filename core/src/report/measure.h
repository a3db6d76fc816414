// How far a stored layer is from its source: its values, its outputs, and its mean output, in one pass over its rows.
#pragma once

#include "engine/task_pool.h"
#include "report/row_decoder.h"

#include <qmill/core/quality.h>
#include <qmill/numerics/row_kernels.h>

#include <span>
#include <vector>

namespace qmill {

// Of inputs X [V,K], a weight W [N,K] and versions of it.
struct OutputSums {
  double squared_output = 0;           // of X W^T
  std::vector<double> squared_errors;  // of X (W - version)^T
  std::int64_t rows = 0;               // V

  void merge(const OutputSums& other);  // sums of other inputs
  // ||X W^T - X version^T|| / ||X W^T||, Frobenius norms. 0 without any error, infinite when only the error is not zero.
  double relative(std::size_t version) const;
};

// What is known of a layer's inputs; undefined tensors are not known. For weights [N,K] only.
struct MeasuredInputs {
  at::Tensor rows = {};  // F32 [V,K]
  at::Tensor mean = {};  // F32 [K]
};

struct Measurement {
  ErrorSums values;       // of W - version 0
  OutputSums outputs;     // of every version, on MeasuredInputs::rows
  at::Tensor mean_shift;  // F64 [N] = (W - version 0) mean(x); undefined without a mean
};

// `weight` [N,K] or of any shape with rows, floating. `versions`: what is stored, then what it is compared with; each row is decoded once. In
// groups of rows whose size comes from the shape alone, with single-threaded products and sums in F64: the same figures for every number of
// threads.
Measurement measure(const at::Tensor& weight, std::span<const RowDecoder> versions, const MeasuredInputs& inputs, TaskPool& tasks);

// The output error of version 0, and as a yardstick that of plain rounding: version 1, or 0 itself where `is_rounded`. Leaves `quality` alone
// when there were no inputs.
void set_output_error(LayerQuality& quality, const OutputSums& sums, bool is_rounded);

}  // namespace qmill
