// Sample rows of a layer's inputs, read in parts, and what is computed of them in one pass.
#pragma once

#include "engine/resources.h"
#include "calibration/row_split.h"

#include <qmill/loader.h>
#include <qmill/tensor.h>

#include <functional>
#include <limits>

namespace qmill {

// Rows of a tensor [..., K]: all dimensions but the last are counted through.
inline std::int64_t row_count(const TensorInfo& info) { return info.shape.back() == 0 ? 0 : info.elements() / info.shape.back(); }

// A tensor [T,K] or [..., K] of a calibration file, or `at_most` of its rows, evenly spaced. Borrows the source.
class InputRows {
 public:
  InputRows(const TensorSource& source, std::size_t index, std::int64_t at_most = std::numeric_limits<std::int64_t>::max())
      : source_(source), index_(index), rows_(std::min(at_most, row_count(source.tensors()[index]))) {}

  const TensorInfo& info() const { return source_.tensors()[index_]; }
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return info().shape.back(); }

  // Rows `which`, ascending, as F32 [count,K], in memory of the pool. Throws Error(input) that names entry and row for a value that is not
  // finite.
  at::Tensor read(std::span<const std::int64_t> which, const RunResources& resources) const;

 private:
  void read_group(std::span<const std::int64_t> which, float* out) const;

  // The row of the tensor that is number `row` here.
  std::int64_t place(std::int64_t row) const {
    const std::int64_t all = row_count(info());
    return all / rows_ * row + all % rows_ * row / rows_;
  }

  const TensorSource& source_;
  std::size_t index_;
  std::int64_t rows_;
};

struct InputStatistics {
  std::int64_t rows = 0;
  at::Tensor hessian;       // F32 [K,K] = X^T X / rows, exactly symmetric; undefined if it was not asked for
  at::Tensor mean;          // F32 [K]
  at::Tensor channel_max;   // F32 [K], of |x|
  at::Tensor channel_mean;  // F32 [K], of |x|
};

// Over all rows, or those that `split` does not keep apart. Sums of fixed groups of rows in an order that comes from the shape: the same
// bits for every number of threads. Throws what InputRows::read does, Error(cancelled), and Error(input) when a square overflows F32.
InputStatistics measure_inputs(const InputRows& inputs, const RowSplit* split, bool with_hessian, const RunResources& resources);

// What measure_inputs holds of the rows at once.
std::int64_t part_bytes(const InputRows& inputs);

// sum [K,K] += X^T X for X [T,K], F32. Only the tiles of the lower triangle are computed, until complete_symmetric().
void add_products(const at::Tensor& rows, at::Tensor& sum, TaskPool& tasks);

// Divides by `divisor` and mirrors the lower triangle.
void complete_symmetric(at::Tensor& sum, double divisor, TaskPool& tasks);

}  // namespace qmill
