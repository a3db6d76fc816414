// What the formats with scales of their own take and refuse, and what they say of it.
#include <expect_error.h>
#include <formats.h>
#include <model_file.h>
#include <test_context.h>

#include <qmill/numerics/rounding.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <limits>

using namespace qmill;
using qmill::testing::coded_format;
using qmill::testing::expect_error;
using qmill::testing::random_weight;
using qmill::testing::TestContext;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

namespace writing_rules_test {

using Shape = std::vector<std::int64_t>;

struct Case {
  const char* format;
  Scaling scaling;
  std::int64_t block;      // 0: there are none
  std::int64_t columns;    // a number of them that it takes
  const char* substitute;
};

class Written : public ::testing::TestWithParam<Case> {
 protected:
  const CodedFormat& format = coded_format(GetParam().format);

  Layout layout(const StorageOptions& wanted = {}, Shape shape = {}) const {
    if (shape.empty()) shape = {5, GetParam().columns};
    return format.layout({"odd.weight", DType::bf16, shape}, wanted);
  }

  // As readers compute what is written of this weight.
  at::Tensor read_back(const at::Tensor& weight) const {
    const TensorInfo info = info_of({"l.weight", weight});
    const Layout layout = format.layout(info, {});
    TestContext context(info, {&format, layout, {}});
    const auto stored = format.encode(round_to_nearest(weight, format.grid(), layout, context), info, layout);
    const std::vector<TensorInfo> planned = format.outputs(info, layout);
    EXPECT_EQ(stored.size(), planned.size());
    StoredLayerInfo layer{"l", planned.front(), {planned.begin() + 1, planned.end()}, format.label(layout).marker};
    std::vector<at::Tensor> tensors;
    for (std::size_t i = 0; i < stored.size(); ++i) {
      EXPECT_EQ(info_of(stored[i]), planned[i]);
      tensors.push_back(stored[i].data);
    }
    const std::optional<Layout> found = format.recognise(layer);
    EXPECT_TRUE(found.has_value());
    EXPECT_EQ(format.original(layer, *found).shape, info.shape);
    EXPECT_EQ(format.label(*found).marker, layer.marker);
    EXPECT_EQ(format.outputs({"l.weight", DType::f32, info.shape}, *found), planned);
    at::Tensor values = at::zeros(info.shape, at::kFloat);
    format.decode_rows(tensors, *found, 0, info.shape[0], values.mutable_data_ptr<float>());
    return values;
  }
};

TEST_P(Written, ItHasOneScaling) {
  EXPECT_THAT(format.scalings(format.info().name), ::testing::ElementsAre(GetParam().scaling));
  EXPECT_EQ(layout().scaling, GetParam().scaling);
  EXPECT_EQ(layout().note, "");
  StorageOptions same;
  same.scaling = GetParam().scaling;
  EXPECT_EQ(format.outputs({"odd.weight", DType::bf16, {5, GetParam().columns}}, layout(same)),
            format.outputs({"odd.weight", DType::bf16, {5, GetParam().columns}}, layout()));
  for (const Scaling scaling : {Scaling::row, Scaling::tensor, Scaling::axis, Scaling::block}) {
    if (scaling == GetParam().scaling) continue;
    StorageOptions wanted;
    wanted.scaling = scaling;
    const std::string own(scaling_name(GetParam().scaling)), other(scaling_name(scaling));
    expect_error(ErrorKind::usage, {std::string(GetParam().format) + " has " + own + " scaling; found " + other + " scaling"},
                 [&] { layout(wanted); });
  }
}

TEST_P(Written, LegacyNamesAreRefused) {
  StorageOptions wanted;
  wanted.naming = Naming::legacy;
  expect_error(ErrorKind::usage, {std::string(GetParam().format), "found legacy names"}, [&] { layout(wanted); });
}

TEST_P(Written, OnlyMatricesWithValuesAreStored) {
  for (const Shape& shape : {Shape{64}, Shape{3, 5, 64}, Shape{5, 0}, Shape{0, 64}})
    expect_error(ErrorKind::unsupported, {"'odd.weight'", shape.size() == 2 ? "with values" : "dimensions"}, [&] { layout({}, shape); });
  expect_error(ErrorKind::unsupported, {"0 dimensions"}, [&] { format.layout({"odd.weight", DType::f32, {}}, {}); });
}

TEST_P(Written, TheMarkerSaysWhichFormatItIs) {
  const auto marker = nlohmann::json::parse(format.label(layout()).marker);
  EXPECT_EQ(marker.at("format"), GetParam().format);
  EXPECT_FALSE(marker.contains("full_precision_matrix_mult"));
  EXPECT_EQ(format.label(layout()).name, GetParam().format);
  StorageOptions full;
  full.full_precision_matrix_mult = true;
  EXPECT_EQ(nlohmann::json::parse(format.label(layout(full)).marker).at("full_precision_matrix_mult"), true);
  EXPECT_EQ(format.info().substitute, GetParam().substitute);
}

TEST_P(Written, BlocksHaveTheirOwnSize) {
  if (GetParam().block == 0) return;
  EXPECT_EQ(layout().tile_columns, GetParam().block);
  EXPECT_EQ(layout().tile_rows, 1);
  StorageOptions wanted;
  wanted.scaling = Scaling::block;
  wanted.block_size = GetParam().block;
  EXPECT_EQ(layout(wanted).tile_columns, GetParam().block);
  wanted.block_size = 24;
  expect_error(ErrorKind::usage, {std::string(GetParam().format), "found a block size of 24"}, [&] { layout(wanted); });
  wanted.scaling.reset();  // a size for other layers
  EXPECT_EQ(layout(wanted).tile_columns, GetParam().block);
}

TEST_P(Written, RowsOfZerosAndAllZeroWeightsStayZero) {
  at::Tensor weight = random_weight(20, GetParam().columns, at::kFloat, 1);
  weight.select(0, 7).zero_();
  const at::Tensor values = read_back(weight);
  EXPECT_EQ(values.select(0, 7).abs().max().item<float>(), 0.0f);
  EXPECT_GT(values.abs().sum().item<float>(), 0.0f);
  const at::Tensor zeros = read_back(at::zeros({3, GetParam().columns}));
  EXPECT_TRUE(zeros.eq(0).all().item<bool>());
  // No level of w4a8 is zero: one that is rounded to zero may be below it.
  EXPECT_FALSE(format.info().name != "asym_w4a8_int8" && zeros.signbit().any().item<bool>());
}

TEST_P(Written, HugeAndTinyValuesKeepTheirSize) {
  const at::Tensor weight = random_weight(6, GetParam().columns, at::kFloat, 2);
  const double usual = (read_back(weight) - weight).norm().item<double>() / weight.norm().item<double>();
  EXPECT_LT(usual, 0.15);
  for (const double factor : {1e-6, 1e25, 1e37}) {
    const at::Tensor scaled = weight * factor, values = read_back(scaled), exact = scaled.to(at::kDouble);
    EXPECT_TRUE(values.isfinite().all().item<bool>()) << factor;
    EXPECT_LT((values.to(at::kDouble) - exact).norm().item<double>() / exact.norm().item<double>(), 1.2 * usual) << factor;
  }
  // Below what their scales can be: as near as that is, and nothing that is not finite.
  const at::Tensor least = read_back(weight * 1e-38);
  EXPECT_TRUE(least.isfinite().all().item<bool>());
  EXPECT_LE(least.abs().max().item<double>(), 2e-37);
}

TEST_P(Written, OneHugeValueLeavesOthersOfItsKindZeroOrSmall) {
  at::Tensor weight = random_weight(4, GetParam().columns, at::kFloat, 3) * 1e-12;
  weight[1][2] = 1e6;
  const at::Tensor values = read_back(weight);
  EXPECT_TRUE(values.isfinite().all().item<bool>());
  EXPECT_LT((values - weight).norm().item<double>(), 0.15 * 1e6);
  EXPECT_LE(values.select(0, 3).abs().max().item<double>(), 1e-11);
}

TEST_P(Written, ValuesThatAreNotFiniteAreErrorsThatSayWhere) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    at::Tensor weight = random_weight(6, GetParam().columns, at::kFloat, 2);
    weight[4][3] = bad;
    expect_error(ErrorKind::numeric, {"1 of", "row 4, column 3"}, [&] { read_back(weight); });
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, Written,
                         ::testing::Values(Case{"float8_e4m3fn", Scaling::tensor, 0, 37, ""},
                                           Case{"float8_e5m2", Scaling::tensor, 0, 37, ""},
                                           Case{"mxfp8", Scaling::block, 32, 37, "float8_e4m3fn"},
                                           Case{"nvfp4", Scaling::block, 16, 37, "float8_e4m3fn"},
                                           Case{"asym_w4a8_int8", Scaling::block, 16, 64, "int8"}),
                         [](const auto& test) { return std::string(test.param.format); });

TEST(Rotated, FloatsAreNotAndW4a8Always) {
  const TensorInfo weight = {"l.weight", DType::bf16, {5, 256}};
  const auto wanted = [](Rotation::Mode mode, std::int64_t group = 256) {
    StorageOptions options;
    options.rotation = {mode, group};
    return options;
  };
  for (const char* name : {"float8_e4m3fn", "float8_e5m2", "mxfp8", "nvfp4"}) {
    EXPECT_FALSE(coded_format(name).can_rotate(Scaling::tensor) || coded_format(name).can_rotate(Scaling::block)) << name;
    EXPECT_EQ(coded_format(name).layout(weight, wanted(Rotation::Mode::off)).rotation_group, 0);
    EXPECT_EQ(coded_format(name).layout(weight, {}).rotation_group, 0);
    for (const StorageOptions& asked : {wanted(Rotation::Mode::any), wanted(Rotation::Mode::fixed, 64)})
      expect_error(ErrorKind::usage, {std::string(name) + " is not rotated; found rotation '" + rotation_text(asked.rotation) + "'"},
                   [&] { coded_format(name).layout(weight, asked); });
  }
  const CodedFormat& w4a8 = coded_format("asym_w4a8_int8");
  EXPECT_TRUE(w4a8.can_rotate(Scaling::block));
  expect_error(ErrorKind::usage, {"always rotated; found rotation 'off'"}, [&] { w4a8.layout(weight, wanted(Rotation::Mode::off)); });
  expect_error(ErrorKind::usage, {"12"}, [&] { w4a8.layout(weight, wanted(Rotation::Mode::fixed, 12)); });
}

TEST(Names, AreThoseThatReadersKnow) {
  EXPECT_THAT(coded_format("float8_e4m3fn").info().aliases, ::testing::Contains("fp8"));
  EXPECT_THAT(coded_format("asym_w4a8_int8").info().aliases, ::testing::Contains("w4a8"));
  EXPECT_THAT(coded_format("float8_e5m2").info().aliases, IsEmpty());
}

}  // namespace writing_rules_test
