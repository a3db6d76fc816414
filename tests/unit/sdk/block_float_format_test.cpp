// nvfp4 and mxfp8 as they are written: padding, the order of scales, and scales at the ends of their range.
#include <expect_error.h>
#include <formats.h>
#include <model_file.h>
#include <test_context.h>

#include <qmill/numerics/rounding.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <limits>

using namespace qmill;
using qmill::testing::coded_format;
using qmill::testing::expect_error;
using qmill::testing::random_weight;
using qmill::testing::TestContext;

namespace block_float_format_test {

using Shape = std::vector<std::int64_t>;

std::vector<StoredTensor> written(const char* name, const at::Tensor& weight) {
  const CodedFormat& format = coded_format(name);
  const TensorInfo info = info_of({"l.weight", weight});
  const Layout layout = format.layout(info, {});
  TestContext context(info, {&format, layout, {}});
  return format.encode(round_to_nearest(weight, format.grid(), layout, context), info, layout);
}

const std::uint8_t* bytes(const at::Tensor& tensor) { return static_cast<const std::uint8_t*>(tensor.const_data_ptr()); }

TEST(PaddedShapes, AreMultiplesOf16Or32AndScalesOf128And4) {
  struct Expected {
    const char* format;
    Shape shape, weight, scales;
  };
  for (const Expected& expected : {Expected{"nvfp4", {7, 5}, {16, 8}, {128, 4}}, Expected{"nvfp4", {16, 64}, {16, 32}, {128, 4}},
                                   Expected{"nvfp4", {129, 65}, {144, 40}, {256, 8}}, Expected{"nvfp4", {1, 16}, {16, 8}, {128, 4}},
                                   Expected{"mxfp8", {7, 5}, {32, 32}, {128, 4}}, Expected{"mxfp8", {32, 128}, {32, 128}, {128, 4}},
                                   Expected{"mxfp8", {129, 129}, {160, 160}, {256, 8}}}) {
    SCOPED_TRACE(expected.format);
    const CodedFormat& format = coded_format(expected.format);
    const TensorInfo weight = {"l.weight", DType::bf16, expected.shape};
    const auto outputs = format.outputs(weight, format.layout(weight, {}));
    EXPECT_EQ(outputs[0].shape, expected.weight);
    EXPECT_EQ(outputs[1].name, "l.weight_scale");
    EXPECT_EQ(outputs[1].shape, expected.scales);
    const bool is_nvfp4 = std::string_view(expected.format) == "nvfp4";
    EXPECT_EQ(outputs[0].dtype, is_nvfp4 ? DType::u8 : DType::f8_e4m3);
    EXPECT_EQ(outputs[1].dtype, is_nvfp4 ? DType::f8_e4m3 : DType::u8);
    ASSERT_EQ(outputs.size(), is_nvfp4 ? 4u : 3u);
    if (!is_nvfp4) continue;
    EXPECT_EQ(outputs[2], (TensorInfo{"l.weight_scale_2", DType::f32, {}}));
  }
}

TEST(PaddedShapes, TheMarkerSaysTheTrueShapeWhereItIsAnother) {
  for (const char* name : {"nvfp4", "mxfp8"}) {
    const auto marker = [&](Shape shape) {
      const CodedFormat& format = coded_format(name);
      return nlohmann::json::parse(format.label(format.layout({"l.weight", DType::bf16, shape}, {})).marker);
    };
    EXPECT_FALSE(marker({32, 64}).contains("orig_shape")) << name;
    for (const Shape& shape : {Shape{31, 64}, Shape{32, 63}, Shape{1, 1}})
      EXPECT_EQ(marker(shape).at("orig_shape").get<Shape>(), shape) << name;
  }
}

TEST(PaddedShapes, AHostileTrueShapeIsAnError) {
  const auto recognised = [](const std::string& shape) {
    const CodedFormat& format = coded_format("nvfp4");
    const StoredLayerInfo layer{"l",
                                {"l.weight", DType::u8, {32, 16}},
                                {{"l.weight_scale", DType::f8_e4m3, {128, 4}}, {"l.weight_scale_2", DType::f32, {}}},
                                R"({"format":"nvfp4","orig_shape":)" + shape + "}"};
    return format.original(layer, *format.recognise(layer)).shape;
  };
  EXPECT_EQ(recognised("[17,18]"), (Shape{17, 18}));
  EXPECT_EQ(recognised("[32,32]"), (Shape{32, 32}));
  for (const char* hostile : {"[16,32]", "[32,16]", "[33,32]", "[32,33]", "[0,32]", "[-1,32]", "[32]", "[32,32,1]", "[]", "{}", "null", "7",
                              "\"32x32\"", "[31.5,32]", "[\"31\",32]", "[true,32]", "[18446744073709551615,32]",
                              "[9223372036854775807,32]", "[1e300,32]"})
    expect_error(ErrorKind::input, {"'l'", "orig_shape"}, [&] { recognised(hostile); });
}

TEST(Mxfp8, TheExponentIsTheSmallestThatHoldsTheLargestValue) {
  const auto exponent = [](float largest) {
    at::Tensor weight = at::zeros({1, 32});
    weight.mutable_data_ptr<float>()[5] = largest;
    const auto stored = written("mxfp8", weight);
    EXPECT_EQ(int{bytes(stored[0].data)[5]} & 0x80, largest < 0 ? 0x80 : 0);
    return int{bytes(stored[1].data)[0]} - 127;
  };
  for (const int k : {-90, -7, -1, 0, 1, 7, 100, 118}) {  // a scale below 1e-30 is not wished for
    const float largest = std::ldexp(448.0f, k);
    EXPECT_EQ(exponent(largest), k);
    EXPECT_EQ(exponent(-largest), k);
    EXPECT_EQ(exponent(std::nextafter(largest, std::numeric_limits<float>::infinity())), k + 1);
    EXPECT_EQ(exponent(std::nextafter(largest, 0.0f)), k);
    EXPECT_EQ(exponent(std::ldexp(225.0f, k)), k);
  }
  EXPECT_EQ(exponent(std::numeric_limits<float>::max()), 120);
  EXPECT_EQ(exponent(0.0f), -127);  // of a block of zeros
}

TEST(Mxfp8, ABlockWithValuesNeverHasTheExponentThatMeansZero) {
  for (const float tiny : {1e-38f, 1e-40f, 2e-36f, std::numeric_limits<float>::denorm_min()}) {
    const auto stored = written("mxfp8", at::full({32, 32}, tiny));
    for (std::int64_t i = 0; i < 32; ++i) {
      const int code = bytes(stored[0].data)[i * 32], scale = bytes(stored[1].data)[i * 16];
      EXPECT_EQ(code == 0, scale == 0) << tiny;
    }
  }
}

TEST(Nvfp4, BlocksTooSmallForTheirScaleAreZerosToTheLastByte) {
  at::Tensor weight = random_weight(2, 64, at::kFloat, 1);
  weight[0][0] = 1e8;
  const auto stored = written("nvfp4", weight);
  const auto* codes = bytes(stored[0].data);
  const auto* scales = bytes(stored[1].data);
  EXPECT_FLOAT_EQ(stored[2].data.item<float>(), 1e8f / (448 * 6));
  EXPECT_EQ(int{scales[0]}, 0x7e);
  EXPECT_EQ(int{codes[0]}, 0x70);  // 6, and beside it zeros
  for (std::int64_t i = 1; i < stored[0].data.numel(); ++i) EXPECT_EQ(int{codes[i]}, 0) << i;
  for (std::int64_t i = 1; i < stored[1].data.numel(); ++i) EXPECT_EQ(int{scales[i]}, 0) << i;
}

TEST(Nvfp4, FactorsOfTheInputsMultiplyColumns) {
  const CodedFormat& format = coded_format("nvfp4");
  const at::Tensor weight = random_weight(5, 20, at::kFloat, 4);
  const auto stored = written("nvfp4", weight);
  const Layout own = format.layout(info_of({"l.weight", weight}), {});
  const auto decoded = [&](const std::vector<TensorInfo>& more, std::vector<at::Tensor> tensors) {
    StoredLayerInfo layer{"l", info_of(stored[0]), {info_of(stored[1]), info_of(stored[2])}, format.label(own).marker};
    layer.others.insert(layer.others.end(), more.begin(), more.end());
    const Layout layout = format.recognise(layer).value();
    EXPECT_EQ(format.original(layer, layout).shape, (Shape{5, 20}));
    at::Tensor values = at::zeros({5, 20});
    format.decode_rows(tensors, layout, 0, 5, values.mutable_data_ptr<float>());
    return values;
  };
  const std::vector<at::Tensor> tensors = {stored[0].data, stored[1].data, stored[2].data};
  const at::Tensor plain = decoded({}, tensors), factors = random_weight(1, 20, at::kFloat, 5).view({20});
  std::vector<at::Tensor> with = tensors;
  with.push_back(factors);
  const at::Tensor found = decoded({{"l.pre_quant_scale", DType::f32, {20}}}, with);
  EXPECT_TRUE(found.equal(plain * factors));
  for (const std::int64_t count : {19, 21, 32})
    expect_error(ErrorKind::input, {"l.pre_quant_scale", "20 values"}, [&] { decoded({{"l.pre_quant_scale", DType::f32, {count}}}, with); });
  expect_error(ErrorKind::input, {"l.pre_quant_scale"}, [&] { decoded({{"l.pre_quant_scale", DType::i8, {20}}}, with); });
}

}  // namespace block_float_format_test
