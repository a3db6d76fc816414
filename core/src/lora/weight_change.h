// The mathematics of merging: changes of weights, made row by row from small matrices, and added in F32.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

namespace qmill {

// body(0..tasks-1), each once; as TaskPool::parallel.
using ParallelLoop = std::function<void(std::int64_t tasks, const std::function<void(std::int64_t)>& body)>;

// dW [N,K] before it is scaled; of a weight with more dimensions, K stands for all after the first. [any-thread]
class WeightChange {
 public:
  virtual ~WeightChange() = default;
  virtual std::int64_t rows() const = 0;
  virtual std::int64_t columns() const = 0;
  // Writes rows [begin, end) as F32. The same bits for the same rows, if `out` is aligned to 64 bytes.
  virtual void compute(std::int64_t begin, std::int64_t end, float* out) const = 0;
};

// All matrices are F32, contiguous, as LibTorch allocates them, and fit each other.

// up [N,r] down [r,K].
std::unique_ptr<WeightChange> low_rank_change(at::Tensor up, at::Tensor down);

// (a1 b1) * (a2 b2), element by element.
std::unique_ptr<WeightChange> hadamard_change(at::Tensor a1, at::Tensor b1, at::Tensor a2, at::Tensor b2);

// The Kronecker product of w1 [a,b] and w2 [c,d]: row i c + k has w1[i,j] w2[k,l] in column j d + l.
std::unique_ptr<WeightChange> kronecker_change(at::Tensor w1, at::Tensor w2);

// As it is: [N, ...].
std::unique_ptr<WeightChange> plain_change(at::Tensor difference);

// The same with the second half of its rows before the first.
std::unique_ptr<WeightChange> halves_swapped(std::unique_ptr<WeightChange> change);

// sum over j of core[i,j,x] factor[j,c], as [i, c * X + x]: a convolution's core [i, j, ...] and its second factor [j,C] make the second
// factor of an ordinary product.
at::Tensor contract_core(const at::Tensor& core, const at::Tensor& factor);

// DoRA: the norms that rows, or columns (a weight's second dimension), get.
struct Magnitude {
  at::Tensor norms;  // F32 [N], or [C]
  bool of_rows = true;
};

// W + strength * scale * dW into `weight`, F32 [N, ...], contiguous. With a magnitude m: V = W + scale * dW, V' = V * m / ||V||, and then
// W + strength * (V' - W); a row or column of V without any value stays zero. In groups of rows whose size comes from the shape alone, with
// products on one thread: the same bits for every number of threads.
void add_change(at::Tensor& weight, const WeightChange& change, double scale, double strength, const Magnitude* magnitude,
                const ParallelLoop& parallel);

}  // namespace qmill
