// Formats of other writers: against vectors of the reader's own library (tests/golden/make_golden.py) and by hand.
#include <expect_error.h>
#include <formats.h>
#include <model_file.h>

#include <qmill/coded_format.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

using namespace qmill;
using qmill::testing::expect_error;

namespace read_only_formats_test {

constexpr double kRelativeError = 1e-6;  // of decoded values: another order of multiplication and summation

using qmill::testing::stored_format;

const StoredFormat& e4m3() { return stored_format("float8_e4m3fn"); }

// A layer with tensors in memory: the weight first.
struct Layer {
  std::vector<StoredTensor> tensors;
  std::string marker;

  StoredLayerInfo info() const {
    StoredLayerInfo info{"l", info_of(tensors.front()), {}, marker};
    for (std::size_t i = 1; i < tensors.size(); ++i) info.others.push_back(info_of(tensors[i]));
    return info;
  }

  // The whole weight, in two parts where there are two rows.
  at::Tensor decoded(const StoredFormat& format) const {
    const std::optional<Layout> layout = format.recognise(info());
    if (!layout) throw std::runtime_error("not recognised");
    const TensorInfo weight = format.original(info(), *layout);
    std::vector<at::Tensor> stored;
    for (const TensorInfo& output : format.outputs(weight, *layout))
      for (const StoredTensor& tensor : tensors)
        if (tensor.name == output.name) stored.push_back(tensor.data);
    at::Tensor values = at::empty(weight.shape, at::kFloat);
    const std::int64_t rows = weight.shape[0];
    const std::int64_t columns = rows == 0 ? 0 : values.numel() / rows;
    const std::int64_t middle = rows / 2;
    format.decode_rows(stored, *layout, 0, middle, values.data_ptr<float>());
    format.decode_rows(stored, *layout, middle, rows, values.data_ptr<float>() + middle * columns);
    return values;
  }
};

at::Tensor f8(const std::vector<float>& values, at::IntArrayRef shape, at::ScalarType type = at::kFloat8_e4m3fn) {
  return at::tensor(values).to(type).view(shape);
}

class GoldenReadOnly : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenReadOnly, TheirTensorsDecodeToTheirValues) {
  const auto file = qmill::testing::read_model(std::string(QMILL_GOLDEN "/") + GetParam() + ".safetensors").tensors;
  const std::pair<const char*, const char*> formats[] = {
      {"float8_e4m3fn", R"({"format":"float8_e4m3fn"})"},
      {"float8_e5m2", R"({"format":"float8_e5m2"})"},
      {"nvfp4", R"({"format":"nvfp4"})"},
      {"mxfp8", R"({"format":"mxfp8"})"},
      {"asym_w4a8_int8", R"({"format":"asym_w4a8_int8","group_size":16,"convrot_groupsize":256})"}};
  int found = 0;
  for (const auto& [name, marker] : formats) {
    const std::string prefix = std::string(name) + ".";
    if (!file.contains(prefix + "weight")) continue;
    ++found;
    Layer layer{{{"l.weight", file.at(prefix + "weight")}}, marker};
    for (const auto& [tensor, data] : file)
      if (tensor.starts_with(prefix) && tensor != prefix + "weight" && tensor != prefix + "decoded")
        layer.tensors.push_back({"l." + tensor.substr(prefix.size()), data});
    const at::Tensor ours = layer.decoded(stored_format(name));
    const at::Tensor& theirs = file.at(prefix + "decoded");
    ASSERT_GE(ours.size(0), theirs.size(0)) << name;
    ASSERT_GE(ours.size(1), theirs.size(1)) << name;
    for (std::int64_t row = 0; row < theirs.size(0); ++row) {
      const double largest = theirs.select(0, row).abs().amax().item<float>();
      for (std::int64_t c = 0; c < theirs.size(1); ++c)
        ASSERT_NEAR(ours.const_data_ptr<float>()[row * ours.size(1) + c], theirs.const_data_ptr<float>()[row * theirs.size(1) + c],
                    kRelativeError * largest)
            << name << ' ' << row << ' ' << c;
    }
  }
  EXPECT_GE(found, 4);
}

INSTANTIATE_TEST_SUITE_P(Vectors, GoldenReadOnly, ::testing::Values("bf16_7x5", "bf16_64x256", "bf16_136x64", "f16_40x1024", "f32_33x512"),
                         [](const auto& test) { return std::string(test.param); });

TEST(GoldenReadOnlyVectors, HaveTheRotatedFourBitFormat) {
  EXPECT_TRUE(qmill::testing::read_model(QMILL_GOLDEN "/f16_40x1024.safetensors").tensors.contains("asym_w4a8_int8.weight"));
}

TEST(Fp8, OneScaleMultipliesEveryValue) {
  const at::Tensor codes = f8({1, -2, 0.5, 448, 3, 0}, {2, 3});
  const at::Tensor expected = at::tensor({0.25f, -0.5f, 0.125f, 112.0f, 0.75f, 0.0f}).view({2, 3});
  const at::Tensor scale = at::full({}, 0.25f);
  const std::string marker = R"({"format":"float8_e4m3fn"})";
  EXPECT_TRUE((Layer{{{"l.weight", codes}, {"l.weight_scale", scale}}, marker}.decoded(e4m3()).equal(expected)));
  EXPECT_TRUE((Layer{{{"l.weight", codes}, {"l.weight_scale", scale.view({1})}}, ""}.decoded(e4m3()).equal(expected)));
  EXPECT_TRUE((Layer{{{"l.weight", codes}, {"l.scale_weight", scale}, {"l.scale_input", scale}}, ""}.decoded(e4m3()).equal(expected)));
}

TEST(Fp8, E5m2HasItsOwnFormat) {
  const Layer layer{{{"l.weight", f8({57344, -1.25}, {1, 2}, at::kFloat8_e5m2)}, {"l.scale_weight", at::full({}, 0.5f)}}, ""};
  EXPECT_EQ(e4m3().recognise(layer.info()), std::nullopt);
  EXPECT_TRUE(layer.decoded(stored_format("float8_e5m2")).equal(at::tensor({28672.0f, -0.625f}).view({1, 2})));
}

TEST(Fp8, ScalesPerRowAndBlockAreReadWhereThereIsNoMarker) {
  const at::Tensor codes = at::ones({4, 4}).to(at::kFloat8_e4m3fn);
  const at::Tensor rows = at::tensor({1.0f, 2.0f, 3.0f, 4.0f});
  for (const at::Tensor& scale : {rows, rows.view({4, 1})})
    EXPECT_TRUE((Layer{{{"l.weight", codes}, {"l.weight_scale", scale}}, ""}.decoded(e4m3()).equal(rows.view({4, 1}).expand({4, 4}))));
  const at::Tensor blocks = at::tensor({1.0f, 2.0f, 3.0f, 4.0f}).view({2, 2});
  EXPECT_TRUE((Layer{{{"l.weight", codes}, {"l.weight_scale", blocks}}, ""}.decoded(e4m3()).equal(
      at::tensor({1.0f, 1.0f, 2.0f, 2.0f, 1.0f, 1.0f, 2.0f, 2.0f, 3.0f, 3.0f, 4.0f, 4.0f, 3.0f, 3.0f, 4.0f, 4.0f}).view({4, 4}))));
}

TEST(Fp8, ScalesOfFewerBitsAndOfAnyNameAreMultipliedWithOrWithoutAMarker) {
  const at::Tensor codes = at::ones({4, 4}).to(at::kFloat8_e4m3fn);
  const at::Tensor rows = at::tensor({1.0f, 2.0f, 0.5f, 4.0f}).view({4, 1});
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf})
    for (const char* name : {"l.weight_scale", "l.scale_weight", "l.weight_scale_inv"})
      EXPECT_TRUE((Layer{{{"l.weight", codes}, {name, rows.to(type)}}, ""}.decoded(e4m3()).equal(rows.expand({4, 4})))) << name;
  const std::string marker = R"({"format":"float8_e4m3fn"})";
  EXPECT_TRUE(
      (Layer{{{"l.weight", codes}, {"l.weight_scale", rows.to(at::kBFloat16)}}, marker}.decoded(e4m3()).equal(rows.expand({4, 4}))));
}

TEST(Fp8, TheLastBlocksOf128MayBeCutShort) {
  const at::Tensor codes = at::ones({192, 130}).to(at::kFloat8_e4m3fn);
  const at::Tensor scales = at::tensor({1.0f, 2.0f, 3.0f, 4.0f}).view({2, 2});
  const at::Tensor decoded = Layer{{{"l.weight", codes}, {"l.weight_scale_inv", scales}}, ""}.decoded(e4m3());
  for (const std::int64_t row : {0, 95, 96, 127, 128, 191})
    for (const std::int64_t column : {0, 64, 65, 127, 128, 129})
      EXPECT_EQ(decoded[row][column].item<float>(), 1.0f + static_cast<float>(column / 128) + 2.0f * static_cast<float>(row / 128));
}

TEST(Fp8, ScalesThatAreNotPositiveAreAnError) {
  const at::Tensor codes = at::ones({4, 4}).to(at::kFloat8_e4m3fn);
  for (const float bad : {NAN, INFINITY, -INFINITY, 0.0f, -1.0f}) {
    const Layer layer{{{"l.weight", codes}, {"l.weight_scale", at::tensor({1.0f, 1.0f, bad, 1.0f})}}, ""};
    expect_error(ErrorKind::numeric, {"'weight_scale'", "row 2"}, [&] { layer.decoded(e4m3()); });
  }
}

TEST(Fp8, ConvolutionsHaveOneScale) {
  const at::Tensor codes = at::ones({2, 3, 1, 2}).to(at::kFloat8_e4m3fn);
  const at::Tensor decoded = Layer{{{"l.weight", codes}, {"l.scale_weight", at::full({}, 3.0f)}}, ""}.decoded(e4m3());
  EXPECT_TRUE(decoded.equal(at::full({2, 3, 1, 2}, 3.0f)));
}

TEST(Fp8, WhatHasNoScaleOfItsKindIsNotOfThisFormat) {
  const at::Tensor codes = at::ones({4, 4}).to(at::kFloat8_e4m3fn);
  const auto is_ours = [&](std::vector<StoredTensor> others, const at::Tensor& weight) {
    others.insert(others.begin(), {"l.weight", weight});
    return e4m3().recognise(Layer{others, ""}.info()).has_value();
  };
  EXPECT_FALSE(is_ours({}, codes));
  EXPECT_FALSE(is_ours({{"l.weight_scale", at::ones({}, at::kByte)}}, codes));
  EXPECT_FALSE(is_ours({{"l.weight_scale", at::ones({3})}}, codes));
  EXPECT_FALSE(is_ours({{"l.weight_scale", at::ones({3, 4})}}, codes));
  EXPECT_FALSE(is_ours({{"l.weight_scale", at::ones({0, 4})}}, codes));
  EXPECT_FALSE(is_ours({{"l.scale", at::ones({})}}, codes));
  EXPECT_FALSE(is_ours({{"l.weight_scale", at::ones({})}}, codes.to(at::kBFloat16)));
  EXPECT_TRUE(is_ours({{"l.weight_scale", at::ones({})}}, codes));
}

TEST(Fp8, AMarkerThatTheTensorsContradictIsAnError) {
  const at::Tensor codes = at::ones({4, 4}).to(at::kFloat8_e4m3fn);
  const std::string marker = R"({"format":"float8_e4m3fn"})";
  const auto recognise = [&](const std::vector<StoredTensor>& tensors) { e4m3().recognise(Layer{tensors, marker}.info()); };
  expect_error(ErrorKind::input, {"'l'", "'l.weight_scale' is missing"}, [&] { recognise({{"l.weight", codes}}); });
  expect_error(ErrorKind::input, {"'l.weight_scale' is F32 3 x 1"},
               [&] { recognise({{"l.weight", codes}, {"l.weight_scale", at::ones({3, 1})}}); });
  expect_error(ErrorKind::input, {"U8"}, [&] { recognise({{"l.weight", codes}, {"l.weight_scale", at::ones({}, at::kByte)}}); });
  expect_error(ErrorKind::input, {"'l.weight' is F8_E5M2"}, [&] {
    recognise({{"l.weight", codes.to(at::kFloat8_e5m2)}, {"l.weight_scale", at::ones({})}});
  });
  EXPECT_EQ(e4m3().recognise(Layer{{{"l.weight", codes}, {"l.weight_scale", at::ones({})}}, R"({"format":"mxfp8"})"}.info()), std::nullopt);
  EXPECT_EQ(e4m3().recognise(Layer{{{"l.weight", codes}, {"l.weight_scale", at::ones({})}}, "[]"}.info()), std::nullopt);
}

// 256 x 256 ones with all scales zero but that at `place` of the stored matrix: which rows and blocks of 16 columns are not zero.
std::pair<std::int64_t, std::int64_t> scaled_by(std::int64_t place) {
  at::Tensor scales = at::zeros({256, 16}, at::kByte);
  scales.data_ptr<std::uint8_t>()[place] = 0x38;  // 1 in E4M3
  const Layer layer{{{"l.weight", at::full({256, 128}, 0x22, at::kByte)}, {"l.weight_scale", scales}, {"l.weight_scale_2", at::ones({})}},
                    R"({"format":"nvfp4"})"};
  const at::Tensor decoded = layer.decoded(stored_format("nvfp4"));
  EXPECT_EQ(decoded.sum().item<float>(), 16.0f) << place;
  const std::int64_t first = decoded.argmax().item<std::int64_t>();
  return {first / 256, first % 256 / 16};
}

TEST(Nvfp4, ScalesLieWhereTensorCoresReadThem) {
  using Place = std::pair<std::int64_t, std::int64_t>;
  EXPECT_EQ(scaled_by(0), Place(0, 0));
  EXPECT_EQ(scaled_by(16), Place(1, 0));
  EXPECT_EQ(scaled_by(4), Place(32, 0));
  EXPECT_EQ(scaled_by(22), Place(33, 2));
  EXPECT_EQ(scaled_by(499), Place(31, 3));
  EXPECT_EQ(scaled_by(511), Place(127, 3));
  EXPECT_EQ(scaled_by(512), Place(0, 4));
  EXPECT_EQ(scaled_by(2048), Place(128, 0));
  EXPECT_EQ(scaled_by(3721), Place(200, 13));
}

TEST(Nvfp4, TheHighNibbleIsTheEvenColumn) {
  at::Tensor codes = at::zeros({16, 8}, at::kByte);
  const std::uint8_t bytes[] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
  std::copy_n(bytes, 8, codes.data_ptr<std::uint8_t>());
  const Layer layer{
      {{"l.weight", codes}, {"l.weight_scale", at::ones({128, 4}).to(at::kFloat8_e4m3fn)}, {"l.weight_scale_2", at::full({}, 2.0f)}},
      R"({"format":"nvfp4"})"};
  const at::Tensor row = layer.decoded(stored_format("nvfp4")).select(0, 0);
  EXPECT_TRUE(
      row.equal(at::tensor({0.0f, 1.0f, 2.0f, 3.0f, 4.0f, 6.0f, 8.0f, 12.0f, 0.0f, -1.0f, -2.0f, -3.0f, -4.0f, -6.0f, -8.0f, -12.0f})));
}

TEST(BlockFloats, TheBiasSaysHowManyRowsArePadding) {
  for (const auto& [bias, rows] : std::vector<std::pair<std::int64_t, std::int64_t>>{{33, 33}, {48, 48}, {32, 48}, {49, 48}, {7, 48}}) {
    const StoredLayerInfo layer = {
        "l",
        {"l.weight", DType::u8, {48, 32}},
        {{"l.weight_scale", DType::f8_e4m3, {128, 4}}, {"l.weight_scale_2", DType::f32, {}}, {"l.bias", DType::bf16, {bias}}},
        R"({"format":"nvfp4"})"};
    const StoredFormat& format = stored_format("nvfp4");
    const Layout layout = format.recognise(layer).value();
    EXPECT_EQ(format.original(layer, layout).shape, (std::vector<std::int64_t>{rows, 64})) << bias;
    EXPECT_EQ(format.outputs(format.original(layer, layout), layout)[0], layer.weight) << bias;
  }
}

TEST(Mxfp8, AScaleOfZeroMeansZeroAndTheOthersArePowersOfTwo) {
  at::Tensor scales = at::zeros({128, 4}, at::kByte);
  scales.data_ptr<std::uint8_t>()[16] = 127;  // row 1
  scales.data_ptr<std::uint8_t>()[32] = 126;  // row 2
  scales.data_ptr<std::uint8_t>()[48] = 255;  // row 3: not a number
  const Layer layer{{{"l.weight", at::full({32, 32}, 3.0f).to(at::kFloat8_e4m3fn)}, {"l.weight_scale", scales}}, R"({"format":"mxfp8"})"};
  const at::Tensor decoded = layer.decoded(stored_format("mxfp8"));
  EXPECT_EQ(decoded.select(0, 0).abs().sum().item<float>(), 0.0f);
  EXPECT_TRUE(decoded.select(0, 1).equal(at::full({32}, 3.0f)));
  EXPECT_TRUE(decoded.select(0, 2).equal(at::full({32}, 1.5f)));
  EXPECT_TRUE(std::isnan(decoded.select(0, 3).sum().item<float>()));
}

TEST(BlockFloats, AMarkerThatTheTensorsContradictIsAnError) {
  const auto recognise = [](const char* format, const TensorInfo& weight, const std::vector<TensorInfo>& others) {
    stored_format(format).recognise({"l", weight, others, std::string(R"({"format":")") + format + "\"}"});
  };
  const TensorInfo scale = {"l.weight_scale", DType::f8_e4m3, {128, 4}};
  const TensorInfo scale_2 = {"l.weight_scale_2", DType::f32, {}};
  const std::int64_t huge = std::numeric_limits<std::int64_t>::max();
  expect_error(ErrorKind::input, {"'l.weight' is I8"}, [&] { recognise("nvfp4", {"l.weight", DType::i8, {16, 8}}, {scale, scale_2}); });
  expect_error(ErrorKind::input, {"multiples of 16"}, [&] { recognise("nvfp4", {"l.weight", DType::u8, {17, 8}}, {scale, scale_2}); });
  expect_error(ErrorKind::input, {"multiples of 16"}, [&] { recognise("nvfp4", {"l.weight", DType::u8, {16, 7}}, {scale, scale_2}); });
  expect_error(ErrorKind::input, {"l.weight"}, [&] { recognise("nvfp4", {"l.weight", DType::u8, {16, huge - 7}}, {scale, scale_2}); });
  expect_error(ErrorKind::input, {"'l.weight_scale' is missing"}, [&] { recognise("nvfp4", {"l.weight", DType::u8, {16, 8}}, {scale_2}); });
  expect_error(ErrorKind::input, {"'l.weight_scale_2' is missing"}, [&] { recognise("nvfp4", {"l.weight", DType::u8, {16, 8}}, {scale}); });
  expect_error(ErrorKind::input, {"256 x 4"}, [&] { recognise("nvfp4", {"l.weight", DType::u8, {144, 8}}, {scale, scale_2}); });
  expect_error(ErrorKind::input, {"multiples of 32"}, [&] { recognise("mxfp8", {"l.weight", DType::f8_e4m3, {16, 32}}, {scale}); });
  expect_error(ErrorKind::input, {"'l.weight_scale' is F8_E4M3"}, [&] {
    recognise("mxfp8", {"l.weight", DType::f8_e4m3, {32, 32}}, {scale});
  });
}

TEST(W4a8, IntegersAreRoundedBeforeTheScaleOfTheRow) {
  // One row of 16 columns, two groups of 8, rotated in groups of 4: a row of which every group of 4 is a multiple of (1,1,1,1) is a fixed
  // point of the rotation.
  at::Tensor codes = at::full({1, 8}, static_cast<int>(0xcc), at::kByte).view(at::kChar);  // code 12: 4
  const Layer layer{
      {{"l.weight", codes}, {"l.weight_s_rel", at::tensor({2.6f, 100.0f}).view({1, 2})}, {"l.weight_s_channel", at::full({1}, 0.5f)}},
      R"({"format":"asym_w4a8_int8","group_size":8,"convrot_groupsize":4})"};
  const at::Tensor row = layer.decoded(stored_format("asym_w4a8_int8")).select(0, 0);
  // 4 * 2.6 = 10.4 -> 10; 4 * 100 -> 127.
  for (int i = 0; i < 16; ++i) EXPECT_FLOAT_EQ(row[i].item<float>(), i < 8 ? 5.0f : 63.5f) << i;
}

TEST(W4a8, AMarkerThatTheTensorsContradictIsAnError) {
  const auto recognise = [](const std::string& fields, const std::vector<TensorInfo>& others, std::int64_t packed = 128) {
    stored_format("asym_w4a8_int8")
        .recognise({"l", {"l.weight", DType::i8, {4, packed}}, others, R"({"format":"asym_w4a8_int8")" + fields + "}"});
  };
  const TensorInfo relative = {"l.weight_s_rel", DType::f8_e4m3, {4, 16}};
  const TensorInfo channel = {"l.weight_s_channel", DType::f32, {4}};
  EXPECT_NO_THROW(recognise("", {relative, channel}));
  expect_error(ErrorKind::input, {"'l.weight_s_rel' is missing"}, [&] { recognise("", {channel}); });
  expect_error(ErrorKind::input, {"'l.weight_s_channel' is missing"}, [&] { recognise("", {relative}); });
  expect_error(ErrorKind::input, {"4 x 32"}, [&] { recognise(R"(,"group_size":8)", {relative, channel}); });
  expect_error(ErrorKind::input, {"24"}, [&] { recognise(R"(,"group_size":24)", {relative, channel}); });
  expect_error(ErrorKind::input, {"512"}, [&] { recognise(R"(,"convrot_groupsize":512)", {relative, channel}); });
  expect_error(ErrorKind::input, {"group_size"}, [&] { recognise(R"(,"group_size":0)", {relative, channel}); });
  expect_error(ErrorKind::input, {"group_size"}, [&] { recognise(R"(,"group_size":"16")", {relative, channel}); });
  expect_error(ErrorKind::input, {"'l.weight_codebook' is F32 15"}, [&] {
    recognise("", {relative, channel, {"l.weight_codebook", DType::f32, {15}}});
  });
  expect_error(ErrorKind::input, {"l.weight"}, [&] { recognise("", {relative, channel}, std::numeric_limits<std::int64_t>::max() / 4); });
}

}  // namespace read_only_formats_test
