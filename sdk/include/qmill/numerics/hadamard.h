// A fast orthogonal transform of rows, and what any transform makes of all rows and of a symmetric matrix.
// The transform of groups that ConvRot stores is rotate_groups in row_kernels.h.
//
// The functions on float* transform one row in place, need no alignment, keep no state and are [any-thread]. Their bytes depend
// neither on the processor nor on the number of threads.
#pragma once

#include <qmill/layer_context.h>

#include <functional>

namespace qmill {

// x -> S x with the Walsh-Hadamard matrix in natural order, S[r,c] = (-1)^popcount(r & c) / sqrt(n), n a power of two (Sylvester 1867:
// the Kronecker power of (+ +)(+ -)). Symmetric and its own inverse. Stages of strides 1, 2, 4, ... after the multiplication by 1/sqrt(n).
QMILL_API void sylvester_transform(float* values, std::int64_t n);

// Calls transform(row) for each row of a contiguous F32 [N,K]. transform must be callable from several threads.
// [worker-thread; uses context.parallel]
QMILL_API void transform_rows(at::Tensor& rows, const std::function<void(float*)>& transform, LayerContext& context);

// H -> T H T^T in place for a contiguous symmetric F32 [K,K], where transform(x) makes x into T x, T linear: if H is the mean of x x^T, the
// result is that of the transformed x. Exactly symmetric. [worker-thread; uses context.parallel]
QMILL_API void transform_symmetric(at::Tensor& h, const std::function<void(float*)>& transform, LayerContext& context);

}  // namespace qmill
