#include "run/correct_bias.h"

#include "plan/corrected_biases.h"
#include "report/measure.h"

#include "core_support.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <cmath>

namespace qmill {
namespace {

using testing::random_weight;

// Rows of inputs whose mean is far from zero, and what rounding to a coarse grid makes of a weight.
struct Layer {
  explicit Layer(at::ScalarType type, std::int64_t n = 33, std::int64_t k = 70)
      : weight(random_weight(n, k, type, 1)),
        stored(weight.to(at::kFloat).mul(0.5).round().mul(2)),
        inputs(random_weight(200, k, at::kFloat, 2).add(random_weight(1, k, at::kFloat, 3), 3)),
        mean(inputs.to(at::kDouble).mean(0).to(at::kFloat)) {}

  std::optional<CorrectedBias> correct(const at::Tensor& bias, int threads = 2) const {
    TaskPool tasks(threads);
    const RowDecoder rows = plain_rows(stored);
    return correct_bias(bias, measure(weight, {&rows, 1}, {{}, mean}, tasks).mean_shift);
  }
  // By how much the mean output is off, over the outputs.
  double mean_difference(const at::Tensor& before, const at::Tensor& after) const {
    const at::Tensor x = inputs.to(at::kDouble);
    const at::Tensor difference = x.matmul(weight.to(at::kDouble).sub(stored.to(at::kDouble)).t());
    return difference.mean(0).add(before.to(at::kDouble)).sub(after.to(at::kDouble)).abs().mean().item<double>();
  }

  at::Tensor weight, stored, inputs, mean;
};

TEST(BiasCorrection, IsThePlainExpressionForEveryType) {
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble})
    for (const at::ScalarType bias_type : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble}) {
      const Layer layer(type);
      const at::Tensor bias = random_weight(1, 33, bias_type, 4).view({33});
      const std::optional<CorrectedBias> corrected = layer.correct(bias);
      ASSERT_TRUE(corrected);
      const at::Tensor change = layer.weight.to(at::kDouble).sub(layer.stored.to(at::kDouble)).matmul(layer.mean.to(at::kDouble));
      const at::Tensor expected = bias.to(at::kDouble).add(change);
      EXPECT_EQ(corrected->values.scalar_type(), bias_type);
      // The sums differ in their last bits, which may decide between two neighbours.
      const double step = bias_type == at::kBFloat16 ? 1.0 / 128 : bias_type == at::kHalf ? 1.0 / 1024 : 1e-6;
      const at::Tensor off = corrected->values.to(at::kDouble).sub(expected).abs().div(expected.abs().add(0.01));
      EXPECT_LT(off.max().item<double>(), step);
      EXPECT_DOUBLE_EQ(corrected->largest_change, corrected->values.to(at::kDouble).sub(bias.to(at::kDouble)).abs().max().item<double>());
    }
}

TEST(BiasCorrection, TakesTheMeanDifferenceOfTheOutputsAway) {
  const Layer layer(at::kFloat);
  const at::Tensor bias = random_weight(1, 33, at::kFloat, 4).view({33});
  const double without = layer.mean_difference(bias, bias);
  const at::Tensor corrected = layer.correct(bias)->values;
  EXPECT_GT(without, 0.5);
  EXPECT_LT(layer.mean_difference(bias, corrected), 1e-5 * without);
  // The other sign would double it.
  EXPECT_NEAR(layer.mean_difference(bias, bias.mul(2).sub(corrected)) / without, 2, 1e-4);
}

TEST(BiasCorrection, IsTheSameForEveryNumberOfThreads) {
  const Layer layer(at::kBFloat16, 700, 513);
  const at::Tensor bias = random_weight(1, 700, at::kFloat, 4).view({700});
  const at::Tensor one = layer.correct(bias, 1)->values;
  for (const int threads : {2, 3, 8}) EXPECT_TRUE(layer.correct(bias, threads)->values.equal(one)) << threads;
}

TEST(BiasCorrection, AWeightThatIsStoredExactlyOrAZeroMeanChangesNothing) {
  Layer layer(at::kFloat);
  const at::Tensor bias = random_weight(1, 33, at::kHalf, 4).view({33});
  const at::Tensor mean = layer.mean;
  layer.mean = at::zeros({70});
  EXPECT_TRUE(layer.correct(bias)->values.equal(bias));
  layer.mean = mean;
  layer.stored = layer.weight;
  EXPECT_TRUE(layer.correct(bias)->values.equal(bias));
  EXPECT_EQ(layer.correct(bias)->largest_change, 0);
}

TEST(BiasCorrection, RoundsHalfToEven) {
  Layer layer(at::kFloat, 2, 1);
  layer.weight = at::full({2, 1}, 1.0f);
  layer.stored = at::full({2, 1}, 0.5f);
  layer.mean = at::full({1}, 2.0f);  // a change of 1
  at::Tensor bias = at::full({2}, 2048.0f, at::kHalf);
  bias.mutable_data_ptr<c10::Half>()[1] = 2050.0f;  // steps of 2 from here on
  const at::Tensor corrected = layer.correct(bias)->values;
  EXPECT_EQ(static_cast<float>(corrected.const_data_ptr<c10::Half>()[0]), 2048.0f);
  EXPECT_EQ(static_cast<float>(corrected.const_data_ptr<c10::Half>()[1]), 2052.0f);
}

TEST(BiasCorrection, WhatWouldNotBeFiniteIsNotCorrected) {
  Layer layer(at::kFloat, 2, 1);
  layer.weight = at::full({2, 1}, 1.0f);
  layer.stored = at::full({2, 1}, 0.5f);
  layer.mean = at::full({1}, 1e5f);
  EXPECT_FALSE(layer.correct(at::full({2}, 60000.0f, at::kHalf)));
  EXPECT_TRUE(layer.correct(at::full({2}, 60000.0f, at::kFloat)));
  EXPECT_FALSE(layer.correct(at::full({2}, std::nanf(""), at::kFloat)));
}

// A model with every kind of bias.
struct Biases {
  testing::Job job{{{"a.weight", random_weight(8, 6, at::kFloat, 1)},
                    {"a.bias", at::ones({8})},
                    {"kept.weight", random_weight(8, 6, at::kFloat, 2)},
                    {"kept.bias", at::ones({8})},
                    {"unknown.weight", random_weight(8, 6, at::kFloat, 3)},
                    {"unknown.bias", at::ones({8})},
                    {"shape.weight", random_weight(8, 6, at::kFloat, 4)},
                    {"shape.bias", at::ones({8, 1})},
                    {"type.weight", random_weight(8, 6, at::kFloat, 5)},
                    {"type.bias", at::ones({8}, at::kInt)},
                    {"none.weight", random_weight(8, 6, at::kFloat, 6)}}};

  Biases() { job.options.layers.exclude = "kept.weight"; }

  Plan plan() {
    Plan plan = job.plan();
    plan_corrected_biases(plan.decisions, [](const TensorInfo& weight) { return weight.name != "unknown.weight"; });
    return plan;
  }
};

TEST(BiasCorrection, IsPlannedForTheBiasOfAQuantizedLayerWithAKnownMean) {
  Biases biases;
  const Plan plan = biases.plan();
  EXPECT_EQ(plan.count(Action::correct), 1u);
  const Decision& bias = testing::decision_of(plan, "a.bias");
  EXPECT_EQ(bias.action, Action::correct);
  EXPECT_EQ(bias.rule, "bias_correction");
  EXPECT_EQ(bias.outputs, std::vector{bias.source});
  EXPECT_EQ(&plan.decisions.at(*testing::decision_of(plan, "a.weight").bias), &bias);
  for (const char* name : {"kept.weight", "unknown.weight", "shape.weight", "type.weight", "none.weight"})
    EXPECT_FALSE(testing::decision_of(plan, name).bias) << name;
  EXPECT_EQ(action_name(Action::correct), "correct");
}

TEST(BiasCorrection, ABiasThatSomebodyAskedToKeepOrRemoveStays) {
  Biases biases;
  biases.job.options.layers.exclude = "bias";
  EXPECT_EQ(biases.plan().count(Action::correct), 0u);
}

TEST(BiasCorrection, ABiasGoesWithItsLayerAlsoWhenItTurnsOutThatNothingIsKnown) {
  for (const std::optional<DType> keep : {std::optional<DType>(), std::optional(DType::f16)}) {
    Biases biases;
    biases.job.options.written.keep_dtype = keep;
    Plan plan = biases.plan();
    run_plan(*biases.job.source, plan);
    const at::Tensor bias = biases.job.output().tensors.at("a.bias");
    EXPECT_EQ(bias.scalar_type(), keep ? at::kHalf : at::kFloat);
    EXPECT_TRUE(bias.to(at::kFloat).equal(at::ones({8})));
    EXPECT_EQ(biases.job.output().tensors.size(), plan.output.tensors.size());
  }
}

}  // namespace
}  // namespace qmill
