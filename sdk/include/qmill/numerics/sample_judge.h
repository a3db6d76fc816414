// Judges the codes of a layer whose inputs are known, on a sample of the rows of its weight.
#pragma once

#include <qmill/numerics/layer_inputs.h>

#include <vector>

namespace qmill {

class QMILL_API SampleJudge {
 public:
  // Which of so many rows: at most 512, evenly spaced, enough for three digits of a layer's error.
  static std::vector<std::int64_t> rows_of(std::int64_t rows);

  // `sample`: F32, the rows rows_of(rows) of a weight that has `rows` of them, in the basis of `inputs`. Borrows the references.
  // [worker-thread; uses context.parallel]
  SampleJudge(at::Tensor sample, std::int64_t rows, const Layout& layout, const LayerInputs& inputs, const Grid& grid,
              LayerContext& context);

  // The sample as a weight of its own: each row has its own scales.
  const at::Tensor& weight() const { return weight_; }
  const Layout& layout() const { return layout_; }
  TileScales scales_of(const TileScales& scales) const;   // of the whole weight's
  CodedWeight sample_of(const CodedWeight& coded) const;  // of the whole weight's

  struct Verdict {
    double objective = 0;     // mean of e H e^T over the rows of the sample, H undamped
    double output_error = 0;  // relative, on the rows kept apart; without them 0
  };
  Verdict verdict(const CodedWeight& sample) const;
  double output_error(const CodedWeight& sample) const;  // that of the verdict alone; there are rows kept apart

  bool has_held_out() const { return signal_ > 0; }
  bool prefers(const Verdict& a, const Verdict& b) const {
    return has_held_out() ? a.output_error < b.output_error : a.objective < b.objective;
  }

 private:
  double relative_output(const at::Tensor& errors) const;

  at::Tensor weight_;
  Layout layout_;
  const LayerInputs& inputs_;
  const Grid& grid_;
  LayerContext& context_;
  at::Tensor rows_;
  at::Tensor bands_;  // of scales
  double signal_ = 0;
};

}  // namespace qmill
