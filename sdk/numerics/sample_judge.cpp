#include <qmill/numerics/sample_judge.h>

#include <qmill/numerics/rounding.h>

#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

namespace qmill {

std::vector<std::int64_t> SampleJudge::rows_of(std::int64_t rows) {
  constexpr std::int64_t kMostRows = 512;
  const std::int64_t count = std::min(rows, kMostRows);
  std::vector<std::int64_t> picked(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) picked[static_cast<std::size_t>(i)] = i * rows / count;
  return picked;
}

SampleJudge::SampleJudge(at::Tensor sample, std::int64_t rows, const Layout& layout, const LayerInputs& inputs, const Grid& grid,
                         LayerContext& context)
    : weight_(std::move(sample)), layout_(layout), inputs_(inputs), grid_(grid), context_(context) {
  std::vector<std::int64_t> picked = rows_of(rows);
  rows_ = at::tensor(picked, at::kLong);
  for (std::int64_t& row : picked) row /= layout.tile_rows;
  bands_ = at::tensor(picked, at::kLong);
  layout_.tile_rows = 1;
  if (inputs.held_out.defined()) signal_ = squared_output_error(inputs.held_out, weight_, context);
}

TileScales SampleJudge::scales_of(const TileScales& scales) const {
  const bool is_by_band = scales.common.defined() && scales.common.dim() == 1;
  return {at::index_select(scales.values, 0, bands_), is_by_band ? at::index_select(scales.common, 0, bands_) : scales.common};
}

CodedWeight SampleJudge::sample_of(const CodedWeight& coded) const {
  const TileScales scales = scales_of({coded.scales, coded.common_scale});
  return {at::index_select(coded.codes, 0, rows_), scales.values, {}, scales.common};
}

SampleJudge::Verdict SampleJudge::verdict(const CodedWeight& sample) const {
  const at::Tensor errors = coding_errors(weight_, sample, grid_, layout_, context_);
  Verdict verdict;
  verdict.objective = squared_error_under(inputs_.hessian, errors, context_) / static_cast<double>(weight_.size(0));
  if (has_held_out()) verdict.output_error = relative_output(errors);
  return verdict;
}

double SampleJudge::output_error(const CodedWeight& sample) const {
  return relative_output(coding_errors(weight_, sample, grid_, layout_, context_));
}

double SampleJudge::relative_output(const at::Tensor& errors) const {
  return std::sqrt(squared_output_error(inputs_.held_out, errors, context_) / signal_);
}

}  // namespace qmill
