#include <qmill/numerics/low_rank.h>

#include <qmill/error.h>
#include <qmill/numerics/one_thread.h>
#include <qmill/numerics/products.h>
#include <qmill/numerics/random.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace qmill {
namespace {

// Rows of normal values that make a task.
constexpr std::int64_t kSumRowsPerTask = 192;

std::int64_t tasks_for(std::int64_t rows) { return (rows + kSumRowsPerTask - 1) / kSumRowsPerTask; }

void require_arguments(const at::Tensor& weight, std::int64_t k, int power_iterations) {
  if (weight.dim() != 2 || weight.scalar_type() != at::kFloat || !weight.is_contiguous())
    throw Error(ErrorKind::internal, "a singular value decomposition was given something else than a contiguous F32 matrix");
  if (k < 1) throw Error(ErrorKind::usage, fmt::format("a rank of {} was asked for; 1 is the least", k));
  if (power_iterations < 0)
    throw Error(ErrorKind::usage, fmt::format("{} power iterations were asked for; 0 is the least", power_iterations));
}

// The exponent of the power of two by which a weight must be divided so that no square or product of its values leaves F32; 0 for
// nearly all. Throws Error(numeric) for values that are not finite.
int safe_exponent(const at::Tensor& weight) {
  const float largest = largest_magnitude(weight.const_data_ptr<float>(), weight.numel());
  if (!std::isfinite(largest))
    throw Error(ErrorKind::numeric, "a weight with values that are not finite has no singular values",
                "repair the source, or keep this layer as it is with `exclude_layers`");
  if (largest == 0 || (largest > 1e-9f && largest < 1e9f)) return 0;
  int exponent = 0;
  std::frexp(largest, &exponent);
  return exponent;
}

at::Tensor times_power_of_two(const at::Tensor& values, int exponent) {
  at::Tensor result = at::empty(values.sizes(), at::kFloat);
  const auto* in = values.const_data_ptr<float>();
  auto* out = result.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < values.numel(); ++i) out[i] = std::ldexp(in[i], exponent);
  return result;
}

// The decomposition of the weight before it was divided by 2^exponent.
LowRank rescaled(LowRank result, int exponent) {
  if (exponent == 0) return result;
  result.s = times_power_of_two(result.s, exponent);
  if (!std::isfinite(largest_magnitude(result.s.const_data_ptr<float>(), result.s.numel())))
    throw Error(ErrorKind::numeric, "a singular value is beyond the range of F32", "keep this layer as it is with `exclude_layers`");
  return result;
}

LowRank leading(const at::Tensor& weight, std::int64_t k) {
  const OneThread guard;
  const auto [u, s, vt] = at::linalg_svd(weight, /*full_matrices=*/false);
  return {u.narrow(1, 0, k).contiguous(), s.narrow(0, 0, k).contiguous(), vt.narrow(0, 0, k).t().contiguous()};
}

class RangeFinder {
 public:
  RangeFinder(const at::Tensor& weight, LayerContext& context) : weight_(weight), weight_t_(weight.t()), context_(context) {}

  at::Tensor times(const at::Tensor& x) { return product(weight_, x); }               // W x
  at::Tensor transposed_times(const at::Tensor& x) { return product(weight_t_, x); }  // W^T x

  at::Tensor normals(std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
    at::Tensor result = matrix(rows, columns);
    auto* values = result.mutable_data_ptr<float>();
    context_.parallel(tasks_for(rows), [&](std::int64_t task) {
      const std::int64_t first = task * kSumRowsPerTask, count = std::min(kSumRowsPerTask, rows - first);
      normal_values(seed, count * columns, values + first * columns, first * columns);
    });
    return result;
  }

  at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
    at::Tensor result = matrix(a.size(0), b.size(1));
    multiply(a, b, result, context_);
    return result;
  }

  // An orthonormal basis of the columns' range, completed where they are dependent: Householder's reflections need no rank.
  std::tuple<at::Tensor, at::Tensor> factor(const at::Tensor& columns) {
    context_.check_cancelled();
    const OneThread guard;
    return at::linalg_qr(columns);
  }
  at::Tensor basis(const at::Tensor& columns) { return std::get<0>(factor(columns)); }

 private:
  at::Tensor matrix(std::int64_t rows, std::int64_t columns) {
    const std::int64_t shape[] = {rows, columns};
    return context_.allocate(shape, DType::f32);
  }

  const at::Tensor& weight_;
  at::Tensor weight_t_;
  LayerContext& context_;
};

LowRank dominant(const at::Tensor& weight, std::int64_t k, std::uint64_t seed, LayerContext& context, int power_iterations) {
  RangeFinder finder(weight, context);
  const std::int64_t columns = weight.size(1);
  at::Tensor q = finder.basis(finder.times(finder.normals(columns, k + kOversampling, seed)));  // [N, k + 10]
  for (int i = 0; i < power_iterations; ++i) q = finder.basis(finder.times(finder.basis(finder.transposed_times(q))));
  // W ~ q (q^T W) = q r^T p^T with p r = W^T q; what is left is the small r^T.
  const auto [p, r] = finder.factor(finder.transposed_times(q));
  const LowRank small = leading(r.t(), k);
  return {finder.product(q, small.u), small.s, finder.product(p, small.v)};
}

}  // namespace

LowRank full_svd(const at::Tensor& weight, std::int64_t k) {
  require_arguments(weight, k, 0);
  const int exponent = safe_exponent(weight);
  const at::Tensor safe = exponent == 0 ? weight : times_power_of_two(weight, -exponent);
  return rescaled(leading(safe, std::min({k, weight.size(0), weight.size(1)})), exponent);
}

LowRank low_rank_svd(const at::Tensor& weight, std::int64_t k, std::uint64_t seed, LayerContext& context, int power_iterations) {
  require_arguments(weight, k, power_iterations);
  if (k + kOversampling >= std::min(weight.size(0), weight.size(1))) return full_svd(weight, k);
  const int exponent = safe_exponent(weight);
  const at::Tensor safe = exponent == 0 ? weight : times_power_of_two(weight, -exponent);
  return rescaled(dominant(safe, k, seed, context, power_iterations), exponent);
}

}  // namespace qmill
