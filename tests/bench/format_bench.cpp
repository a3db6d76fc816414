// One layer into each format, codes and stored tensors: plain rounding of BF16 weights, and gptq with real inputs.
#include "bench_context.h"

#include "calibration_stub.h"

#include <qmill/core/host.h>

#include <ATen/ops/eye.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <benchmark/benchmark.h>

#include <cmath>

namespace {

constexpr std::int64_t kSide = 4096;
constexpr std::int64_t kCalibratedSide = 2048;

const qmill::Host& host() {
  static const qmill::Host found({QMILL_BENCH_PLUGINS});
  return found;
}

void set_target(qmill::bench::BenchContext& context, const qmill::Quantizer& quantizer, const char* name, qmill::DType dtype, std::int64_t side) {
  context.layer = {"layer.weight", dtype, {side, side}};
  const qmill::WritableFormat& format = host().format(name);
  qmill::StorageOptions storage;
  if (!format.can_rotate(qmill::Scaling::block)) storage.rotation.mode = qmill::Rotation::Mode::off;  // where it can be switched off
  context.where = {&format, format.layout(context.layer, storage), qmill::Options(quantizer.info().options)};
}

void store(benchmark::State& state, const char* format) {
  const at::Tensor weight = at::randn({kSide, kSide}, at::kFloat).to(at::kBFloat16);
  qmill::bench::BenchContext context(static_cast<int>(state.range(0)));
  const qmill::Quantizer& quantizer = host().quantizer("rtn");
  set_target(context, quantizer, format, qmill::DType::bf16, kSide);
  for (auto _ : state) context.on_worker([&] { benchmark::DoNotOptimize(quantizer.quantize(weight, context)); });
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(weight.nbytes()));
}

const qmill::LayerCalibration& rows() {
  static const qmill::testing::CalibrationStub stub = [] {
    at::set_num_threads(2);
    const at::Tensor mixed =
        at::randn({kCalibratedSide, kCalibratedSide}, at::kFloat) / std::sqrt(static_cast<double>(kCalibratedSide)) + at::eye(kCalibratedSide);
    return qmill::testing::CalibrationStub(at::mm(at::randn({2 * kCalibratedSide, kCalibratedSide}, at::kFloat), mixed));
  }();
  return stub;
}

void gptq_to(benchmark::State& state, const char* format) {
  static const at::Tensor weight = at::randn({kCalibratedSide, kCalibratedSide}, at::kFloat) * 0.02;
  qmill::bench::BenchContext context(static_cast<int>(state.range(0)));
  context.inputs = &rows();
  const qmill::Quantizer& quantizer = host().quantizer("gptq");
  set_target(context, quantizer, format, qmill::DType::f32, kCalibratedSide);
  for (auto _ : state) context.on_worker([&] { benchmark::DoNotOptimize(quantizer.quantize(weight, context)); });
}

const int kRegistered = [] {
  for (const char* format : {"int8", "int4", "float8_e4m3fn", "mxfp8", "nvfp4", "asym_w4a8_int8"}) {
    benchmark::RegisterBenchmark((std::string("store/") + format).c_str(), store, format)->Arg(1)->UseRealTime()->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark((std::string("gptq_to/") + format).c_str(), gptq_to, format)
        ->Arg(2)
        ->Iterations(1)
        ->Repetitions(3)
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
  return 0;
}();

}  // namespace
