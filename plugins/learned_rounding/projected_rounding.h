// Integers with a small error along the dominant directions of their weight, by integral control: C [k,k] adds up the projected error
// P = U^T E V, and the integers are those nearest to W - U C V^T. Rounding answers to that as it likes: the loss is that of the
// integers, and the best of them are kept.
//
// A step shifts all latent values by far less than a code; the few that cross over carry the step, and noise of their own. Of
//   L'^2 = (1 - step)^2 L^2 + 2 f step L
// with L relative to rounding to nearest and f near 0.3 for the usual number of directions, the best step is 1 - f / L. It falls with L,
// and min(kLargestStep, kStepAtOne L^3) follows it closely enough.
#pragma once

#include "projected_objective.h"

namespace learned_rounding {

struct ProjectedRounding {
  at::Tensor codes;
  std::int64_t iterations = 0;
  double loss_nearest = 0;  // L of rounding to nearest
  double loss = 0;          // L of `codes`; never above that
};

// `nearest`: the codes to start from. [worker-thread; uses context.parallel]
ProjectedRounding round_projected(const TileRounder& rounder, const at::Tensor& nearest, const Directions& directions,
                                  const Settings& settings, qmill::LayerContext& context);

}  // namespace learned_rounding
