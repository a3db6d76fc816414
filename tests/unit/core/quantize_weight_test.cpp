#include <qmill/core/quantize_weight.h>

#include "core_support.h"

#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/TensorOperators.h>

#include <limits>

namespace qmill {
namespace {

using testing::expect_error;
using testing::host;
using testing::random_weight;

const at::Tensor kGivenWeight = random_weight(16, 40, at::kFloat, 1);

at::Tensor correlated_rows(std::int64_t count) { return random_weight(count, 40, at::kFloat, 2).mm(random_weight(40, 40, at::kFloat, 3)); }

double output_error(const QuantizedWeight& quantized, const at::Tensor& inputs) {
  return (inputs.mm((kGivenWeight - quantized.dequantized).t()).norm() / inputs.mm(kGivenWeight.t()).norm()).item<double>();
}

TEST(QuantizeWeight, WithoutInputsItIsRoundedToNearest) {
  const QuantizedWeight quantized = quantize_weight(host(), {}, "a.weight", kGivenWeight);
  ASSERT_EQ(quantized.tensors.size(), 3u);
  EXPECT_EQ(quantized.tensors[0].name, "a.weight");
  EXPECT_EQ(quantized.tensors[1].name, "a.weight_scale");
  const at::Tensor scale = kGivenWeight.abs().amax(1, true) / 127;
  EXPECT_LE((kGivenWeight - quantized.dequantized).abs().div(scale).max().item<float>(), 0.5001F);
  EXPECT_EQ(quantized.report.quantizer, "rtn");
  EXPECT_EQ(quantized.report.quality.name, "a");
}

TEST(QuantizeWeight, AutoUsesTheInputs) {
  const at::Tensor inputs = correlated_rows(600);
  const QuantizedWeight plain = quantize_weight(host(), {}, "a.weight", kGivenWeight);
  const QuantizedWeight by_rows = quantize_weight(host(), {}, "a.weight", kGivenWeight, WeightInputs{.rows = inputs.narrow(0, 0, 300)});
  const at::Tensor fitted = inputs.narrow(0, 0, 300);
  const QuantizedWeight by_hessian = quantize_weight(host(), {}, "a.weight", kGivenWeight, WeightInputs{.hessian = fitted.t().mm(fitted)});
  const at::Tensor fresh = inputs.narrow(0, 300, 300);
  EXPECT_EQ(by_rows.report.quantizer, "gptq");
  EXPECT_EQ(by_hessian.report.quantizer, "gptq");
  EXPECT_EQ(by_rows.report.quality.output_rows, 60);
  EXPECT_LT(output_error(by_rows, fresh), 0.8 * output_error(plain, fresh));
  EXPECT_LT(output_error(by_hessian, fresh), 0.8 * output_error(plain, fresh));
}

TEST(QuantizeWeight, TheSameForEveryNumberOfThreads) {
  ConvertOptions options;
  options.target.quantizer = "quip";
  std::vector<at::Tensor> codes;
  for (const int threads : {1, 4}) {
    options.run.threads = threads;
    codes.push_back(quantize_weight(host(), options, "a.weight", kGivenWeight, WeightInputs{.rows = correlated_rows(100)}).tensors[0].data);
  }
  EXPECT_TRUE(codes[0].equal(codes[1]));
}

TEST(QuantizeWeight, WhatDoesNotFitIsRefused) {
  const auto run = [](const at::Tensor& weight, const WeightInputs& inputs = {}) {
    quantize_weight(host(), {}, "a.weight", weight, inputs);
  };
  expect_error(ErrorKind::usage, {"the weight is F32 40", "expected a floating matrix"}, [&] { run(kGivenWeight[0]); });
  expect_error(ErrorKind::usage, {"the weight is no tensor"}, [&] { run({}); });
  expect_error(ErrorKind::usage, {"the weight is I8"}, [&] { run(kGivenWeight.to(at::kChar)); });
  expect_error(ErrorKind::usage, {"hessian is F32 39 x 39, expected a floating 40 x 40"},
               [&] { run(kGivenWeight, {.hessian = at::eye(39)}); });
  expect_error(ErrorKind::usage, {"rows is F32 3 x 39, expected a floating rows x 40"},
               [&] { run(kGivenWeight, {.rows = random_weight(3, 39, at::kFloat, 1)}); });
  expect_error(ErrorKind::usage, {"rows is F32 0 x 40"}, [&] { run(kGivenWeight, {.rows = kGivenWeight.narrow(0, 0, 0)}); });
  expect_error(ErrorKind::usage, {"a Hessian and rows are given"},
               [&] { run(kGivenWeight, {.hessian = at::eye(40), .rows = kGivenWeight}); });
  expect_error(ErrorKind::numeric, {"rows has values that are not finite"},
               [&] { run(kGivenWeight, {.rows = at::full({3, 40}, std::numeric_limits<float>::quiet_NaN())}); });
  expect_error(ErrorKind::numeric, {"a.weight", "not finite"}, [&] { run(at::full({4, 40}, std::numeric_limits<float>::infinity())); });
}

}  // namespace
}  // namespace qmill
