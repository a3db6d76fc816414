// AdaRound (Nagel et al. 2020, arXiv 2004.10568): each value lies between two codes, at lower + h(v), h a stretched sigmoid (eq. 23 and 24
// there); v is learned under the objective and a regularizer that drives h to 0 or 1 (eq. 24), and then rounded. The optimizer is AdamW
// (arXiv 1711.05101) or RAdam (arXiv 1908.03265). Seven F32 copies of the weight, and a few passes over them per iteration.
#pragma once

#include "settings.h"
#include "tile_rounder.h"

namespace learned_rounding {

// A quadratic objective of the errors E = decoded - weight, F32 [N,K].
class ErrorObjective {
 public:
  virtual ~ErrorObjective() = default;
  // Its value; writes its gradient, up to a factor, to `gradient`. [worker-thread]
  virtual double gradient(const at::Tensor& errors, at::Tensor& gradient) const = 0;
};

struct SoftRounding {
  at::Tensor codes;
  std::int64_t iterations = 0;
  double value_start = 0;  // of the objective
  double value = 0;        // never above that
};

// `start` is left as it is. settings.variant: adamw or radam. [worker-thread; uses context.parallel]
SoftRounding round_softly(const TileRounder& rounder, const at::Tensor& start, const ErrorObjective& objective, const Settings& settings,
                          qmill::LayerContext& context);

}  // namespace learned_rounding
