#include <formats.h>
#include <gmock/gmock.h>
#include <model_file.h>
#include <qmill/error.h>
#include <qmill/plugin.h>
#include <test_context.h>

#include <limits>

extern "C" const qmill::PluginDescriptor qmill_plugin;

using namespace qmill;
using qmill::testing::random_weight;
using qmill::testing::TestContext;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

namespace {

class Fp16Plugin : public ::testing::Test {
 protected:
  const std::unique_ptr<Quantizer> quantizer{static_cast<Quantizer*>(qmill_plugin.offers[0].create())};

  TestContext context(const at::Tensor& weight, const char* overflow) const {
    LayerTarget target;
    target.format = &qmill::testing::writable_format("fp16");
    target.options = Options(quantizer->info().options);
    target.options.parse("fp16", "overflow", overflow);
    return {info_of({"a.weight", weight}), target};
  }

  std::string numeric_error(const at::Tensor& weight, const char* overflow) const {
    TestContext layer = context(weight, overflow);
    try {
      quantizer->quantize(weight, layer);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::numeric);
      return error.message();
    }
    ADD_FAILURE() << "nothing was thrown";
    return {};
  }
};

TEST_F(Fp16Plugin, ItOffersOneQuantizerOfTheFormatFp16) {
  ASSERT_EQ(qmill_plugin.offer_count, 1u);
  EXPECT_EQ(qmill_plugin.offers[0].kind, OfferKind::quantizer);
  EXPECT_STREQ(qmill_plugin.offers[0].name, quantizer->info().name.c_str());
  EXPECT_THAT(quantizer->info().formats, ElementsAre("fp16"));
}

TEST_F(Fp16Plugin, WeightsOfAnyShapeBecomeWhatThePlanSays) {
  const at::Tensor weight = random_weight(15, 7, at::kFloat, 1).view({3, 5, 7});
  TestContext layer = context(weight, "error");
  const StoredLayer stored = quantizer->quantize(weight, layer);
  ASSERT_EQ(stored.tensors.size(), 1u);
  EXPECT_THAT(quantizer->plan(layer.weight(), layer.target()), ElementsAre(info_of(stored.tensors[0])));
  EXPECT_TRUE(stored.tensors[0].data.equal(weight.to(at::kHalf)));
  EXPECT_THAT(layer.notes, IsEmpty());
}

TEST_F(Fp16Plugin, ValuesBeyondTheRangeAreAnErrorThatCountsThem) {
  const at::Tensor weight = random_weight(5, 7, at::kFloat, 2);
  weight.data_ptr<float>()[3] = 65520;
  weight.data_ptr<float>()[34] = -1e9f;
  EXPECT_EQ(numeric_error(weight, "error"), "2 of 35 values are beyond the range of F16 (65504)");
}

TEST_F(Fp16Plugin, ClampedValuesBecomeTheLargestAndAreNoted) {
  const at::Tensor weight = random_weight(5, 7, at::kFloat, 2);
  weight.data_ptr<float>()[3] = 65520;
  weight.data_ptr<float>()[34] = -1e9f;
  TestContext layer = context(weight, "clamp");
  const StoredLayer stored = quantizer->quantize(weight, layer);
  EXPECT_TRUE(stored.tensors[0].data.equal(weight.clamp(-65504, 65504).to(at::kHalf)));
  EXPECT_THAT(layer.notes, ElementsAre("2 values clamped to the range of F16"));
}

TEST_F(Fp16Plugin, ValuesThatAreNotFiniteAreAlwaysAnError) {
  const at::Tensor weight = random_weight(5, 7, at::kFloat, 3);
  weight.data_ptr<float>()[0] = std::numeric_limits<float>::infinity();
  weight.data_ptr<float>()[7] = std::numeric_limits<float>::quiet_NaN();
  for (const char* overflow : {"error", "clamp"}) EXPECT_THAT(numeric_error(weight, overflow), HasSubstr("2 of 35 values are not finite"));
}

}  // namespace
