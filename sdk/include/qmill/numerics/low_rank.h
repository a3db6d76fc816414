// The dominant singular directions of a weight.
#pragma once

#include <qmill/layer_context.h>

namespace qmill {

// weight [N,K] ~ u diag(s) v^T. F32, contiguous; columns of u and v orthonormal to F32 precision, also where s is zero.
struct LowRank {
  at::Tensor u;  // [N,k]
  at::Tensor s;  // [k], descending
  at::Tensor v;  // [K,k]
};

// How many more directions than asked for are carried along, and then dropped.
inline constexpr std::int64_t kOversampling = 10;

// The k dominant directions, k at most min(N, K) (more are not an error), of a contiguous F32 weight, by randomized subspace iteration:
// Halko, Martinsson, Tropp 2011, algorithms 4.4 and 5.1, with kOversampling more columns of normal_values(seed). Each power iteration
// brings the result nearer to full_svd's and costs two products N x K x k more. Two are enough where the spectrum decays; of 512 x 640
// normals, whose spectrum is flat, 10 directions then hold 0.88 of the energy of the best 10, and 100 hold 0.94. Where k + kOversampling
// reaches min(N, K), it is full_svd. The bytes depend on weight, k, seed and power_iterations, not on the number of threads; another BLAS
// may give other last bits. Throws Error(numeric) for NaN, infinity, and singular values beyond F32; Error(usage) for k < 1 or
// power_iterations < 0. [worker-thread; uses context.parallel]
QMILL_API LowRank low_rank_svd(const at::Tensor& weight, std::int64_t k, std::uint64_t seed, LayerContext& context,
                               int power_iterations = 2);

// The k leading directions from the whole decomposition by LAPACK, on the calling thread. Throws like low_rank_svd. [any-thread]
QMILL_API LowRank full_svd(const at::Tensor& weight, std::int64_t k);

}  // namespace qmill
