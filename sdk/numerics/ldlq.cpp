#include <qmill/numerics/ldlq.h>
#include <qmill/numerics/one_thread.h>

#include "feedback_kernel.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <array>

namespace qmill {
namespace {

// Columns between two wide products. Chosen for speed, as kSliceRows is. Both are constants, not shares of the number of threads: so the
// results do not depend on that either.
constexpr std::int64_t kOuterColumns = 512;

at::Tensor matrix(float* data, std::int64_t rows, std::int64_t columns) {
  return at::from_blob(data, {rows, columns}, at::TensorOptions().dtype(at::kFloat));
}

struct ScalesOfTiles {
  const float* values;
  std::int64_t tiles;  // per band of rows
  const Layout& layout;

  bool same_along_row() const { return tiles == 1; }
  float at(std::int64_t row, std::int64_t column) const { return values[row / layout.tile_rows * tiles + column / layout.tile_columns]; }
};

// Some rows of a weight. Its arrays are [K][rows], columns in the order of the factor, so that every loop runs along rows and the
// products take both operands as they lie.
class Slice {
 public:
  Slice(const at::Tensor& weight, std::int64_t begin, std::int64_t end, const ScalesOfTiles& scales, const Grid& grid, const GridTable* table,
        const HessianFactor& factor, std::int64_t block_columns)
      : outer_columns_(std::max(block_columns, kOuterColumns)),
        inner_columns_(block_columns),
        columns_(weight.size(1)),
        begin_(begin),
        rows_(end - begin),
        stride_((rows_ + kFeedbackRows - 1) / kFeedbackRows * kFeedbackRows),
        scales_(scales),
        grid_(grid),
        table_(table),
        factor_(factor) {
    thread_local Scratch scratch;
    scratch_ = &scratch;
    scratch.errors.resize(static_cast<std::size_t>(columns_ * stride_));
    scratch.codes.resize(static_cast<std::size_t>(columns_ * stride_));
    scratch.feedback.resize(static_cast<std::size_t>(std::min(columns_, outer_columns_) * stride_));
    // Rows that only fill up a vector: zeros, with any scale.
    scratch.scales.assign(static_cast<std::size_t>((scales.same_along_row() ? 1 : std::min(columns_, inner_columns_)) * stride_), 1.0f);
    scratch.objectives.assign(static_cast<std::size_t>(stride_), 0.0);
    load(weight.const_data_ptr<float>() + begin * columns_);
  }

  void round() {
    for (std::int64_t outer = 0; outer < columns_; outer += outer_columns_) {
      const std::int64_t outer_end = std::min(columns_, outer + outer_columns_);
      at::Tensor feedback = matrix(scratch_->feedback.data(), outer_end - outer, stride_);
      if (outer == 0)
        feedback.zero_();
      else
        at::mm_out(feedback, coefficients(outer, outer_end, 0, outer), errors(0, outer));
      for (std::int64_t first = outer; first < outer_end; first += inner_columns_) {
        const std::int64_t last = std::min(outer_end, first + inner_columns_);
        at::Tensor target = feedback.narrow(0, first - outer, last - first);
        if (first != outer) at::addmm_out(target, target, coefficients(first, last, outer, first), errors(outer, first));
        round_columns(first, last, target.const_data_ptr<float>());
      }
    }
  }

  void store(std::int8_t* codes, double* objectives) const {
    // A few rows at a time: each is written from end to end while its lines are in the cache.
    for (std::int64_t group = 0; group < rows_; group += kFeedbackRows)
      for (std::int64_t k = 0; k < columns_; ++k) {
        const std::int64_t column = factor_.order[static_cast<std::size_t>(k)];
        const std::int8_t* in = scratch_->codes.data() + k * stride_;
        for (std::int64_t row = group; row < std::min(rows_, group + kFeedbackRows); ++row)
          codes[(begin_ + row) * columns_ + column] = in[row];
      }
    std::copy_n(scratch_->objectives.begin(), rows_, objectives + begin_);
  }

 private:
  struct Scratch {
    std::vector<float> errors;  // the weights, then their errors
    std::vector<std::int8_t> codes;
    std::vector<float> feedback;
    std::vector<float> scales;
    std::vector<double> objectives;
  };

  void load(const float* weight) {
    for (std::int64_t group = 0; group < stride_; group += kFeedbackRows)
      for (std::int64_t k = 0; k < columns_; ++k) {
        const float* column = weight + factor_.order[static_cast<std::size_t>(k)];
        float* out = scratch_->errors.data() + k * stride_;
        for (std::int64_t row = group; row < group + kFeedbackRows; ++row) out[row] = row < rows_ ? column[row * columns_] : 0.0f;
      }
    if (scales_.same_along_row())
      for (std::int64_t row = 0; row < rows_; ++row) scratch_->scales[static_cast<std::size_t>(row)] = scales_.at(begin_ + row, 0);
  }

  at::Tensor coefficients(std::int64_t first, std::int64_t last, std::int64_t from, std::int64_t to) const {
    return factor_.coefficients.narrow(0, first, last - first).narrow(1, from, to - from);
  }

  at::Tensor errors(std::int64_t from, std::int64_t to) const {
    return matrix(scratch_->errors.data() + from * stride_, to - from, stride_);
  }

  void round_columns(std::int64_t first, std::int64_t last, const float* feedback) {
    if (!scales_.same_along_row())
      for (std::int64_t k = first; k < last; ++k)
        for (std::int64_t row = 0; row < rows_; ++row)
          scratch_->scales[static_cast<std::size_t>((k - first) * stride_ + row)] =
              scales_.at(begin_ + row, factor_.order[static_cast<std::size_t>(k)]);
    for (std::int64_t row = 0; row < stride_; row += kFeedbackRows) {
      FeedbackBlock block;
      block.grid = &grid_;
      block.table = table_;
      block.columns = last - first;
      block.stride = stride_;
      block.weights = scratch_->errors.data() + first * stride_ + row;
      block.feedback = feedback + row;
      block.coefficients = factor_.coefficients.const_data_ptr<float>() + first * columns_ + first;
      block.coefficient_stride = columns_;
      block.pivots = factor_.pivots.data() + first;
      block.scales = scratch_->scales.data() + row;
      block.scale_stride = scales_.same_along_row() ? 0 : stride_;
      block.codes = scratch_->codes.data() + first * stride_ + row;
      block.objectives = scratch_->objectives.data() + row;
      round_block(block);
    }
  }

  const std::int64_t outer_columns_;
  const std::int64_t inner_columns_;
  const std::int64_t columns_;
  const std::int64_t begin_;
  const std::int64_t rows_;
  const std::int64_t stride_;
  const ScalesOfTiles& scales_;
  const Grid& grid_;
  const GridTable* const table_;
  const HessianFactor& factor_;
  Scratch* scratch_;
};

}  // namespace

FeedbackRounding round_with_feedback(const at::Tensor& weight, const at::Tensor& scales, const Grid& grid, const Layout& layout,
                                     const HessianFactor& factor, LayerContext& context, std::int64_t block_columns) {
  const std::int64_t rows = weight.size(0);
  FeedbackRounding result;
  result.coded = {context.allocate(std::array{rows, weight.size(1)}, DType::i8), scales};
  result.objectives.resize(static_cast<std::size_t>(rows));
  auto* codes = result.coded.codes.mutable_data_ptr<std::int8_t>();
  const auto table = grid.values.empty() ? nullptr : std::make_unique<const GridTable>(grid);
  const ScalesOfTiles tile_scales{scales.const_data_ptr<float>(), scales.size(1), layout};
  context.parallel((rows + kSliceRows - 1) / kSliceRows, [&](std::int64_t task) {
    context.check_cancelled();
    const OneThread one_thread;
    const std::int64_t begin = task * kSliceRows;
    Slice slice(weight, begin, std::min(rows, begin + kSliceRows), tile_scales, grid, table.get(), factor,
                std::max<std::int64_t>(1, std::min(block_columns, weight.size(1))));
    slice.round();
    slice.store(codes, result.objectives.data());
  });
  return result;
}

}  // namespace qmill
