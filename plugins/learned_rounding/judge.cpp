#include "judge.h"

#include "tile_rounder.h"

#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace learned_rounding {

namespace {

constexpr std::int64_t kSampleRows = 512;  // as many as round_calibrated judges by, and the same ones

}  // namespace

Judge::Judge(const at::Tensor& weight, const qmill::Grid& grid, const qmill::Layout& layout, const qmill::LayerInputs& inputs,
             qmill::LayerContext& context)
    : inputs_(inputs), grid_(grid), layout_(layout) {
  const std::int64_t rows = weight.size(0);
  const std::int64_t count = std::min(rows, kSampleRows);
  std::vector<std::int64_t> picked(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) picked[static_cast<std::size_t>(i)] = i * rows / count;
  rows_ = at::tensor(picked, at::kLong);
  for (std::int64_t& row : picked) row /= layout.tile_rows;
  bands_ = at::tensor(picked, at::kLong);
  layout_.tile_rows = 1;
  weight_ = at::index_select(weight, 0, rows_);
  if (inputs.held_out.defined()) signal_ = qmill::squared_output_error(inputs.held_out, weight_, context);
}

Judge::Verdict Judge::judge(const qmill::CodedWeight& coded, qmill::LayerContext& context) const {
  const at::Tensor scales = at::index_select(coded.scales, 0, bands_);
  const at::Tensor errors = all_errors(TileRounder(weight_, scales, grid_, layout_), at::index_select(coded.codes, 0, rows_), context);
  Verdict verdict;
  verdict.objective = qmill::squared_error_under(inputs_.hessian, errors, context) / static_cast<double>(weight_.size(0));
  if (has_held_out()) verdict.output_error = std::sqrt(qmill::squared_output_error(inputs_.held_out, errors, context) / signal_);
  return verdict;
}

}  // namespace learned_rounding
