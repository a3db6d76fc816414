#include "reference.h"

#include <expect_error.h>
#include <formats.h>
#include <model_file.h>
#include <test_context.h>

#include <qmill/numerics/rounding.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <limits>
#include <random>

using namespace qmill;
using qmill::testing::error_of;
using qmill::testing::random_weight;
using ::testing::HasSubstr;

namespace w4a4_format_test {

using Shape = std::vector<std::int64_t>;
using Json = nlohmann::json;

const CodedFormat& int4() { return qmill::testing::coded_format("int4"); }

TensorInfo matrix(std::int64_t rows, std::int64_t columns) { return {"blocks.0.proj.weight", DType::bf16, {rows, columns}}; }

StorageOptions rotated(Rotation rotation) {
  StorageOptions wanted;
  wanted.rotation = rotation;
  return wanted;
}

StorageOptions fixed(std::int64_t group) { return rotated({Rotation::Mode::fixed, group}); }
const StorageOptions kAutomatic = {};
const StorageOptions kOff = rotated({Rotation::Mode::off});
const StorageOptions kAny = rotated({Rotation::Mode::any});

CodedWeight all_codes(std::int64_t rows, std::int64_t columns) {
  std::mt19937 generator(3);
  CodedWeight coded;
  coded.codes = at::empty({rows, columns}, at::kChar);
  for (std::int64_t i = 0; i < coded.codes.numel(); ++i)
    coded.codes.data_ptr<std::int8_t>()[i] = static_cast<std::int8_t>(static_cast<int>(generator() % 15) - 7);
  coded.scales = random_weight(rows, 1, at::kFloat, 4).abs();
  return coded;
}

std::vector<at::Tensor> data_of(const std::vector<StoredTensor>& stored) {
  std::vector<at::Tensor> tensors;
  for (const StoredTensor& tensor : stored) tensors.push_back(tensor.data);
  return tensors;
}

StoredLayerInfo as_in_a_file(const TensorInfo& weight, const Layout& layout) {
  const std::vector<TensorInfo> outputs = int4().outputs(weight, layout);
  return {"blocks.0.proj", outputs[0], {outputs.begin() + 1, outputs.end()}, int4().label(layout).marker};
}

TEST(Int4Format, ItIsFoundAmongTheBuiltinFormatsAndItsCodesAreMinus7To7) {
  EXPECT_EQ(int4().info().name, "int4");
  EXPECT_THAT(int4().info().aliases, ::testing::UnorderedElementsAre("convrot_w4a4", "w4a4"));
  EXPECT_EQ(int4().grid().lowest, -7);
  EXPECT_EQ(int4().grid().highest, 7);
  EXPECT_EQ(int4().grid().largest(), 7.0f);
}

TEST(Int4Layout, AutomaticAndAnyRotateBy256OrElse64) {
  for (const StorageOptions& wanted : {kAutomatic, kAny})
    for (const auto& [columns, group] : {std::pair<std::int64_t, std::int64_t>{64, 64}, {256, 256}, {320, 64}, {512, 256}, {3008, 64}}) {
      const Layout layout = int4().layout(matrix(5, columns), wanted);
      EXPECT_EQ(layout.rotation_group, group) << columns;
      EXPECT_EQ(layout.note, "");
      EXPECT_EQ(layout.scaling, Scaling::row);
      EXPECT_EQ(layout.tile_rows, 1);
      EXPECT_EQ(layout.tile_columns, columns);
    }
}

TEST(Int4Layout, AFixedRotationIsTakenWhereItDivides) {
  for (const std::int64_t group : {4, 16, 64, 256, 1024}) EXPECT_EQ(int4().layout(matrix(1, 4096), fixed(group)).rotation_group, group);
  EXPECT_EQ(error_of([&] { int4().layout(matrix(5, 320), fixed(256)); }).kind(), ErrorKind::unsupported);
  EXPECT_EQ(error_of([&] { int4().layout(matrix(5, 320), fixed(12)); }).kind(), ErrorKind::usage);
}

TEST(Int4Layout, UnrotatedRowsNeedPairsOfColumnsOnly) {
  EXPECT_EQ(int4().layout(matrix(5, 6), kOff).rotation_group, 0);
  EXPECT_EQ(int4().layout(matrix(5, 512), kOff).rotation_group, 0);
  EXPECT_EQ(error_of([&] { int4().layout(matrix(5, 7), kOff); }).kind(), ErrorKind::unsupported);
}

TEST(Int4Layout, OtherScalingsAndLegacyNamesAreUsageErrorsThatSaySo) {
  for (const Scaling scaling : {Scaling::tensor, Scaling::block, Scaling::axis}) {
    StorageOptions wanted;
    wanted.scaling = scaling;
    const auto expect_refused = [&](const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::usage);
      EXPECT_THAT(error.message(), HasSubstr("one scale per row; found " + std::string(scaling_name(scaling))));
    };
    expect_refused(error_of([&] { int4().layout(matrix(5, 512), wanted); }));
    // Also for layers that would go elsewhere: the wish is wrong for the run.
    expect_refused(error_of([&] { int4().misfit(matrix(5, 7), wanted); }));
  }
  StorageOptions legacy;
  legacy.naming = Naming::legacy;
  const Error error = error_of([&] { int4().layout(matrix(5, 512), legacy); });
  EXPECT_EQ(error.kind(), ErrorKind::usage);
  EXPECT_THAT(error.message(), HasSubstr("legacy names"));
}

TEST(Int4Layout, OnlyMatricesWithValuesAreStored) {
  for (const Shape& shape : {Shape{}, Shape{64}, Shape{3, 5, 64}, Shape{5, 0}, Shape{0, 64}}) {
    const Error error = error_of([&] { int4().layout({"odd.weight", DType::f32, shape}, {}); });
    EXPECT_EQ(error.kind(), ErrorKind::unsupported);
    EXPECT_THAT(error.message(), HasSubstr("'odd.weight'"));
    EXPECT_EQ(int4().misfit({"odd.weight", DType::f32, shape}, {}), "");
  }
}

std::string reason(const TensorInfo& weight, const StorageOptions& wanted) {
  return int4().misfit(weight, wanted);
}

TEST(Int4Substitute, ColumnsThatDoNotDivideAreInt8AndTheDivisorIsNamed) {
  EXPECT_EQ(reason(matrix(5, 300), kAutomatic), "64 does not divide its 300 columns");
  EXPECT_EQ(reason(matrix(5, 48), kAny), "64 does not divide its 48 columns");
  EXPECT_EQ(reason(matrix(5, 48), fixed(16)), "64 does not divide its 48 columns");
  EXPECT_EQ(reason(matrix(5, 320), fixed(256)), "256 does not divide its 320 columns");
  EXPECT_EQ(reason(matrix(5, 7), kOff), "2 does not divide its 7 columns");
}

TEST(Int4Substitute, WhateverHasNoSubstituteHasALayout) {
  for (std::int64_t columns = 1; columns < 1300; ++columns)
    for (const StorageOptions& wanted : {kAutomatic, kAny, kOff, fixed(4), fixed(16), fixed(64), fixed(256), fixed(1024)}) {
      const TensorInfo weight = matrix(3, columns);
      if (reason(weight, wanted).empty())
        ASSERT_EQ(int4().outputs(weight, int4().layout(weight, wanted))[0].shape, (Shape{3, columns / 2}));
      else
        ASSERT_EQ(error_of([&] { int4().layout(weight, wanted); }).kind(), ErrorKind::unsupported) << columns;
    }
}

TEST(Int4Label, MarkersHoldExactlyTheFieldsThatReadersExpect) {
  const auto marker = [](StorageOptions wanted, bool full_precision) {
    wanted.full_precision_matrix_mult = full_precision;
    return Json::parse(int4().label(int4().layout(matrix(5, 512), wanted)).marker);
  };
  EXPECT_EQ(marker(kAutomatic, false), (Json{{"format", "convrot_w4a4"}, {"convrot_groupsize", 256}}));
  EXPECT_EQ(marker(fixed(16), true), (Json{{"format", "convrot_w4a4"}, {"convrot_groupsize", 16}, {"full_precision_matrix_mult", true}}));
  EXPECT_EQ(marker(kOff, false), (Json{{"format", "int4_rowwise"}}));
  EXPECT_EQ(marker(kOff, true), (Json{{"format", "int4_rowwise"}, {"full_precision_matrix_mult", true}}));
}

TEST(Int4Label, OnlyWhatIsRotatedHasTheNameThatReadersKnow) {
  const FormatLabel rotated = int4().label(int4().layout(matrix(5, 512), {}));
  EXPECT_EQ(rotated.name, "convrot_w4a4");
  EXPECT_EQ(rotated.summary, "int4 row, rotated 256");
  const FormatLabel plain = int4().label(int4().layout(matrix(5, 512), kOff));
  EXPECT_EQ(plain.name, "int4_rowwise");
  EXPECT_EQ(plain.summary, "int4 row");
}

TEST(Int4Storage, TheOutputsAreHalfTheColumnsAScalePerRowInOneDimensionAndTheMarker) {
  const TensorInfo weight = matrix(21, 320);
  const Layout layout = int4().layout(weight, {});
  const std::int64_t marker_bytes = static_cast<std::int64_t>(int4().label(layout).marker.size());
  EXPECT_EQ(int4().outputs(weight, layout), (std::vector<TensorInfo>{{"blocks.0.proj.weight", DType::i8, {21, 160}},
                                                                     {"blocks.0.proj.weight_scale", DType::f32, {21}},
                                                                     {"blocks.0.proj.comfy_quant", DType::u8, {marker_bytes}}}));
}

TEST(Int4Storage, EveryPairOfCodesIsPackedWithTheEvenColumnLow) {
  const TensorInfo weight = matrix(15, 30);
  const Layout layout = int4().layout(weight, kOff);
  CodedWeight coded = {at::empty({15, 30}, at::kChar), at::empty({15, 1}, at::kFloat)};
  for (int low = -7; low <= 7; ++low)
    for (int high = -7; high <= 7; ++high) {
      std::int8_t* pair = coded.codes.data_ptr<std::int8_t>() + (low + 7) * 30 + (high + 7) * 2;
      pair[0] = static_cast<std::int8_t>(low);
      pair[1] = static_cast<std::int8_t>(high);
    }
  const std::vector<StoredTensor> stored = int4().encode(coded, weight, layout);
  std::vector<TensorInfo> infos;
  for (const StoredTensor& tensor : stored) infos.push_back(info_of(tensor));
  EXPECT_EQ(infos, int4().outputs(weight, layout));
  for (int low = -7; low <= 7; ++low)
    for (int high = -7; high <= 7; ++high) {
      const int expected = (low < 0 ? low + 16 : low) + 16 * (high < 0 ? high + 16 : high);
      const std::int8_t byte = stored[0].data.const_data_ptr<std::int8_t>()[(low + 7) * 15 + high + 7];
      ASSERT_EQ(byte < 0 ? byte + 256 : byte, expected) << low << ' ' << high;
    }
}

TEST(Int4Storage, EveryByteIsDecodedMinus8Included) {
  const Layout layout = int4().layout(matrix(1, 512), kOff);
  at::Tensor packed = at::empty({1, 256}, at::kChar);
  for (int byte = 0; byte < 256; ++byte) packed.data_ptr<std::int8_t>()[byte] = static_cast<std::int8_t>(byte);
  const std::vector<at::Tensor> tensors = {packed, at::full({1}, 0.5f)};
  std::vector<float> out(512);
  int4().decode_rows(tensors, layout, 0, 1, out.data());
  for (int byte = 0; byte < 256; ++byte) {
    const auto value = [](int nibble) { return 0.5f * static_cast<float>(nibble < 8 ? nibble : nibble - 16); };
    ASSERT_EQ(out[static_cast<std::size_t>(2 * byte)], value(byte % 16));
    ASSERT_EQ(out[static_cast<std::size_t>(2 * byte + 1)], value(byte / 16));
  }
}

TEST(Int4Storage, DecodingScalesRowsAndRotatesBack) {
  const TensorInfo weight = matrix(21, 128);
  const CodedWeight coded = all_codes(21, 128);
  for (const std::int64_t group : {0, 4, 16, 64}) {
    const Layout layout = int4().layout(weight, group == 0 ? kOff : fixed(group));
    const std::vector<at::Tensor> tensors = data_of(int4().encode(coded, weight, layout));
    const std::int64_t begin = 2, end = 20;
    std::vector<float> out(18 * 128);
    int4().decode_rows(tensors, layout, begin, end, out.data());
    const auto value = [&](std::int64_t r, std::int64_t c) {
      return static_cast<double>(static_cast<float>(coded.codes.const_data_ptr<std::int8_t>()[r * 128 + c]) *
                                 coded.scales.const_data_ptr<float>()[r]);
    };
    for (std::int64_t r = begin; r < end; ++r)
      for (std::int64_t c = 0; c < 128; ++c) {
        const float found = out[static_cast<std::size_t>((r - begin) * 128 + c)];
        if (group == 0) {
          ASSERT_EQ(found, value(r, c));
          continue;
        }
        ASSERT_NEAR(found, qmill::testing::rotated_element(value, r, c, group), 1e-4) << group;
      }
  }
}

TEST(Int4Storage, ZeroRowsDecodeToZero) {
  const TensorInfo weight = {"l.weight", DType::f32, {3, 64}};
  const Layout layout = int4().layout(weight, {});
  qmill::testing::TestContext context(weight, {&int4(), layout, {}});
  const at::Tensor zeros = at::full({3, 64}, 0.0f);
  const CodedWeight coded = round_to_nearest(zeros, int4().grid(), layout, context);
  std::vector<float> out(3 * 64, 1.0f);
  int4().decode_rows(data_of(int4().encode(coded, weight, layout)), layout, 0, 3, out.data());
  EXPECT_THAT(out, ::testing::Each(0.0f));
}

TEST(Int4Recognise, AStoredLayerIsRecognisedAsTheLayoutThatWroteItAndItsShapeComesBack) {
  const TensorInfo weight = matrix(21, 1024);
  for (StorageOptions wanted : {kAutomatic, kAny, kOff, fixed(4), fixed(16), fixed(64), fixed(1024)}) {
    wanted.full_precision_matrix_mult = wanted.rotation.group == 16;
    const Layout layout = int4().layout(weight, wanted);
    const StoredLayerInfo layer = as_in_a_file(weight, layout);
    const std::optional<Layout> found = int4().recognise(layer);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->scaling, Scaling::row);
    EXPECT_EQ(found->tile_rows, 1);
    EXPECT_EQ(found->tile_columns, 1024);
    EXPECT_EQ(found->rotation_group, layout.rotation_group);
    EXPECT_EQ(found->data->text(), layout.data->text());
    EXPECT_EQ(int4().original(layer, *found).shape, weight.shape);
    EXPECT_EQ(int4().outputs(int4().original(layer, *found), *found), int4().outputs(weight, layout));
  }
}

StoredLayerInfo marked(std::string marker, Shape weight = {128, 256}, Shape scale = {128}) {
  return {"x", {"x.weight", DType::i8, std::move(weight)}, {{"x.weight_scale", DType::f32, std::move(scale)}}, std::move(marker)};
}

TEST(Int4Recognise, WhatIsNotOfThisFormatIsNobodysError) {
  for (const char* marker : {"", "x", "{", "[]", "null", "{}", R"({"format":7})", R"({"format":"int8_tensorwise"})",
                             R"({"format":"asym_w4a8_int8"})", R"({"format":"CONVROT_W4A4"})"})
    EXPECT_EQ(int4().recognise(marked(marker)), std::nullopt) << marker;
}

TEST(Int4Recognise, TheOtherFormatsLeaveItAlone) {
  for (const char* marker : {R"({"format":"convrot_w4a4","convrot_groupsize":256})", R"({"format":"int4_rowwise"})"})
    for (const StoredFormat* format : builtin_formats().first(2)) EXPECT_EQ(format->recognise(marked(marker)), std::nullopt);
}

TEST(Int4Recognise, TheGroupMayBeNestedOrMissingAsReadersAllow) {
  EXPECT_EQ(int4().recognise(marked(R"({"format":"convrot_w4a4"})"))->rotation_group, 256);
  EXPECT_EQ(int4().recognise(marked(R"({"format":"convrot_w4a4","params":{}})"))->rotation_group, 256);
  EXPECT_EQ(int4().recognise(marked(R"({"format":"convrot_w4a4","params":{"convrot_groupsize":16}})"))->rotation_group, 16);
  EXPECT_EQ(
      int4().recognise(marked(R"({"format":"convrot_w4a4","convrot_groupsize":64,"params":{"convrot_groupsize":16}})"))->rotation_group,
      64);
  EXPECT_EQ(
      int4().recognise(marked(R"({"format":"convrot_w4a4","convrot_groupsize":64,"linear_dtype":"int8","other":[1]})"))->rotation_group,
      64);
}

void expect_input_error(const StoredLayerInfo& layer, const std::string& part) {
  const Error error = error_of([&] { int4().recognise(layer); });
  EXPECT_EQ(error.kind(), ErrorKind::input) << layer.marker.substr(0, 100);
  EXPECT_THAT(error.message(), ::testing::AllOf(HasSubstr("'x'"), HasSubstr(part)));
}

const std::string kMarker = R"({"format":"convrot_w4a4","convrot_groupsize":64})";

TEST(Int4Recognise, AScaleThatIsMissingOrOfAnotherShapeOrTypeIsAnError) {
  for (const std::string& marker : {kMarker, std::string(R"({"format":"int4_rowwise"})")}) {
    for (const Shape& shape : {Shape{}, Shape{1}, Shape{127}, Shape{128, 1}, Shape{1, 128}, Shape{128, 256}, Shape{0}, Shape{128, 0}})
      expect_input_error(marked(marker, {128, 256}, shape), "128 values");
    StoredLayerInfo layer = marked(marker);
    layer.others[0].dtype = DType::f16;
    expect_input_error(layer, "F16");
    layer.others.clear();
    expect_input_error(layer, "no tensor");
    layer.others = {{"y.weight_scale", DType::f32, {128}}, {"x.scale_weight", DType::f32, {128}}};
    expect_input_error(layer, "no tensor");
  }
}

TEST(Int4Recognise, AWeightOfAnotherTypeOrShapeIsAnError) {
  for (const Shape& shape : {Shape{}, Shape{128}, Shape{4, 128, 256}, Shape{128, 0}, Shape{0, 256}})
    expect_input_error(marked(kMarker, shape), "[N,K/2]");
  expect_input_error(marked(kMarker, {1, std::numeric_limits<std::int64_t>::max()}, {1}), "[N,K/2]");
  StoredLayerInfo layer = marked(kMarker);
  layer.weight.dtype = DType::u8;
  expect_input_error(layer, "U8");
}

TEST(Int4Recognise, RotationGroupsThatLieAreErrors) {
  for (const char* group : {"0", "-4", "4.0", "\"64\"", "null", "true", "[64]", "{}", "18446744073709551616"})
    for (const char* place : {R"("convrot_groupsize":%})", R"("params":{"convrot_groupsize":%}})"}) {
      std::string marker = R"({"format":"convrot_w4a4",)" + std::string(place);
      marker.replace(marker.find('%'), 1, group);
      expect_input_error(marked(marker), "convrot_groupsize");
    }
  for (const char* group : {"1", "2", "32", "128", "512", "1024", "262144", "9223372036854775807"})
    expect_input_error(marked(R"({"format":"convrot_w4a4","convrot_groupsize":)" + std::string(group) + "}"),
                       "in groups of " + std::string(group));
  expect_input_error(marked(kMarker, {128, 48}), "96 columns");
  expect_input_error(marked(R"({"format":"convrot_w4a4","convrot_groupsize":16})", {128, 24}), "multiple of 64");
  EXPECT_TRUE(int4().recognise(marked(R"({"format":"int4_rowwise"})", {128, 24})));
}

TEST(Int4Recognise, NestingAsDeepAsTheMarkerIsLongDoesNotExhaustTheStack) {
  const std::string deep = std::string(500'000, '[') + std::string(500'000, ']');
  EXPECT_EQ(int4().recognise(marked(deep)), std::nullopt);
  for (const char* key : {"full_precision_matrix_mult", "linear_dtype", "params", "other"})
    EXPECT_TRUE(int4().recognise(marked(R"({"format":"convrot_w4a4",")" + std::string(key) + "\":" + deep + "}"))) << key;
  EXPECT_EQ(int4().recognise(marked(R"({"format":)" + deep + "}")), std::nullopt);
  expect_input_error(marked(R"({"format":"convrot_w4a4","convrot_groupsize":)" + deep + "}"), "convrot_groupsize");
  expect_input_error(marked(R"({"format":"convrot_w4a4","params":{"convrot_groupsize":)" + deep + "}}"), "convrot_groupsize");
}

}  // namespace w4a4_format_test
