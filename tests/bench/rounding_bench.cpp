// Plain rounding of one layer: the fused kernel, the same expression in LibTorch's operators, and memcpy of the source.
#include "bench_context.h"
#include "bench_grids.h"

#include <qmill/numerics/rounding.h>

#include <ATen/ops/amax.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/round.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <benchmark/benchmark.h>

#include <cstring>

namespace {

constexpr std::int64_t kRows = 4096;
constexpr std::int64_t kColumns = 4096;
constexpr std::int64_t kGroup = 256;

at::Tensor weight(at::ScalarType dtype) { return at::randn({kRows, kColumns}, at::kFloat).to(dtype); }

void count_source(benchmark::State& state, const at::Tensor& source) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(source.nbytes()));
}

void memcpy_source(benchmark::State& state, at::ScalarType dtype) {
  const at::Tensor source = weight(dtype);
  at::Tensor target = at::empty_like(source);
  target.zero_();
  for (auto _ : state) {
    std::memcpy(target.mutable_data_ptr(), source.const_data_ptr(), source.nbytes());
    benchmark::ClobberMemory();
  }
  count_source(state, source);
}

void fused(benchmark::State& state, at::ScalarType dtype, std::int64_t group, const qmill::Grid& grid = {}) {
  const at::Tensor source = weight(dtype);
  qmill::bench::BenchContext context(static_cast<int>(state.range(0)));
  qmill::Layout layout;
  layout.tile_columns = kColumns;
  layout.rotation_group = group;
  for (auto _ : state) benchmark::DoNotOptimize(qmill::round_to_nearest(source, grid, layout, context));
  count_source(state, source);
}

at::Tensor hadamard() {
  at::Tensor h = at::ones({1, 1}, at::kFloat);
  at::Tensor h4 = at::ones({4, 4}, at::kFloat);
  for (int i = 0; i < 4; ++i) h4[i][3 - i] = -1.0f;
  while (h.size(0) < kGroup) {
    const std::int64_t n = h.size(0) * 4;
    h = (h.unsqueeze(1).unsqueeze(3) * h4.unsqueeze(0).unsqueeze(2)).reshape({n, n}) / 2;
  }
  return h;
}

void libtorch(benchmark::State& state, at::ScalarType dtype, bool rotate) {
  at::set_num_threads(static_cast<int>(state.range(0)));
  const at::Tensor source = weight(dtype);
  const at::Tensor h = hadamard();
  for (auto _ : state) {
    at::Tensor values = source.to(at::kFloat);
    if (rotate) values = at::matmul(values.view({-1, kGroup}), h).view({kRows, kColumns});
    const at::Tensor scales = (values.abs().amax(1, true) / 127).clamp_min(1e-30);
    benchmark::DoNotOptimize((values / scales).round().clamp(-127, 127).to(at::kChar));
  }
  count_source(state, source);
}

BENCHMARK_CAPTURE(memcpy_source, bf16, at::kBFloat16)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(memcpy_source, f16, at::kHalf)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(memcpy_source, f32, at::kFloat)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fused, bf16_row, at::kBFloat16, 0)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fused, bf16_rotated, at::kBFloat16, kGroup)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fused, f16_row, at::kHalf, 0)->Arg(1)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fused, f32_row, at::kFloat, 0)->Arg(1)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fused, f32_rotated, at::kFloat, kGroup)->Arg(1)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fused, bf16_row_int4, at::kBFloat16, 0, qmill::bench::int4())->Arg(1)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fused, bf16_row_e2m1, at::kBFloat16, 0, qmill::bench::e2m1())->Arg(1)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(fused, bf16_row_e4m3, at::kBFloat16, 0, qmill::bench::e4m3())->Arg(1)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(libtorch, bf16_row, at::kBFloat16, false)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(libtorch, bf16_rotated, at::kBFloat16, true)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
