// Whole quantizers on one 3072 x 3072 layer, found as the command finds them.
#include "bench_context.h"

#include "calibration_stub.h"

#include <qmill/core/host.h>

#include <ATen/ops/eye.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/round.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <benchmark/benchmark.h>

#include <cmath>

namespace {

constexpr std::int64_t kSide = 3072;
constexpr std::int64_t kRank = 614;  // a fifth

const at::Tensor& weight() {
  static const at::Tensor made = at::randn({kSide, kSide}, at::kFloat) * 0.02;
  return made;
}

const qmill::Host& host() {
  static const qmill::Host found({QMILL_BENCH_PLUGINS});
  return found;
}

void quantize(benchmark::State& state, const char* name, const qmill::LayerCalibration* inputs, const char* rotation) {
  const qmill::Quantizer& quantizer = host().quantizer(name);
  qmill::bench::BenchContext context(static_cast<int>(state.range(0)));
  context.layer = {"layer.weight", qmill::DType::f32, {kSide, kSide}};
  context.inputs = inputs;
  qmill::StorageOptions storage;
  storage.rotation = qmill::parse_rotation(rotation);
  const qmill::WritableFormat& format = host().format("int8");
  context.where = {&format, format.layout(context.layer, storage), qmill::Options(quantizer.info().options)};
  for (auto _ : state) context.on_worker([&] { benchmark::DoNotOptimize(quantizer.quantize(weight(), context)); });
}

void learned_rounding(benchmark::State& state) { quantize(state, "learned_rounding", nullptr, "off"); }

const qmill::LayerCalibration& rows() {
  static const qmill::testing::CalibrationStub stub = [] {
    at::set_num_threads(2);
    const at::Tensor mixed = at::randn({kSide, kSide}, at::kFloat) / std::sqrt(static_cast<double>(kSide)) + at::eye(kSide);
    return qmill::testing::CalibrationStub(at::mm(at::randn({2 * kSide, kSide}, at::kFloat), mixed));
  }();
  return stub;
}

void calibrated(benchmark::State& state, const char* name) { quantize(state, name, &rows(), "any"); }

// The loop as it is published: ten of its thousand iterations.
void published_loop(benchmark::State& state) {
  at::set_num_threads(static_cast<int>(state.range(0)));
  const at::Tensor& w = weight();
  const at::Tensor u = at::randn({kSide, kRank}, at::kFloat) / std::sqrt(static_cast<double>(kSide));
  const at::Tensor v = at::randn({kRank, kSide}, at::kFloat) / std::sqrt(static_cast<double>(kSide));
  const at::Tensor scale = w.abs().amax(1, true) / 127;
  const at::Tensor start = (w / scale).round();
  for (auto _ : state) {
    at::Tensor q = start.clone();
    for (int i = 0; i < 10; ++i) {
      const at::Tensor projected = at::mm(at::mm(u.t(), q * scale - w), v.t());
      const at::Tensor gradient = at::mm(at::mm(u, projected / projected.norm()), v);
      q = q - 8.077300000003e-3 * (gradient * scale);
    }
    benchmark::DoNotOptimize(q);
  }
}

BENCHMARK(learned_rounding)->Arg(2)->Iterations(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(published_loop)->Arg(2)->Iterations(1)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(calibrated, gptq, "gptq")->Arg(2)->Iterations(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(calibrated, quip, "quip")->Arg(2)->Iterations(2)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
