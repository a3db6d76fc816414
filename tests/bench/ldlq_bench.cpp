// Rounding with feedback of one 4096 x 4096 layer, factorization included: our kernel, the customary implementation with LibTorch's
// operators, and a matrix product to compare the number of operations with.
#include "bench_context.h"
#include "bench_grids.h"

#include <qmill/numerics/ldlq.h>
#include <qmill/numerics/rounding.h>

#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_cholesky.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/round.h>
#include <ATen/ops/zeros_like.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <benchmark/benchmark.h>

#include <atomic>
#include <cmath>
#include <thread>

namespace {

constexpr std::int64_t kSide = 4096;
constexpr double kDamping = 0.01;

struct Problem {
  at::Tensor weight, hessian, scales;
  qmill::Layout layout;
  qmill::Grid grid;
};

// Correlated inputs of unequal size.
const Problem& problem() {
  static const Problem made = [] {
    at::set_num_threads(static_cast<int>(std::thread::hardware_concurrency()));
    Problem p;
    p.weight = at::randn({kSide, kSide}, at::kFloat) * 0.02;
    const at::Tensor mixed = at::randn({kSide, kSide}, at::kFloat) / std::sqrt(static_cast<double>(kSide)) + at::eye(kSide);
    const at::Tensor inputs = at::mm(at::randn({2 * kSide, kSide}, at::kFloat), mixed) * at::exp(at::randn({kSide}) * 0.5);
    p.hessian = at::mm(inputs.t(), inputs) / inputs.size(0);
    p.layout.tile_columns = kSide;
    qmill::bench::BenchContext context(1);
    p.scales = qmill::tile_scales(p.weight, p.grid, p.layout, context).values.clone();
    return p;
  }();
  return made;
}

// LDLQ takes K^3 / 3 operations for the factor and N K^2 for the updates, as a product counts them: two thirds of those of this one.
void square_product(benchmark::State& state) {
  at::set_num_threads(static_cast<int>(state.range(0)));
  const at::Tensor a = at::randn({kSide, kSide}, at::kFloat);
  const at::Tensor b = at::randn({kSide, kSide}, at::kFloat);
  at::Tensor product = at::mm(a, b);
  for (auto _ : state) benchmark::DoNotOptimize(at::mm_out(product, a, b));
}

void run_ldlq(benchmark::State& state, const qmill::Grid& grid = problem().grid) {
  const Problem& p = problem();
  qmill::bench::BenchContext context(static_cast<int>(state.range(0)));
  const at::Tensor scales = p.scales * (p.grid.largest() / grid.largest());
  const auto run = [&] {
    context.on_worker([&] {
      const qmill::HessianFactor factor = qmill::factor_hessian(p.hessian, kSide, {kDamping, false}, context);
      benchmark::DoNotOptimize(qmill::round_with_feedback(p.weight, {scales}, grid, p.layout, factor, context));
    });
  };
  run();  // a run of many layers works in memory that was used before
  for (auto _ : state) run();
}

void ldlq(benchmark::State& state) { run_ldlq(state); }
void ldlq_int4(benchmark::State& state) { run_ldlq(state, qmill::bench::int4()); }
void ldlq_e2m1(benchmark::State& state) { run_ldlq(state, qmill::bench::e2m1()); }
void ldlq_e4m3(benchmark::State& state) { run_ldlq(state, qmill::bench::e4m3()); }

// Somebody else keeps one processor busy.
void ldlq_beside_a_busy_neighbour(benchmark::State& state) {
  std::atomic<bool> stop = false;
  std::thread neighbour([&] {
    volatile double x = 1;
    while (!stop) x = x * 1.0000001;
  });
  run_ldlq(state);
  stop = true;
  neighbour.join();
}

// Cholesky, inverse, Cholesky of the inverse; then columns in blocks of 128.
void ldlq_libtorch(benchmark::State& state) {
  constexpr std::int64_t kBlock = 128;
  const Problem& p = problem();
  at::set_num_threads(static_cast<int>(state.range(0)));
  for (auto _ : state) {
    at::Tensor h = p.hessian.clone();
    h.diagonal().add_(kDamping * h.diagonal().mean().item<float>());
    const at::Tensor upper = at::linalg_cholesky(at::cholesky_inverse(at::linalg_cholesky(h))).mH().contiguous();
    at::Tensor w = p.weight.clone();
    at::Tensor codes = at::empty_like(w);
    for (std::int64_t begin = 0; begin < kSide; begin += kBlock) {
      at::Tensor block = w.narrow(1, begin, kBlock).clone();
      at::Tensor errors = at::zeros_like(block);
      const at::Tensor corner = upper.narrow(0, begin, kBlock).narrow(1, begin, kBlock);
      for (std::int64_t k = 0; k < kBlock; ++k) {
        const at::Tensor column = block.narrow(1, k, 1);
        const at::Tensor q = (column / p.scales).round().clamp(-127, 127);
        codes.narrow(1, begin + k, 1).copy_(q);
        const at::Tensor error = (column - q * p.scales) / corner[k][k];
        if (k + 1 < kBlock)
          block.narrow(1, k + 1, kBlock - k - 1).sub_(at::mm(error, corner.narrow(0, k, 1).narrow(1, k + 1, kBlock - k - 1)));
        errors.narrow(1, k, 1).copy_(error);
      }
      const std::int64_t end = begin + kBlock;
      if (end < kSide) w.narrow(1, end, kSide - end).sub_(at::mm(errors, upper.narrow(0, begin, kBlock).narrow(1, end, kSide - end)));
    }
    benchmark::DoNotOptimize(codes);
  }
}

BENCHMARK(square_product)->Arg(1)->Arg(2)->Iterations(1)->Repetitions(7)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(ldlq)->Arg(1)->Arg(2)->Iterations(1)->Repetitions(7)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(ldlq_int4)->Arg(1)->Iterations(1)->Repetitions(3)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(ldlq_e2m1)->Arg(1)->Iterations(1)->Repetitions(3)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(ldlq_e4m3)->Arg(1)->Iterations(1)->Repetitions(3)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(ldlq_beside_a_busy_neighbour)->Arg(2)->Iterations(1)->Repetitions(3)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(ldlq_libtorch)->Arg(1)->Arg(2)->Iterations(1)->Repetitions(3)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
