// Orthogonal transforms: fast ones of rows of any length, randomized ones, dense ones, and what they make of a symmetric matrix.
// The transform of groups that ConvRot stores is rotate_groups in row_kernels.h.
//
// The functions on float* transform one row in place, need no alignment, keep no state and are [any-thread]. Their bytes depend
// neither on the processor nor on the number of threads.
#pragma once

#include <qmill/layer_context.h>

#include <functional>
#include <vector>

namespace qmill {

// x -> S x with the Walsh-Hadamard matrix in natural order, S[r,c] = (-1)^popcount(r & c) / sqrt(n), n a power of two (Sylvester 1867:
// the Kronecker power of (+ +)(+ -)). Symmetric and its own inverse. Stages of strides 1, 2, 4, ... after the multiplication by 1/sqrt(n).
QMILL_API void sylvester_transform(float* values, std::int64_t n);

// x -> T x for rows of K = m * 2^j values: T is the Kronecker product of a small orthogonal matrix of order m with Sylvester's of order
// 2^j, so that element (a, c) of a row seen as [m, 2^j] becomes sum over i, l of M[a,i] S[c,l] x[i,l]. K needs no padding. M is, for the
// odd part p of K,
// - nothing where p is 1;
// - a Hadamard matrix of the smallest order m = 4p, 8p, ... <= 256 that divides K and that Paley (1933) constructs from the quadratic
//   character X of the integers modulo a prime q. First: m = q + 1, M = I + [0 1; -1 Q], Q[i,j] = X(i - j).
//   Second: m = 2(q + 1) with q = 1 modulo 4, M = [0 1; 1 Q] (x) (+ +)(+ -) + I (x) (+ -)(- -);
// - otherwise Hartley's matrix of order m = p, M[j,k] = cos(2 pi jk/m) + sin(2 pi jk/m) (Hartley 1942): orthogonal, but not flat:
// magnitudes
//   go up to sqrt(2) times those of a Hadamard matrix.
// Time per value grows with m + j. Immutable: share one among threads.
class QMILL_API HadamardPlan {
 public:
  static constexpr std::int64_t kLargestOrder = 1024;  // of M; beyond it a dense matrix is as good

  static bool exists(std::int64_t columns);

  // Throws Error(unsupported) where none exists: the odd part of `columns` is above kLargestOrder.
  static HadamardPlan for_columns(std::int64_t columns);

  std::int64_t columns() const { return order_ * run_; }
  std::int64_t order() const { return order_; }  // m
  bool is_flat() const { return flat_; }         // all elements are +-1/sqrt(K)

  void apply(float* row) const;             // x -> T x
  void apply_transposed(float* row) const;  // x -> T^T x: takes apply() back

 private:
  HadamardPlan() = default;
  void transform(float* row, const std::vector<float>& mixer) const;

  std::int64_t order_ = 1;
  std::int64_t run_ = 1;  // 2^j
  bool flat_ = true;
  std::vector<float> mixer_;             // [m, m rounded up to whole vectors]: M^T times sqrt(m)
  std::vector<float> transposed_mixer_;  // M
};

// x -> T diag(signs) x with a plan's T and random_signs(seed, K). (QuIP#, arXiv 2402.04396.)
class QMILL_API RandomHadamard {
 public:
  // Throws like HadamardPlan::for_columns.
  RandomHadamard(std::uint64_t seed, std::int64_t columns);

  const HadamardPlan& plan() const { return plan_; }
  const std::vector<float>& signs() const { return signs_; }

  void apply(float* row) const;
  void apply_transposed(float* row) const;  // x -> diag(signs) T^T x: takes apply() back

 private:
  HadamardPlan plan_;
  std::vector<float> signs_;
};

// F32 [n,n], orthogonal to F32 precision, from the uniform (Haar) distribution: the Q of a QR factorization of n * n normal_values(seed)
// with columns multiplied by the signs of R's diagonal (Mezzadri 2007). The same for every number of threads; another LAPACK may
// give other last bits. Takes n^3 time on the calling thread. [any-thread]
QMILL_API at::Tensor random_orthogonal(std::uint64_t seed, std::int64_t n);

// Calls transform(row) for each row of a contiguous F32 [N,K]. transform must be callable from several threads.
// [worker-thread; uses context.parallel]
QMILL_API void transform_rows(at::Tensor& rows, const std::function<void(float*)>& transform, LayerContext& context);

// H -> T H T^T in place for a contiguous symmetric F32 [K,K], where transform(x) makes x into T x, T linear: if H is the mean of x x^T, the
// result is that of the transformed x. Exactly symmetric. [worker-thread; uses context.parallel]
QMILL_API void transform_symmetric(at::Tensor& h, const std::function<void(float*)>& transform, LayerContext& context);

}  // namespace qmill
