// Scales that are quantized themselves: codes are chosen for the scales that are stored, and decode to what was seen.
#include <calibration_stub.h>
#include <model_file.h>
#include <quantized_scales.h>
#include <threaded_context.h>

#include <qmill/numerics/calibrated_rounding.h>
#include <qmill/numerics/rounding.h>
#include <qmill/round_to_nearest.h>

#include <gtest/gtest.h>

using namespace qmill;
using qmill::testing::as_seen;
using qmill::testing::CalibrationStub;
using qmill::testing::correlated_rows;
using qmill::testing::decoded_by;
using qmill::testing::QuantizedScales;
using qmill::testing::random_weight;
using qmill::testing::ThreadedContext;

namespace scale_grid_test {

const qmill::testing::PowersOfTwo kPowers;
const qmill::testing::TensorTimesE4m3 kLevels;

// What gptq does.
class Calibrated final : public GridQuantizer {
 public:
  explicit Calibrated(ScaleSearch search) : search_(search) {}
  const QuantizerInfo& info() const override {
    static const QuantizerInfo info;
    return info;
  }

 protected:
  CodedWeight choose_codes(at::Tensor weight, const Grid& grid, const Layout& layout, LayerContext& context) const override {
    CalibratedRounding how;
    how.damping = 0.01;
    how.scale_search = search_;
    return round_calibrated(weight, grid, layout, inputs_in_stored_basis(layout, context).get(), how, context);
  }

 private:
  ScaleSearch search_;
};

struct Case {
  const char* name;
  const ScaleGrid* scales;
  std::vector<float> values;
};

class QuantizedScalesOf : public ::testing::TestWithParam<Case> {
 protected:
  const QuantizedScales format{*GetParam().scales, GetParam().values};
  const at::Tensor weight = random_weight(40, 70, at::kFloat, 1);
  const TensorInfo info{"a.weight", DType::f32, {40, 70}};
  const Layout layout = format.layout(info, {});

  // Returns what was decoded, which is what the quantizer saw.
  at::Tensor expect_consistent(const Quantizer& quantizer, const LayerCalibration* calibration = nullptr) {
    ThreadedContext context(2, info, {&format, layout, {}});
    context.calibrated = calibration;
    const StoredLayer stored = quantizer.quantize(weight, context);
    const at::Tensor decoded = decoded_by(format, stored.tensors, layout, weight.sizes());
    EXPECT_TRUE(decoded.equal(as_seen(format.seen, format.grid(), layout)));
    // They are scales that can be stored: storing them changes nothing.
    EXPECT_TRUE(GetParam().scales->stored(format.seen.scales, format.seen.common_scale).equal(format.seen.scales));
    return decoded;
  }
};

TEST_P(QuantizedScalesOf, PlainRoundingTakesTheNearestCodeForTheStoredScale) {
  expect_consistent(plain_rounding());
  const CodedWeight& coded = format.seen;
  for (std::int64_t i = 0; i < weight.numel(); ++i) {
    const float scale = coded.scales.const_data_ptr<float>()[i / 70 * coded.scales.size(1) + i % 70 / layout.tile_columns];
    ASSERT_EQ(int{coded.codes.const_data_ptr<std::int8_t>()[i]}, format.grid().nearest(weight.const_data_ptr<float>()[i] / scale)) << i;
  }
}

TEST_P(QuantizedScalesOf, WithRealInputsTheObjectiveIsThatOfWhatIsStored) {
  const CalibrationStub calibration(correlated_rows(400, 70, 2));
  for (const ScaleSearch search : {ScaleSearch::off, ScaleSearch::mse, ScaleSearch::hessian}) {
    const at::Tensor rounded = expect_consistent(plain_rounding());
    const at::Tensor decoded = expect_consistent(Calibrated(search), &calibration);
    const auto objective = [&](const at::Tensor& values) {
      const at::Tensor errors = weight.sub(values).to(at::kDouble);
      return errors.mm(calibration.given_hessian.to(at::kDouble)).mul(errors).sum().item<double>() / 40;
    };
    EXPECT_NEAR(format.seen.statistics.at("objective"), objective(decoded), 1e-4 * objective(decoded));
    EXPECT_NEAR(format.seen.statistics.at("objective_rtn"), objective(rounded), 1e-4 * objective(rounded));
    EXPECT_LT(objective(decoded), objective(rounded));
  }
}

TEST_P(QuantizedScalesOf, AWeightInPartsHasTheSameScalesAndCodes) {
  const CalibrationStub calibration(correlated_rows(400, 70, 2));
  const at::Tensor tall = random_weight(300, 70, at::kFloat, 3);
  ThreadedContext context(2, {"a.weight", DType::f32, {300, 70}}, {&format, layout, {}});
  context.calibrated = &calibration;
  CalibratedRounding how;
  how.damping = 0.01;
  const auto inputs = inputs_in_stored_basis(layout, context);
  const CodedWeight whole = round_calibrated(tall.clone(), format.grid(), layout, inputs.get(), how, context);
  const CodedWeight parts = round_calibrated_in_parts(tall, 128, how, context);
  EXPECT_TRUE(whole.codes.equal(parts.codes));
  EXPECT_TRUE(whole.scales.equal(parts.scales));
  EXPECT_EQ(whole.common_scale.defined(), parts.common_scale.defined());
  if (whole.common_scale.defined()) {
    EXPECT_TRUE(whole.common_scale.equal(parts.common_scale));
  }
}

INSTANTIATE_TEST_SUITE_P(Grids, QuantizedScalesOf,
                         ::testing::Values(Case{"IntegersAndPowersOfTwo", &kPowers, {}},
                                           Case{"IntegersAndTwoLevels", &kLevels, {}},
                                           Case{"TableAndTwoLevels", &kLevels, qmill::testing::e2m1_values()}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(StoredScales, WithoutAGridTheyAreWhatIsWishedFor) {
  const at::Tensor wished = random_weight(3, 4, at::kFloat, 1).abs();
  const TileScales scales = stored_scales({wished}, Grid());
  EXPECT_TRUE(scales.values.is_same(wished));
  EXPECT_FALSE(scales.common.defined());
}

}  // namespace scale_grid_test
