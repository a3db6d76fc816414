// The error of a weight along its own dominant directions: L(E) = || U^T E V ||, E = decoded - weight.
#pragma once

#include "settings.h"
#include "tile_rounder.h"

namespace learned_rounding {

// How many directions of a weight [rows, columns] count.
std::int64_t rank_for(const Settings& settings, std::int64_t rows, std::int64_t columns);

struct Directions {
  at::Tensor u;  // [N,k]
  at::Tensor v;  // [K,k]

  std::int64_t rank() const { return u.size(1); }
};

// [worker-thread; uses context.parallel]
Directions dominant_directions(const at::Tensor& weight, const Settings& settings, qmill::LayerContext& context);

// U^T (E V) for E V [N,k] that is known. [worker-thread; uses context.parallel]
at::Tensor project_rows(const Directions& directions, const at::Tensor& errors_v, qmill::LayerContext& context);

// U^T E V [k,k]. [worker-thread; uses context.parallel]
at::Tensor project(const Directions& directions, const at::Tensor& errors, qmill::LayerContext& context);

}  // namespace learned_rounding
