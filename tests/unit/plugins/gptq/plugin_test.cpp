#include <calibration_stub.h>
#include <expect_error.h>
#include <formats.h>
#include <model_file.h>
#include <test_context.h>

#include <qmill/numerics/rounding.h>
#include <qmill/plugin.h>
#include <qmill/quantizer.h>

#include <ATen/ops/diag.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

extern "C" const qmill::PluginDescriptor qmill_plugin;

using namespace qmill;
using qmill::testing::CalibrationStub;
using qmill::testing::correlated_rows;
using qmill::testing::expect_error;
using qmill::testing::random_weight;
using qmill::testing::TestContext;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

namespace {

using Settings = std::vector<std::pair<const char*, const char*>>;

using qmill::testing::coded_format;

class GptqPlugin : public ::testing::Test {
 protected:
  const std::unique_ptr<Quantizer> quantizer{static_cast<Quantizer*>(qmill_plugin.offers[0].create())};
  const at::Tensor weight = random_weight(40, 256, at::kBFloat16, 1);
  const CalibrationStub calibration{correlated_rows(1200, 256, 2)};
  const LayerCalibration* known = &calibration;
  std::string format = "int8";
  StorageOptions storage;
  std::vector<std::string> notes;

  TestContext context(const Settings& settings = {}) const {
    LayerTarget target;
    target.format = &coded_format(format);
    target.layout = target.format->layout(info_of({"a.weight", weight}), storage);
    target.options = Options(quantizer->info().options);
    for (const auto& [name, value] : settings) target.options.parse("gptq", name, value);
    TestContext made(info_of({"a.weight", weight}), target);
    made.calibrated = known;
    return made;
  }

  StoredLayer run(const Settings& settings = {}) {
    TestContext layer = context(settings);
    StoredLayer stored = quantizer->quantize(weight, layer);
    notes = layer.notes;
    std::vector<TensorInfo> infos;
    for (const StoredTensor& tensor : stored.tensors) infos.push_back(info_of(tensor));
    EXPECT_EQ(infos, quantizer->plan(layer.weight(), layer.target()));
    return stored;
  }

  std::vector<StoredTensor> plain_rounding() const {
    TestContext layer = context();
    const LayerTarget& target = layer.target();
    return target.coded().encode(round_to_nearest(weight, target.coded().grid(), target.layout, layer), layer.weight(), target.layout);
  }

  // Relative, of what a reader decodes, on inputs that nothing was fitted to.
  double output_error(const std::vector<StoredTensor>& stored) const {
    TestContext layer = context();
    std::vector<at::Tensor> tensors;
    for (const StoredTensor& tensor : stored) tensors.push_back(tensor.data);
    const at::Tensor decoded = at::zeros(weight.sizes(), at::kFloat);
    layer.target().format->decode_rows(tensors, layer.target().layout, 0, weight.size(0), decoded.mutable_data_ptr<float>());
    const at::Tensor inputs = correlated_rows(100, 256, 3).t();
    const at::Tensor exact = weight.to(at::kFloat);
    return exact.sub(decoded).matmul(inputs).norm().item<double>() / exact.matmul(inputs).norm().item<double>();
  }
};

bool same_bytes(const std::vector<StoredTensor>& a, const std::vector<StoredTensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const StoredTensor& x, const StoredTensor& y) { return x.name == y.name && x.data.equal(y.data); });
}

double share_of_other_codes(const StoredLayer& a, const StoredLayer& b) {
  return a.tensors[0].data.ne(b.tensors[0].data).to(at::kDouble).mean().item<double>();
}

TEST_F(GptqPlugin, ItOffersOneQuantizerForEveryGridThatUsesCalibration) {
  ASSERT_EQ(qmill_plugin.offer_count, 1u);
  EXPECT_EQ(qmill_plugin.offers[0].kind, OfferKind::quantizer);
  EXPECT_STREQ(qmill_plugin.offers[0].name, quantizer->info().name.c_str());
  EXPECT_THAT(quantizer->info().formats, IsEmpty());
  EXPECT_TRUE(quantizer->info().uses_calibration);
}

TEST_F(GptqPlugin, EveryFormatAndScalingHasASmallerErrorOnRealInputs) {
  for (const char* name : {"int8", "int4"})
    for (const Scaling scaling : {Scaling::row, Scaling::tensor, Scaling::axis, Scaling::block})
      for (const Rotation::Mode mode : {Rotation::Mode::automatic, Rotation::Mode::off}) {
        if (name == std::string_view("int4") && scaling != Scaling::row) continue;
        SCOPED_TRACE(std::string(name) + " " + std::string(scaling_name(scaling)));
        format = name;
        storage = {};
        storage.scaling = scaling;
        storage.block_size = 8;
        storage.rotation.mode = mode;
        EXPECT_EQ(context().target().layout.rotation_group, scaling == Scaling::row && mode == Rotation::Mode::automatic ? 256 : 0);
        const StoredLayer stored = run();
        EXPECT_THAT(notes, IsEmpty());
        EXPECT_LT(output_error(stored.tensors), 0.8 * output_error(plain_rounding()));
        EXPECT_LT(stored.statistics.at("objective"), 0.8 * stored.statistics.at("objective_rtn"));
        EXPECT_LT(stored.statistics.at("output_error"), 0.8 * stored.statistics.at("output_error_rtn"));
      }
}

TEST_F(GptqPlugin, WithoutCalibrationItIsPlainRoundingAndSaysSo) {
  known = nullptr;
  for (const Scaling scaling : {Scaling::row, Scaling::tensor, Scaling::axis, Scaling::block}) {
    storage = {};
    storage.scaling = scaling;
    storage.block_size = 8;
    EXPECT_TRUE(same_bytes(run().tensors, plain_rounding())) << scaling_name(scaling);
    EXPECT_THAT(notes, ElementsAre(HasSubstr("no calibration data")));
    EXPECT_TRUE(same_bytes(run({{"actorder", "true"}, {"block_size", "7"}, {"damping", "1"}}).tensors, plain_rounding()));
  }
  format = "int4";
  storage = {};
  EXPECT_TRUE(same_bytes(run({{"scale_search", "off"}}).tensors, plain_rounding()));
  EXPECT_FALSE(same_bytes(run().tensors, plain_rounding()));
}

TEST_F(GptqPlugin, TheOrderOfColumnsChangesCodesAndLowersTheObjectiveWhereInputsDiffer) {
  storage.rotation.mode = Rotation::Mode::off;
  format = "int4";
  const StoredLayer in_order = run({{"damping", "0.01"}}), by_activation = run({{"damping", "0.01"}, {"actorder", "true"}});
  EXPECT_GT(share_of_other_codes(in_order, by_activation), 0.01);
  EXPECT_LT(by_activation.statistics.at("objective"), in_order.statistics.at("objective"));
}

TEST_F(GptqPlugin, FormatsWithScalesOfTheirOwnHaveASmallerErrorOnRealInputs) {
  for (const char* name : {"float8_e4m3fn", "float8_e5m2", "mxfp8", "nvfp4", "asym_w4a8_int8"}) {
    SCOPED_TRACE(name);
    format = name;
    const StoredLayer stored = run();
    EXPECT_THAT(notes, IsEmpty());
    EXPECT_LT(output_error(stored.tensors), 0.85 * output_error(plain_rounding()));
    EXPECT_LT(stored.statistics.at("objective"), 0.85 * stored.statistics.at("objective_rtn"));
    EXPECT_LT(output_error(run({{"actorder", "true"}}).tensors), 0.85 * output_error(plain_rounding()));
  }
}

TEST_F(GptqPlugin, DescentPassesLowerTheObjective) {
  for (const char* name : {"int8", "nvfp4", "asym_w4a8_int8"}) {
    SCOPED_TRACE(name);
    format = name;
    const auto objective = [&](const char* passes) {
      const double found = run({{"damping", "0.01"}, {"descent_passes", passes}}).statistics.at("objective");
      EXPECT_THAT(notes, IsEmpty());
      return found;
    };
    const double none = objective("0"), one = objective("1"), five = objective("5");
    EXPECT_LT(one, none);
    EXPECT_LE(five, one);
    EXPECT_EQ(run({{"damping", "0.01"}}).statistics.at("objective"), none);
  }
  expect_error(ErrorKind::usage, {"descent_passes"}, [&] { run({{"descent_passes", "-1"}}); });
}

TEST_F(GptqPlugin, BlocksChangeTheSpeedAlone) {
  const StoredLayer usual = run();
  for (const Settings& settings : {Settings{{"fast", "false"}}, Settings{{"block_size", "1"}}, Settings{{"block_size", "7"}},
                                   Settings{{"block_size", "100000"}}, Settings{{"block_size", "1"}, {"fast", "false"}}}) {
    const StoredLayer other = run(settings);
    EXPECT_LE(share_of_other_codes(usual, other), 0.001) << settings[0].first << " " << settings[0].second;
    EXPECT_NEAR(other.statistics.at("objective") / usual.statistics.at("objective"), 1, 1e-4);
  }
  expect_error(ErrorKind::usage, {"block_size", "at least 1"}, [&] { run({{"block_size", "0"}}); });
}

TEST_F(GptqPlugin, TurboIsSaidToChangeNothing) {
  const StoredLayer usual = run();
  EXPECT_TRUE(same_bytes(run({{"turbo", "true"}}).tensors, usual.tensors));
  EXPECT_THAT(notes, ElementsAre(HasSubstr("turbo")));
}

TEST_F(GptqPlugin, DampingAndScaleSearchAreLive) {
  const StoredLayer little = run({{"damping", "0.001"}}), much = run({{"damping", "10"}});
  EXPECT_GT(share_of_other_codes(little, much), 0.01);
  EXPECT_EQ(little.statistics.at("damping"), 0.001);
  EXPECT_LT(little.statistics.at("objective"), much.statistics.at("objective"));
  EXPECT_TRUE(same_bytes(run({{"scale_search", "off"}}).tensors, run().tensors));
  EXPECT_FALSE(same_bytes(run({{"scale_search", "hessian"}}).tensors, run().tensors));
  expect_error(ErrorKind::usage, {"'damping' is '-1'"}, [&] { run({{"damping", "-1"}}); });
  expect_error(ErrorKind::usage, {"scale_search"}, [&] { run({{"scale_search", "max"}}); });
  format = "int4";
  EXPECT_TRUE(same_bytes(run({{"scale_search", "hessian"}}).tensors, run().tensors));
  EXPECT_LT(run().statistics.at("objective"), run({{"scale_search", "off"}}).statistics.at("objective"));
}

TEST_F(GptqPlugin, CalibrationThatCannotBeComputedWithIsAnError) {
  const at::Tensor indefinite = at::eye(256);
  indefinite[3][3] = -5;
  const std::pair<CalibrationStub, ErrorKind> cases[] = {
      {CalibrationStub::of_hessian(at::eye(255)), ErrorKind::input},
      {CalibrationStub::of_hessian(at::full({256, 256}, NAN)), ErrorKind::numeric},
      {CalibrationStub::of_hessian(indefinite), ErrorKind::numeric},
  };
  for (const Rotation::Mode mode : {Rotation::Mode::automatic, Rotation::Mode::off})
    for (const auto& [bad, kind] : cases) {
      storage.rotation.mode = mode;
      known = &bad;
      expect_error(kind, {"Hessian"}, [&] { run(); });
    }
}

}  // namespace
