// Integers with a small e H e^T per row, e = decoded - weight: each is moved to where the others make it cheapest, column after column,
// until a pass gains nothing worth its time. No move ever raises the objective.
#pragma once

#include "settings.h"
#include "tile_rounder.h"

namespace learned_rounding {

struct Descent {
  at::Tensor codes;
  std::int64_t iterations = 0;  // passes, of the rows that took most of them
};

// `hessian` F32 [K,K], symmetric, damped. `start` is left as it is. [worker-thread; uses context.parallel]
Descent descend(const TileRounder& rounder, const at::Tensor& start, const at::Tensor& hessian, const Settings& settings,
                qmill::LayerContext& context);

}  // namespace learned_rounding
