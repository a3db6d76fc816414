// What the integers of a layer are judged by when its inputs are known: rows of the weight that stand for all of them.
#pragma once

#include <qmill/numerics/layer_inputs.h>

namespace learned_rounding {

class Judge {
 public:
  // Borrows `inputs`. [worker-thread; uses context.parallel]
  Judge(const at::Tensor& weight, const qmill::Grid& grid, const qmill::Layout& layout, const qmill::LayerInputs& inputs,
        qmill::LayerContext& context);

  struct Verdict {
    double objective = 0;     // mean of e H e^T
    double output_error = 0;  // relative, on the rows kept apart; without them 0
  };
  Verdict judge(const qmill::CodedWeight& coded, qmill::LayerContext& context) const;

  bool has_held_out() const { return signal_ > 0; }
  bool prefers(const Verdict& a, const Verdict& b) const {
    return has_held_out() ? a.output_error < b.output_error : a.objective < b.objective;
  }

 private:
  const qmill::LayerInputs& inputs_;
  const qmill::Grid& grid_;
  qmill::Layout layout_;  // of the sample: each row has its own scales
  at::Tensor rows_;
  at::Tensor bands_;
  at::Tensor weight_;
  double signal_ = 0;
};

}  // namespace learned_rounding
