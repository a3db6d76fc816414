// Products and sums whose bits do not depend on the number of threads.
#pragma once

#include <qmill/layer_context.h>

namespace qmill {

// a b into `out`, F32 matrices: cut by rows of `a` into slices of one size, each a product on one thread.
// [worker-thread; uses context.parallel]
QMILL_API void multiply(const at::Tensor& a, const at::Tensor& b, at::Tensor& out, LayerContext& context);

// Sum of a[i] b[i], in F64 and in order. [any-thread]
QMILL_API double dot(const float* a, const float* b, std::int64_t n);

}  // namespace qmill
