// Coordinate descent on codes, for a small e H e^T per row, e = decoded - weight: each code is moved to where the others make it cheapest,
// column after column. No move raises the objective. (Cyclic coordinate descent, as QuantEase, arXiv 2309.01885, does from the start.)
#pragma once

#include <qmill/layer_context.h>
#include <qmill/numerics/tile_codes.h>

#include <functional>

namespace qmill {

struct Descent {
  at::Tensor codes;         // I8 [N,K]
  std::int64_t passes = 0;  // of the rows that took most of them
};

// Whether to go on after a pass that gained something, from what the objective of some rows is then, relative to its start. Each of these
// rows' calls gets a rule of its own: a rule may count.
using DescentRule = std::function<bool(double relative_objective)>;
using MakeDescentRule = std::function<DescentRule()>;

// So many passes.
QMILL_API MakeDescentRule at_most(std::int64_t passes);

// `weight` F32 [N,K] in the stored basis, `tiles` its scales, `start` I8 [N,K], which is left as it is, `hessian` F32 [K,K], symmetric,
// damped. The result is the same for every number of threads. [worker-thread; uses context.parallel]
QMILL_API Descent descend(const at::Tensor& weight, const TileCodes& tiles, const at::Tensor& start, const at::Tensor& hessian,
                          const MakeDescentRule& make_rule, LayerContext& context);

// H with `damping` times the mean of its diagonal added to its diagonal: a copy.
QMILL_API at::Tensor damped(const at::Tensor& hessian, double damping);

}  // namespace qmill
