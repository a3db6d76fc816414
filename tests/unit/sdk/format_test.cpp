#include "reference.h"

#include <expect_error.h>
#include <formats.h>
#include <model_file.h>

#include <qmill/layer_context.h>

#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <random>

using namespace qmill;
using qmill::testing::error_of;
using qmill::testing::random_weight;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

namespace format_test {

using Shape = std::vector<std::int64_t>;

const CodedFormat& int8() { return qmill::testing::coded_format("int8"); }
const WritableFormat& fp16() { return qmill::testing::writable_format("fp16"); }

TensorInfo matrix(std::int64_t rows, std::int64_t columns) { return {"blocks.0.proj.weight", DType::bf16, {rows, columns}}; }

StorageOptions wish(Scaling scaling, Rotation rotation = {}, Naming naming = Naming::comfy, std::int64_t block = 128) {
  StorageOptions wanted;
  wanted.scaling = scaling;
  wanted.rotation = rotation;
  wanted.naming = naming;
  wanted.block_size = block;
  return wanted;
}

Rotation fixed(std::int64_t group) { return {Rotation::Mode::fixed, group}; }
constexpr Rotation kOff = {Rotation::Mode::off};
constexpr Rotation kAny = {Rotation::Mode::any};

std::vector<std::string> names(const std::vector<TensorInfo>& tensors) {
  std::vector<std::string> names;
  for (const TensorInfo& tensor : tensors) names.push_back(tensor.name);
  return names;
}

TEST(Formats, TheSdkBringsEightAndWritesAllOfThem) {
  ASSERT_EQ(builtin_formats().size(), 8u);
  for (const StoredFormat* format : builtin_formats()) EXPECT_NE(as_writable(*format), nullptr) << format->info().name;
  EXPECT_EQ(builtin_formats()[2]->info().name, "int4");
  EXPECT_EQ(int8().info().name, "int8");
  EXPECT_EQ(fp16().info().name, "fp16");
  EXPECT_EQ(as_coded(int8()), &int8());
  EXPECT_EQ(as_coded(fp16()), nullptr);
  EXPECT_EQ((LayerTarget{&int8(), {}, {}}.coded().grid().highest), 127);
  EXPECT_EQ(error_of([&] { LayerTarget{&fp16(), {}, {}}.coded(); }).kind(), ErrorKind::internal);
}

TEST(Formats, Int8AndFp16TakeEveryMatrixAndStoreItInItsShape) {
  for (const WritableFormat* format : {static_cast<const WritableFormat*>(&int8()), &fp16()}) {
    EXPECT_EQ(format->misfit(matrix(7, 5), {}), "");
    EXPECT_EQ(format->misfit({"img_in.weight", DType::bf16, {64, 64}}, {}), "");
    EXPECT_EQ(format->info().substitute, "");
    const StoredLayerInfo layer = {"a", {"a.weight", DType::i8, {7, 5}}, {}, ""};
    EXPECT_EQ(format->original(layer, {}), layer.weight);
  }
}

TEST(Scaling, NamesAreReadAsTheyAreWritten) {
  for (const Scaling scaling : {Scaling::row, Scaling::tensor, Scaling::block, Scaling::axis})
    EXPECT_EQ(parse_scaling(scaling_name(scaling)), scaling);
  EXPECT_EQ(parse_scaling("rows"), std::nullopt);
  EXPECT_EQ(parse_scaling(""), std::nullopt);
}

TEST(Rotation, TextsAreReadAsTheyAreWritten) {
  for (const char* text : {"auto", "any", "off", "4", "16", "64", "256", "1024", "4096", "16384", "65536"})
    EXPECT_EQ(rotation_text(parse_rotation(text)), text);
}

TEST(Rotation, OtherTextsAreUsageErrorsThatSayWhatIsAllowed) {
  for (const char* text : {"",
                           "0",
                           "1",
                           "2",
                           "8",
                           "32",
                           "128",
                           "512",
                           "2048",
                           "131072",
                           "262144",
                           "-4",
                           "+4",
                           "4 ",
                           " 4",
                           "0x10",
                           "4.0",
                           "Auto",
                           "18446744073709551620",
                           "yes"}) {
    const Error error = error_of([&] { parse_rotation(text); });
    EXPECT_EQ(error.kind(), ErrorKind::usage) << text;
    EXPECT_THAT(error.message(), HasSubstr("auto, any, off, or a power of 4"));
  }
}

TEST(Int8Layout, AutomaticRotationTakes256OrNothingAndSaysSo) {
  EXPECT_EQ(int8().layout(matrix(5, 512), {}).rotation_group, 256);
  EXPECT_EQ(int8().layout(matrix(5, 512), {}).note, "");
  const Layout layout = int8().layout(matrix(5, 320), {});
  EXPECT_EQ(layout.rotation_group, 0);
  EXPECT_THAT(layout.note, HasSubstr("320 columns"));
}

TEST(Int8Layout, AnyRotationTakesTheLargestThatDivides) {
  for (const auto& [columns, group] : {std::pair<std::int64_t, std::int64_t>{512, 256}, {320, 64}, {48, 16}, {1024, 256}, {20, 0}}) {
    const Layout layout = int8().layout(matrix(7, columns), wish(Scaling::row, kAny));
    EXPECT_EQ(layout.rotation_group, group) << columns;
    EXPECT_EQ(layout.note.empty(), group != 0) << columns;
  }
}

TEST(Int8Layout, AFixedRotationIsTakenWhereItDivides) {
  for (const std::int64_t group : {4, 16, 64, 256, 1024, 4096})
    EXPECT_EQ(int8().layout(matrix(1, 4096), wish(Scaling::row, fixed(group))).rotation_group, group);
  EXPECT_EQ(int8().layout(matrix(1, 129), wish(Scaling::row, fixed(4))).rotation_group, 0);
  EXPECT_EQ(int8().layout(matrix(1, 129), wish(Scaling::row, fixed(4))).note, "4 does not divide its 129 columns: not rotated");
}

TEST(Int8Layout, RotationOffLeavesNoNote) {
  const Layout layout = int8().layout(matrix(5, 512), wish(Scaling::row, kOff));
  EXPECT_EQ(layout.rotation_group, 0);
  EXPECT_EQ(layout.note, "");
}

TEST(Int8Layout, AutomaticRotationIsSilentlyNoneWhereTheLayoutCannotSaySo) {
  for (const StorageOptions& wanted :
       {wish(Scaling::tensor), wish(Scaling::axis), wish(Scaling::block), wish(Scaling::row, {}, Naming::legacy)}) {
    const Layout layout = int8().layout(matrix(256, 512), wanted);
    EXPECT_EQ(layout.rotation_group, 0);
    EXPECT_EQ(layout.note, "");
  }
}

TEST(Int8Layout, AWantedRotationContradictsOtherScalingsAndLegacyNames) {
  for (const Rotation& rotation : {kAny, fixed(256)})
    for (const StorageOptions& wanted : {wish(Scaling::tensor, rotation), wish(Scaling::axis, rotation), wish(Scaling::block, rotation),
                                         wish(Scaling::row, rotation, Naming::legacy)}) {
      const Error error = error_of([&] { int8().layout(matrix(256, 512), wanted); });
      EXPECT_EQ(error.kind(), ErrorKind::usage);
      EXPECT_THAT(error.message(), HasSubstr(rotation_text(rotation)));
    }
}

TEST(Int8Layout, AGroupThatIsNoPowerOf4IsAUsageError) {
  for (const std::int64_t group : {0, -4, 1, 12, 512}) {
    const Error error = error_of([&] { int8().layout(matrix(5, 512), wish(Scaling::row, fixed(group))); });
    EXPECT_EQ(error.kind(), ErrorKind::usage) << group;
  }
}

TEST(Int8Layout, ABlockOfNothingIsAUsageError) {
  for (const std::int64_t block : {0, -1})
    EXPECT_EQ(error_of([&] { int8().layout(matrix(5, 512), wish(Scaling::block, {}, Naming::comfy, block)); }).kind(), ErrorKind::usage);
}

TEST(Int8Layout, BlocksThatDoNotDivideBecomeRowsWithANote) {
  const Layout block = int8().layout(matrix(256, 384), wish(Scaling::block));
  EXPECT_EQ(block.scaling, Scaling::block);
  EXPECT_EQ(block.tile_rows, 128);
  EXPECT_EQ(block.tile_columns, 128);
  for (const TensorInfo& weight : {matrix(129, 256), matrix(256, 129), matrix(7, 5)}) {
    const Layout row = int8().layout(weight, wish(Scaling::block));
    EXPECT_EQ(row.scaling, Scaling::row);
    EXPECT_EQ(row.rotation_group, 0);
    EXPECT_EQ(row.note, "blocks of 128 do not divide its shape: per row");
  }
}

TEST(Int8Layout, OnlyMatricesWithValuesAreStored) {
  for (const Shape& shape : {Shape{}, Shape{5}, Shape{3, 5, 7}, Shape{5, 0}, Shape{0, 5}}) {
    const Error error = error_of([&] { int8().layout({"odd.weight", DType::f32, shape}, {}); });
    EXPECT_EQ(error.kind(), ErrorKind::unsupported);
    EXPECT_THAT(error.message(), HasSubstr("'odd.weight'"));
  }
}

TEST(Int8Format, UnderSomeNamesItHasFewerScalingsAndItsOwnChoiceIsByRow) {
  EXPECT_THAT(int8().scalings("int8"), ElementsAre(Scaling::row, Scaling::tensor, Scaling::block, Scaling::axis));
  EXPECT_THAT(int8().scalings("int8_tensorwise"), ElementsAre(Scaling::row, Scaling::tensor));
  EXPECT_THAT(int8().scalings("int8_blockwise"), ElementsAre(Scaling::block));
  EXPECT_THAT(int8().scalings("int8-axiswise"), ElementsAre(Scaling::axis));
  EXPECT_EQ(int8().layout(matrix(256, 512), {}).scaling, Scaling::row);
  EXPECT_TRUE(fp16().scalings("fp16").empty());
  for (const Scaling scaling : int8().scalings("int8")) EXPECT_EQ(int8().can_rotate(scaling), scaling == Scaling::row);
}

TEST(Layout, DataOfAnotherFormatIsAnErrorAndNoDataIsTheUsual) {
  const Layout of_int4 = qmill::testing::coded_format("int4").layout(matrix(64, 256), {});
  EXPECT_EQ(error_of([&] { int8().label(of_int4); }).kind(), ErrorKind::internal);
  EXPECT_EQ(int8().label({}).marker, R"({"format":"int8_tensorwise"})");
}

TEST(Layout, TheDataSaysAllThatTheCommonFieldsDoNot) {
  std::vector<std::string> texts;
  const auto add = [&](const StorageOptions& wanted) { texts.push_back(int8().layout(matrix(64, 256), wanted).data->text()); };
  StorageOptions wanted = wish(Scaling::tensor);
  add(wanted);
  wanted.full_precision_matrix_mult = true;
  add(wanted);
  wanted.naming = Naming::legacy;
  add(wanted);
  wanted.vector_scale = true;
  add(wanted);
  wanted.legacy_input_scale = true;
  add(wanted);
  wanted.input_scale = 0.25f;
  add(wanted);
  for (std::size_t i = 0; i < texts.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(texts[i], texts[j]);
}

nlohmann::json marker_of(const TensorInfo& weight, StorageOptions wanted, bool full_precision = false) {
  wanted.full_precision_matrix_mult = full_precision;
  return nlohmann::json::parse(int8().label(int8().layout(weight, wanted)).marker);
}

TEST(Int8Label, MarkersHoldExactlyTheFieldsThatReadersExpect) {
  using Json = nlohmann::json;
  const TensorInfo weight = matrix(256, 512);
  EXPECT_EQ(marker_of(weight, wish(Scaling::row, kOff)), (Json{{"format", "int8_tensorwise"}}));
  EXPECT_EQ(marker_of(weight, wish(Scaling::tensor)), (Json{{"format", "int8_tensorwise"}}));
  EXPECT_EQ(marker_of(weight, wish(Scaling::row)), (Json{{"format", "int8_tensorwise"}, {"convrot", true}, {"convrot_groupsize", 256}}));
  EXPECT_EQ(marker_of(weight, wish(Scaling::row, fixed(16))),
            (Json{{"format", "int8_tensorwise"}, {"convrot", true}, {"convrot_groupsize", 16}}));
  EXPECT_EQ(marker_of(weight, wish(Scaling::block)), (Json{{"format", "int8_blockwise"}, {"group_size", 128}}));
  EXPECT_EQ(marker_of(weight, wish(Scaling::axis)), (Json{{"format", "int8_axiswise"}}));
  EXPECT_EQ(marker_of(weight, wish(Scaling::row, kOff), true), (Json{{"format", "int8_tensorwise"}, {"full_precision_matrix_mult", true}}));
}

TEST(Int8Label, LegacyNamesHaveNoMarker) {
  const TensorInfo weight = matrix(256, 512);
  for (const Scaling scaling : {Scaling::row, Scaling::tensor, Scaling::block, Scaling::axis}) {
    EXPECT_EQ(int8().label(int8().layout(weight, wish(scaling, {}, Naming::legacy))).marker, "");
  }
  EXPECT_EQ(int8().label(int8().layout(weight, {})).summary, "int8 row, rotated 256");
}

struct StorageCase {
  Scaling scaling;
  Naming naming;
  Rotation rotation;
  Shape scale_shape;
};

void PrintTo(const StorageCase& c, std::ostream* out) { *out << scaling_name(c.scaling); }

// Of a weight of 21 x 64, in blocks of 1 where there are blocks.
class Int8Storage : public ::testing::TestWithParam<StorageCase> {
 protected:
  const TensorInfo weight{"a.b.weight", DType::bf16, {21, 64}};
  StorageOptions wanted() const { return wish(GetParam().scaling, GetParam().rotation, GetParam().naming, 1); }
  Layout layout() const { return int8().layout(weight, wanted()); }

  CodedWeight random_codes() const {
    std::mt19937 generator(3);
    CodedWeight coded;
    coded.codes = at::empty({21, 64}, at::kChar);
    for (std::int64_t i = 0; i < coded.codes.numel(); ++i)
      coded.codes.data_ptr<std::int8_t>()[i] = static_cast<std::int8_t>(static_cast<int>(generator() % 255) - 127);
    const Layout tiles = layout();
    coded.scales =
        random_weight((21 + tiles.tile_rows - 1) / tiles.tile_rows, (64 + tiles.tile_columns - 1) / tiles.tile_columns, at::kFloat, 4)
            .abs();
    return coded;
  }

  StoredLayerInfo as_in_a_file() const {
    StoredLayerInfo layer;
    layer.base = "a.b";
    std::vector<TensorInfo> outputs = int8().outputs(weight, layout());
    layer.weight = outputs.front();
    layer.others.assign(outputs.begin() + 1, outputs.end());
    layer.marker = int8().label(layout()).marker;
    return layer;
  }
};

TEST_P(Int8Storage, TheOutputsAreTheWeightItsScaleAndTheMarker) {
  const std::vector<TensorInfo> outputs = int8().outputs(weight, layout());
  if (GetParam().naming == Naming::comfy) {
    EXPECT_THAT(names(outputs), ElementsAre("a.b.weight", "a.b.weight_scale", "a.b.comfy_quant"));
    EXPECT_EQ(outputs[2].dtype, DType::u8);
    EXPECT_EQ(outputs[2].shape, Shape{static_cast<std::int64_t>(int8().label(layout()).marker.size())});
  } else {
    EXPECT_THAT(names(outputs), ElementsAre("a.b.weight", "a.b.scale_weight"));
  }
  EXPECT_EQ(outputs[0].dtype, DType::i8);
  EXPECT_EQ(outputs[0].shape, (Shape{21, 64}));
  EXPECT_EQ(outputs[1].dtype, DType::f32);
  EXPECT_EQ(outputs[1].shape, GetParam().scale_shape);
}

TEST_P(Int8Storage, EncodingGivesWhatTheOutputsSay) {
  const std::vector<StoredTensor> stored = int8().encode(random_codes(), weight, layout());
  std::vector<TensorInfo> infos;
  for (const StoredTensor& tensor : stored) infos.push_back(info_of(tensor));
  EXPECT_EQ(infos, int8().outputs(weight, layout()));
  if (GetParam().naming == Naming::comfy) {
    const at::Tensor& marker = stored[2].data;
    EXPECT_EQ(std::string(static_cast<const char*>(marker.const_data_ptr()), static_cast<std::size_t>(marker.numel())),
              int8().label(layout()).marker);
  }
}

TEST_P(Int8Storage, DecodingMultipliesEachCodeByTheScaleOfItsTileAndRotatesBack) {
  const CodedWeight coded = random_codes();
  const Layout stored_as = layout();
  std::vector<at::Tensor> tensors;
  for (const StoredTensor& tensor : int8().encode(coded, weight, stored_as)) tensors.push_back(tensor.data);
  const std::int64_t begin = 2, end = 20;
  std::vector<float> out(18 * 64);
  int8().decode_rows(tensors, stored_as, begin, end, out.data());

  const auto value = [&](std::int64_t r, std::int64_t c) {
    const float scale = coded.scales.const_data_ptr<float>()[r / stored_as.tile_rows * coded.scales.size(1) + c / stored_as.tile_columns];
    return static_cast<double>(static_cast<float>(coded.codes.const_data_ptr<std::int8_t>()[r * 64 + c]) * scale);
  };
  const std::int64_t group = stored_as.rotation_group;
  for (std::int64_t r = begin; r < end; ++r)
    for (std::int64_t c = 0; c < 64; ++c) {
      const float found = out[static_cast<std::size_t>((r - begin) * 64 + c)];
      if (group == 0) {
        ASSERT_EQ(found, value(r, c));
        continue;
      }
      ASSERT_NEAR(found, qmill::testing::rotated_element(value, r, c, group), 1e-3);
    }
}

TEST_P(Int8Storage, AStoredLayerIsRecognisedAsTheLayoutThatWroteIt) {
  const std::optional<Layout> found = int8().recognise(as_in_a_file());
  const Layout expected = layout();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->scaling, expected.scaling);
  EXPECT_EQ(found->tile_rows, expected.tile_rows);
  EXPECT_EQ(found->tile_columns, expected.tile_columns);
  EXPECT_EQ(found->rotation_group, expected.rotation_group);
  EXPECT_EQ(found->data->text(), expected.data->text());
}

TEST_P(Int8Storage, AScaleThatIsMissingOrNotF32IsAnError) {
  StoredLayerInfo layer = as_in_a_file();
  layer.others[0].dtype = DType::bf16;
  const Error error = error_of([&] { int8().recognise(layer); });
  EXPECT_EQ(error.kind(), ErrorKind::input);
  EXPECT_THAT(error.message(), HasSubstr("'a.b'"));
  EXPECT_THAT(error.message(), HasSubstr("BF16"));
  layer.others.erase(layer.others.begin());
  if (GetParam().naming == Naming::legacy)
    EXPECT_EQ(int8().recognise(layer), std::nullopt);  // plain integers
  else
    EXPECT_EQ(error_of([&] { int8().recognise(layer); }).kind(), ErrorKind::input);
}

TEST_P(Int8Storage, AScaleOfAnotherShapeIsAnError) {
  for (const Shape& shape : {Shape{20}, Shape{1, 21}, Shape{2}, Shape{21, 3}, Shape{0}, Shape{0, 64}, Shape{21, 1, 1}, Shape{22, 64}}) {
    StoredLayerInfo layer = as_in_a_file();
    layer.others[0].shape = shape;
    if (GetParam().naming == Naming::legacy && 21 % std::max<std::int64_t>(shape[0], 1) == 0 && shape.size() == 2)
      continue;  // some block's
    EXPECT_EQ(error_of([&] { int8().recognise(layer); }).kind(), ErrorKind::input) << layer.others[0].shape_text();
  }
}

const StorageCase kStorageCases[] = {{Scaling::row, Naming::comfy, kOff, {21, 1}},      {Scaling::row, Naming::comfy, fixed(4), {21, 1}},
                                     {Scaling::row, Naming::comfy, fixed(16), {21, 1}}, {Scaling::row, Naming::comfy, fixed(64), {21, 1}},
                                     {Scaling::tensor, Naming::comfy, kOff, {}},        {Scaling::block, Naming::comfy, kOff, {21, 64}},
                                     {Scaling::axis, Naming::comfy, kOff, {21}},        {Scaling::row, Naming::legacy, kOff, {21, 1}},
                                     {Scaling::tensor, Naming::legacy, kOff, {}},       {Scaling::block, Naming::legacy, kOff, {21, 64}},
                                     {Scaling::axis, Naming::legacy, kOff, {21}}};

INSTANTIATE_TEST_SUITE_P(Layouts, Int8Storage, ::testing::ValuesIn(kStorageCases), [](const auto& test) {
  const StorageCase& c = test.param;
  return std::string(scaling_name(c.scaling)) + (c.naming == Naming::comfy ? "Comfy" : "Legacy") +
         (c.rotation.mode == Rotation::Mode::fixed ? "Rotated" + std::to_string(c.rotation.group) : "");
});

TEST(Int8Format, LegacyNamesMayAddAnInputScaleOfOne) {
  StorageOptions wanted = wish(Scaling::row, {}, Naming::legacy);
  wanted.legacy_input_scale = true;
  const TensorInfo weight = matrix(5, 7);
  const Layout layout = int8().layout(weight, wanted);
  const std::vector<TensorInfo> outputs = int8().outputs(weight, layout);
  ASSERT_THAT(names(outputs), ElementsAre("blocks.0.proj.weight", "blocks.0.proj.scale_weight", "blocks.0.proj.scale_input"));
  EXPECT_EQ(outputs[2], (TensorInfo{"blocks.0.proj.scale_input", DType::f32, {}}));
  const CodedWeight coded = {at::empty({5, 7}, at::kChar), at::empty({5, 1}, at::kFloat)};
  EXPECT_EQ(int8().encode(coded, weight, layout)[2].data.item<float>(), 1.0f);
  EXPECT_TRUE(int8().recognise({"blocks.0.proj", outputs[0], {outputs[1], outputs[2]}, ""})->data->text().ends_with("input 1"));

  wanted.naming = Naming::comfy;
  EXPECT_EQ(int8().outputs(weight, int8().layout(weight, wanted)).size(), 3u);  // weight, scale, marker
}

TEST(Int8Format, BlocksOfSeveralValuesAreRecognised) {
  const TensorInfo weight = matrix(256, 384);
  for (const Naming naming : {Naming::comfy, Naming::legacy}) {
    const Layout layout = int8().layout(weight, wish(Scaling::block, {}, naming));
    const std::vector<TensorInfo> outputs = int8().outputs(weight, layout);
    EXPECT_EQ(outputs[1].shape, (Shape{2, 3}));
    const std::optional<Layout> found =
        int8().recognise({"blocks.0.proj", outputs[0], {outputs.begin() + 1, outputs.end()}, int8().label(layout).marker});
    ASSERT_TRUE(found);
    EXPECT_EQ(found->scaling, Scaling::block);
    EXPECT_EQ(found->tile_rows, 128);
    EXPECT_EQ(found->tile_columns, 128);
  }
}

StoredLayerInfo marked(std::string marker, Shape weight = {128, 512}, Shape scale = {128, 1}) {
  return {"x", {"x.weight", DType::i8, std::move(weight)}, {{"x.weight_scale", DType::f32, std::move(scale)}}, std::move(marker)};
}

TEST(Int8Recognise, WhatIsNotOfThisFormatIsNobodysError) {
  EXPECT_EQ(int8().recognise(marked(R"({"format":"float8_e4m3fn"})")), std::nullopt);
  EXPECT_EQ(int8().recognise(marked(R"({"format":"convrot_w4a4"})")), std::nullopt);
  StoredLayerInfo layer = marked(R"({"format":"int8_tensorwise"})");
  layer.weight.dtype = DType::u8;
  EXPECT_EQ(int8().recognise(layer), std::nullopt);
  EXPECT_EQ(int8().recognise(marked(R"({"format":"int8_tensorwise"})", {4, 5, 6})), std::nullopt);
  EXPECT_EQ(int8().recognise(marked("")), std::nullopt);  // no marker: legacy names, of which there are none
}

TEST(Int8Recognise, RotationMayBeNestedInParams) {
  const auto group = [](const char* fields) {
    return int8().recognise(marked(R"({"format":"int8_tensorwise",)" + std::string(fields) + "}"))->rotation_group;
  };
  EXPECT_EQ(group(R"("params":{"convrot":true,"convrot_groupsize":64})"), 64);
  EXPECT_EQ(group(R"("params":{"convrot":true,"convrot_groupsize":64},"convrot":false)"), 0);
  EXPECT_EQ(group(R"("params":[])"), 0);
  const Error error = error_of([] { int8().recognise(marked(R"({"format":"int8_tensorwise","params":{"convrot":true}})")); });
  EXPECT_EQ(error.kind(), ErrorKind::input);
}

TEST(Int8Recognise, UnknownKeysAreIgnoredAndKnownOnesRead) {
  const std::optional<Layout> layout = int8().recognise(
      marked(R"({"format":"int8_tensorwise","per_row":true,"convrot":true,"convrot_groupsize":64,"full_precision_matrix_mult":true})"));
  ASSERT_TRUE(layout);
  EXPECT_EQ(layout->rotation_group, 64);
  EXPECT_TRUE(layout->data->text().ends_with("full precision"));
}

TEST(Int8Recognise, ValuesThatAreNotTrueAreNotTrue) {
  for (const char* marker :
       {R"({"format":"int8_tensorwise","convrot":false,"convrot_groupsize":64})",
        R"({"format":"int8_tensorwise","convrot":1,"convrot_groupsize":64})", R"({"format":"int8_tensorwise","convrot":"true"})",
        R"({"format":"int8_tensorwise","full_precision_matrix_mult":null})"}) {
    const std::optional<Layout> layout = int8().recognise(marked(marker));
    ASSERT_TRUE(layout);
    EXPECT_EQ(layout->rotation_group, 0);
    EXPECT_EQ(layout->data->text(), "comfy");
  }
}

TEST(Int8Recognise, OneValueOfOneDimensionIsOneScale) {
  EXPECT_EQ(int8().recognise(marked(R"({"format":"int8_tensorwise"})", {128, 512}, {1}))->scaling, Scaling::tensor);
}

void expect_input_error(const StoredLayerInfo& layer) {
  const Error error = error_of([&] { int8().recognise(layer); });
  EXPECT_EQ(error.kind(), ErrorKind::input) << layer.marker.substr(0, 100);
  EXPECT_THAT(error.message(), HasSubstr("'x'"));
}

TEST(Int8Recognise, MarkersThatAreNoJsonObjectWithAFormatAreErrors) {
  for (const char* marker : {"x", "{", "[]", "null", "1e999", "{}", R"({"format":7})", R"({"format":null})", R"(["format"])", "\xff\xfe",
                             "{\"format\":\"int8_tensorwise\"}x"})
    expect_input_error(marked(marker));
}

TEST(Int8Recognise, RotationGroupsThatLieAreErrors) {
  for (const char* group : {"0", "-4", "1", "2", "32", "512", "1024", "4.0", "\"256\"", "null", "true", "[256]", "9223372036854775808",
                            "18446744073709551616", "1e999"})
    expect_input_error(marked(R"({"format":"int8_tensorwise","convrot":true,"convrot_groupsize":)" + std::string(group) + "}"));
  expect_input_error(marked(R"({"format":"int8_tensorwise","convrot":true})"));
  expect_input_error(marked(R"({"format":"int8_tensorwise","convrot":true,"convrot_groupsize":256})", {128, 320}));
  expect_input_error(marked(R"({"format":"int8_tensorwise","convrot":true,"convrot_groupsize":256})", {128, 512}, {}));
}

TEST(Int8Recognise, BlockSizesThatLieAreErrors) {
  const Shape weight = {128, 512};
  for (const char* size : {"0", "-64", "32", "128", "64.0", "null", "9223372036854775872"})
    expect_input_error(marked(R"({"format":"int8_blockwise","group_size":)" + std::string(size) + "}", weight, {2, 8}));
  expect_input_error(marked(R"({"format":"int8_blockwise"})", weight, {2, 8}));
  expect_input_error(marked(R"({"format":"int8_blockwise","group_size":64})", weight, {1, 8}));  // tiles that are not square
  EXPECT_TRUE(int8().recognise(marked(R"({"format":"int8_blockwise","group_size":64})", weight, {2, 8})));
}

TEST(Int8Recognise, TheScaleMustBeThatOfTheNamedFormat) {
  expect_input_error(marked(R"({"format":"int8_axiswise"})", {128, 512}, {128, 1}));
  expect_input_error(marked(R"({"format":"int8_tensorwise"})", {128, 512}, {128}));
  expect_input_error(marked(R"({"format":"int8_tensorwise"})", {128, 512}, {2, 8}));
  expect_input_error(marked(R"({"format":"int8_axiswise"})", {128, 512}, {}));
}

TEST(Int8Recognise, NestingAsDeepAsTheMarkerIsLongDoesNotExhaustTheStack) {
  const std::string deep = std::string(500'000, '[') + std::string(500'000, ']');
  expect_input_error(marked(deep));
  for (const char* key : {"convrot", "full_precision_matrix_mult", "group_size", "other"})
    EXPECT_TRUE(int8().recognise(marked(R"({"format":"int8_tensorwise",")" + std::string(key) + "\":" + deep + "}"))) << key;
  expect_input_error(marked(R"({"format":)" + deep + "}"));
  expect_input_error(marked(R"({"format":"int8_tensorwise","convrot":true,"convrot_groupsize":)" + deep + "}"));
  expect_input_error(marked(R"({"format":"int8_blockwise","group_size":)" + deep + "}", {128, 512}, {2, 8}));
}

TEST(Fp16Format, TheOneTensorKeepsNameAndShape) {
  const TensorInfo weight = {"a.weight", DType::f32, {5, 7, 3}};
  const Layout layout = fp16().layout(weight, {});
  EXPECT_EQ(fp16().outputs(weight, layout), (std::vector<TensorInfo>{{"a.weight", DType::f16, {5, 7, 3}}}));
  EXPECT_EQ(fp16().label(layout).marker, "");
}

TEST(Fp16Format, RowsAreDecodedAsLibTorchCastsThem) {
  const at::Tensor values = random_weight(7, 129, at::kHalf, 5);
  std::vector<float> out(3 * 129);
  const std::vector<at::Tensor> tensors = {values};
  fp16().decode_rows(tensors, {}, 2, 5, out.data());
  const at::Tensor expected = values.to(at::kFloat);
  for (std::size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], expected.const_data_ptr<float>()[2 * 129 + i]);
}

TEST(Fp16Format, OnlyUnmarkedF16IsRecognised) {
  EXPECT_TRUE(fp16().recognise({"a", {"a.weight", DType::f16, {5, 7}}, {}, ""}));
  EXPECT_FALSE(fp16().recognise({"a", {"a.weight", DType::bf16, {5, 7}}, {}, ""}));
  EXPECT_FALSE(fp16().recognise({"a", {"a.weight", DType::f16, {5, 7}}, {}, R"({"format":"x"})"}));
}

}  // namespace format_test
