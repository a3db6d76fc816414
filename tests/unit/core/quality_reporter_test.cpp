#include <qmill/compat/quality_reporter.h>

#include "core_support.h"

#include <qmill/core/compare.h>

#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <cmath>

namespace qmill {
namespace {

using testing::expect_error;
using testing::host;
using testing::Job;
using testing::random_weight;

TEST(QualityReporter, SaysOfTensorsWhatCompareSaysOfFiles) {
  const at::Tensor weight = random_weight(300, 512, at::kBFloat16, 1);
  Job job({{"l.weight", weight}});
  job.options.target.storage.rotation.mode = Rotation::Mode::off;
  job.run();
  const auto tensors = job.output().tensors;
  const LayerQuality compared = compare_models(host(), *host().open(job.options.output), *host().open(job.options.input), 2).at(0);
  QualityReporter reporter;
  reporter.add_layer("l", weight, tensors.at("l.weight").to(at::kFloat).mul(tensors.at("l.weight_scale")));
  const LayerQuality& reported = reporter.layers().at(0);
  EXPECT_EQ(reported.name, "l");
  EXPECT_EQ(reported.mse, compared.mse);
  EXPECT_EQ(reported.sqnr_db, compared.sqnr_db);
  EXPECT_EQ(reported.max_error, compared.max_error);
  EXPECT_EQ(reporter.get_report_string(), quality_report_text({compared}, 30));
}

TEST(QualityReporter, UsesItsThreshold) {
  QualityReporter reporter(30.5);
  const at::Tensor weight = random_weight(8, 8, at::kFloat, 1);
  reporter.add_layer("good", weight, weight.mul(1.001));
  reporter.add_layer("bad", weight, weight.mul(1.1));  // 20 dB
  EXPECT_NE(reporter.get_report_string().find("Layers below 30.5 dB: 1 / 2"), std::string::npos) << reporter.get_report_string();
  EXPECT_NEAR(*reporter.layers().at(1).sqnr_db, 20, 1e-3);
}

TEST(QualityReporter, TakesEveryFloatingTypeAndAnyShape) {
  const at::Tensor weight = at::ones({3, 4, 5});
  QualityReporter reporter;
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble})
    reporter.add_layer("l", weight.to(type), weight.mul(1.5).to(at::kHalf));
  reporter.add_layer("transposed", weight.transpose(0, 2), weight.transpose(0, 2).mul(1.5));
  reporter.add_layer("scalar", at::ones({}), at::ones({}).mul(1.5));
  for (const LayerQuality& layer : reporter.layers()) EXPECT_EQ(layer.mse, 0.25) << layer.name;
}

TEST(QualityReporter, WithInputsAddsTheOutputError) {
  const at::Tensor weight = random_weight(20, 30, at::kBFloat16, 1);
  const at::Tensor found = weight.to(at::kFloat).add(random_weight(20, 30, at::kFloat, 2), 0.05);
  const at::Tensor inputs = random_weight(11, 30, at::kHalf, 3);
  QualityReporter reporter;
  reporter.add_layer("l", weight, found, inputs);
  const at::Tensor x = inputs.to(at::kDouble);
  const at::Tensor y = x.matmul(weight.to(at::kDouble).t());
  const double expected =
      at::linalg_vector_norm(y.sub(x.matmul(found.to(at::kDouble).t()))).item<double>() / at::linalg_vector_norm(y).item<double>();
  EXPECT_NEAR(*reporter.layers().at(0).output_error / expected, 1, 1e-5);
  EXPECT_EQ(reporter.layers().at(0).output_rows, 11);
  EXPECT_FALSE(reporter.layers().at(0).rounding_output_error);
  EXPECT_NE(reporter.get_report_string().find("Output Err"), std::string::npos);
}

TEST(QualityReporter, RefusesWhatItCannotCompareAndNamesTheLayer) {
  QualityReporter reporter;
  const at::Tensor weight = at::ones({3, 4});
  expect_error(ErrorKind::usage, {"'l'", "[3, 4]", "[4, 3]"}, [&] { reporter.add_layer("l", weight, at::ones({4, 3})); });
  expect_error(ErrorKind::usage, {"'l'", "I32"}, [&] { reporter.add_layer("l", weight, at::ones({3, 4}, at::kInt)); });
  expect_error(ErrorKind::usage, {"'l'", "original", "no tensor"}, [&] { reporter.add_layer("l", at::Tensor(), weight); });
  expect_error(ErrorKind::usage, {"'l'", "[2, 5]", "[3, 4]"}, [&] { reporter.add_layer("l", weight, weight, at::ones({2, 5})); });
  expect_error(ErrorKind::usage, {"'l'", "[4]"}, [&] { reporter.add_layer("l", weight, weight, at::ones({4})); });
  EXPECT_TRUE(reporter.layers().empty());
  EXPECT_EQ(reporter.get_report_string(), "No quality metrics were collected.\n");
}

}  // namespace
}  // namespace qmill
