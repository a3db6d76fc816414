#include "reference.h"

#include <formats.h>
#include <model_file.h>
#include <test_context.h>

#include <qmill/error.h>
#include <qmill/numerics/rounding.h>
#include <qmill/quantizer.h>

#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <cstring>

using namespace qmill;
using qmill::testing::random_weight;
using qmill::testing::rotate_by_butterflies;
using qmill::testing::TestContext;
using ::testing::HasSubstr;

namespace rounding_test {

const CodedFormat& int8() { return qmill::testing::coded_format("int8"); }
const Grid kInt8Grid;

TensorInfo info(const at::Tensor& weight) { return info_of({"a.weight", weight}); }

StorageOptions plain(Scaling scaling, std::int64_t block = 128) {
  StorageOptions wanted;
  wanted.scaling = scaling;
  wanted.block_size = block;
  wanted.rotation.mode = Rotation::Mode::off;
  return wanted;
}

TestContext context_for(const at::Tensor& weight, const Layout& layout) { return {info(weight), {&int8(), layout, {}}}; }

CodedWeight round_with(const at::Tensor& weight, const Layout& layout, const Grid& grid = kInt8Grid) {
  TestContext context = context_for(weight, layout);
  return round_to_nearest(weight, grid, layout, context);
}

// The scale of every value, [N,K], in LibTorch's own words.
at::Tensor plain_scales(const at::Tensor& f32, Scaling scaling, std::int64_t block) {
  const std::int64_t n = f32.size(0), k = f32.size(1);
  const at::Tensor magnitudes = f32.abs();
  at::Tensor largest;
  switch (scaling) {
    case Scaling::row:
    case Scaling::axis:
      largest = magnitudes.amax({1}, true).expand({n, k});
      break;
    case Scaling::tensor:
      largest = magnitudes.amax().expand({n, k});
      break;
    case Scaling::block:
      largest = magnitudes.view({n / block, block, k / block, block}).amax({1, 3}).repeat_interleave(block, 0).repeat_interleave(block, 1);
      break;
  }
  return largest.div(127).clamp_min(1e-30);
}

void expect_plain_rounding(const at::Tensor& weight, Scaling scaling, std::int64_t block = 128) {
  const Layout layout = int8().layout(info(weight), plain(scaling, block));
  ASSERT_EQ(layout.scaling, scaling) << layout.note;
  const CodedWeight coded = round_with(weight, layout);
  const at::Tensor f32 = weight.to(at::kFloat);
  const at::Tensor scales = plain_scales(f32, scaling, block);
  EXPECT_TRUE(coded.codes.equal(f32.div(scales).round().clamp(-127, 127).to(at::kChar))) << weight.sizes();
  const at::Tensor stored = coded.scales.repeat_interleave(layout.tile_rows, 0).repeat_interleave(layout.tile_columns, 1);
  EXPECT_TRUE(stored.equal(scales.contiguous())) << weight.sizes();
}

struct Case {
  std::int64_t rows, columns;
  at::ScalarType dtype;
};

const Case kCases[] = {{64, 1024, at::kBFloat16},    {7, 5, at::kFloat},         {1, 1, at::kHalf},
                       {129, 300, at::kBFloat16},    {129, 300, at::kHalf},      {5, 129, at::kDouble},
                       {129, 7, at::kFloat8_e4m3fn}, {7, 129, at::kFloat8_e5m2}, {300, 1, at::kFloat},
                       {1, 1025, at::kBFloat16}};

TEST(RoundToNearest, RowsAreThoseOfPlainLibTorchToTheBit) {
  for (const Case& c : kCases) expect_plain_rounding(random_weight(c.rows, c.columns, c.dtype, 1), Scaling::row);
}

TEST(RoundToNearest, OneScaleForAllIsThatOfPlainLibTorchToTheBit) {
  for (const Case& c : kCases) expect_plain_rounding(random_weight(c.rows, c.columns, c.dtype, 2), Scaling::tensor);
}

TEST(RoundToNearest, AxisScalesAreThoseOfPlainLibTorchToTheBit) {
  for (const Case& c : kCases) expect_plain_rounding(random_weight(c.rows, c.columns, c.dtype, 3), Scaling::axis);
}

TEST(RoundToNearest, BlocksAreThoseOfPlainLibTorchToTheBit) {
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf, at::kFloat, at::kDouble}) {
    expect_plain_rounding(random_weight(64, 1024, dtype, 4), Scaling::block, 64);
    expect_plain_rounding(random_weight(21, 35, dtype, 5), Scaling::block, 7);
    expect_plain_rounding(random_weight(3, 5, dtype, 6), Scaling::block, 1);
    expect_plain_rounding(random_weight(129, 129, dtype, 6), Scaling::block, 129);
  }
}

TEST(RoundToNearest, TilesAtTheEdgesMayBeSmaller) {
  const at::Tensor weight = random_weight(7, 129, at::kFloat, 7);
  Layout layout;
  layout.scaling = Scaling::block;
  layout.tile_rows = 3;
  layout.tile_columns = 8;
  const CodedWeight coded = round_with(weight, layout);
  ASSERT_EQ(coded.scales.sizes(), at::IntArrayRef({3, 17}));
  for (std::int64_t r = 0; r < 7; ++r)
    for (std::int64_t c = 0; c < 129; ++c) {
      const std::int64_t row = r / 3 * 3, column = c / 8 * 8;
      const at::Tensor tile =
          weight.slice(0, row, std::min<std::int64_t>(row + 3, 7)).slice(1, column, std::min<std::int64_t>(column + 8, 129));
      const float scale = tile.abs().amax().item<float>() / 127;
      ASSERT_EQ(coded.scales.const_data_ptr<float>()[r / 3 * 17 + c / 8], scale);
      ASSERT_EQ(coded.codes.const_data_ptr<std::int8_t>()[r * 129 + c],
                std::nearbyint(weight.const_data_ptr<float>()[r * 129 + c] / scale));
    }
}

TEST(RoundToNearest, LayersOfSeveralTasksAreTheSame) {
  expect_plain_rounding(random_weight(300, 1024, at::kBFloat16, 7), Scaling::row);
  expect_plain_rounding(random_weight(300, 1024, at::kBFloat16, 7), Scaling::tensor);
  expect_plain_rounding(random_weight(300, 1200, at::kBFloat16, 7), Scaling::block, 100);
}

TEST(RoundToNearest, AZeroWeightGetsTheSmallestScaleAndZeroCodes) {
  for (const Scaling scaling : {Scaling::row, Scaling::tensor, Scaling::block, Scaling::axis}) {
    const at::Tensor weight = at::zeros({7, 7}, at::kBFloat16);
    const CodedWeight coded = round_with(weight, int8().layout(info(weight), plain(scaling, 7)));
    EXPECT_TRUE(coded.codes.equal(at::zeros({7, 7}, at::kChar)));
    for (std::int64_t i = 0; i < coded.scales.numel(); ++i) EXPECT_EQ(coded.scales.const_data_ptr<float>()[i], 1e-30f);
  }
}

TEST(RoundToNearest, AZeroRowLeavesTheOthersAsTheyAre) {
  at::Tensor weight = random_weight(5, 129, at::kFloat, 8);
  weight.select(0, 2).zero_();
  expect_plain_rounding(weight, Scaling::row);
}

TEST(RoundToNearest, ATinyWeightIsBelowTheSmallestScaleAndBecomesZero) {
  const at::Tensor weight = random_weight(7, 5, at::kFloat, 9).mul(1e-38);
  expect_plain_rounding(weight, Scaling::row);
  EXPECT_TRUE(round_with(weight, int8().layout(info(weight), plain(Scaling::row))).codes.equal(at::zeros({7, 5}, at::kChar)));
}

TEST(RoundToNearest, TheLargestNumbersAreStored) {
  at::Tensor weight = random_weight(7, 5, at::kFloat, 10).mul(1e37);
  weight.select(0, 1).fill_(std::numeric_limits<float>::max());
  expect_plain_rounding(weight, Scaling::row);
  expect_plain_rounding(weight, Scaling::tensor);
}

TEST(RoundToNearest, RotatedRowsAreTheButterfliesThenPlainRounding) {
  for (const std::int64_t group : {4, 16, 64, 256, 1024}) {
    const at::Tensor weight = random_weight(5, 1024, at::kBFloat16, 11);
    StorageOptions wanted = plain(Scaling::row);
    wanted.rotation = {Rotation::Mode::fixed, group};
    const CodedWeight coded = round_with(weight, int8().layout(info(weight), wanted));
    const at::Tensor rotated = weight.to(at::kFloat).clone();
    rotate_by_butterflies({rotated.data_ptr<float>(), static_cast<std::size_t>(rotated.numel())}, group);
    const at::Tensor scales = rotated.abs().amax({1}, true).div(127).clamp_min(1e-30);
    EXPECT_TRUE(coded.scales.equal(scales)) << group;
    EXPECT_TRUE(coded.codes.equal(rotated.div(scales).round().clamp(-127, 127).to(at::kChar))) << group;
  }
}

Grid sixteen_levels() {
  Grid grid;
  grid.lowest = -8;
  grid.highest = 7;
  grid.values = {-1.0f, -0.69f, -0.52f, -0.39f, -0.28f, -0.18f, -0.09f, 0.0f, 0.125f, 0.25f, 0.375f, 0.5f, 0.56f, 0.72f, 0.83f, 1.0f};
  return grid;
}

// Of two that are as near, the even one.
int nearest_by_search(const Grid& grid, float value) {
  int best = grid.lowest;
  const auto distance = [&](int code) { return std::fabs(static_cast<double>(value) - static_cast<double>(grid.value(code))); };
  for (int code = grid.lowest; code <= grid.highest; ++code)
    if (distance(code) < distance(best) || (distance(code) == distance(best) && code % 2 == 0)) best = code;
  return best;
}

TEST(Grid, ATableGivesTheNearestCodeAndTheEvenOneOnATie) {
  const Grid grid = sixteen_levels();
  for (float value = -1.5f; value < 1.5f; value += 0.0078125f) EXPECT_EQ(grid.nearest(value), nearest_by_search(grid, value)) << value;
  EXPECT_EQ(grid.nearest(0.1875f), 0);  // between 0.125 (code 0) and 0.25 (code 1)
  EXPECT_EQ(grid.nearest(std::numeric_limits<float>::quiet_NaN()), -8);
  EXPECT_EQ(grid.nearest(std::numeric_limits<float>::infinity()), 7);
}

TEST(Grid, IntegersRoundHalfToEvenWithinTheirBounds) {
  const Grid grid;
  EXPECT_EQ(grid.nearest(0.5f), 0);
  EXPECT_EQ(grid.nearest(1.5f), 2);
  EXPECT_EQ(grid.nearest(-2.5f), -2);
  EXPECT_EQ(grid.nearest(500.0f), 127);
  EXPECT_EQ(grid.nearest(-500.0f), -127);
  EXPECT_EQ(grid.nearest(std::numeric_limits<float>::quiet_NaN()), -127);
}

TEST(RoundToNearest, ATableOfValuesIsSearchedForTheNearest) {
  Grid grid = sixteen_levels();
  for (float& value : grid.values) value *= 2;  // the largest is not 1: the scale must say so
  const at::Tensor weight = random_weight(7, 129, at::kBFloat16, 12);
  const CodedWeight coded = round_with(weight, int8().layout(info(weight), plain(Scaling::row)), grid);
  const at::Tensor f32 = weight.to(at::kFloat);
  for (std::int64_t r = 0; r < 7; ++r) {
    const float scale = f32.select(0, r).abs().amax().item<float>() / 2.0f;
    EXPECT_EQ(coded.scales.const_data_ptr<float>()[r], scale);
    for (std::int64_t c = 0; c < 129; ++c)
      ASSERT_EQ(coded.codes.const_data_ptr<std::int8_t>()[r * 129 + c],
                nearest_by_search(grid, f32.const_data_ptr<float>()[r * 129 + c] / scale));
  }
}

std::string numeric_error(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::numeric);
    return error.message();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

TEST(RoundToNearest, ValuesThatAreNotFiniteAreRefusedWithCountAndPlace) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
    at::Tensor weight = random_weight(7, 5, at::kFloat, 13);
    weight.data_ptr<float>()[3 * 5 + 2] = std::numeric_limits<float>::quiet_NaN();
    weight.data_ptr<float>()[6 * 5 + 4] = -std::numeric_limits<float>::infinity();
    weight = weight.to(dtype);
    for (const Scaling scaling : {Scaling::row, Scaling::tensor}) {
      const Layout layout = int8().layout(info(weight), plain(scaling));
      EXPECT_EQ(numeric_error([&] { round_with(weight, layout); }), "2 of 35 values are not finite (first: NaN at row 3, column 2)");
      TestContext context = context_for(weight, layout);
      EXPECT_THAT(numeric_error([&] { to_stored_basis(weight, layout, context); }), HasSubstr("row 3, column 2"));
    }
  }
}

TEST(RoundToNearest, TheNonFiniteFloatsOf8BitsAreRefused) {
  for (const at::ScalarType dtype : {at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    const at::Tensor weight = random_weight(5, 7, dtype, 14);
    static_cast<std::uint8_t*>(weight.data_ptr())[8] = 0x7f;  // NaN in both types
    EXPECT_THAT(numeric_error([&] { round_with(weight, int8().layout(info(weight), plain(Scaling::row))); }),
                HasSubstr("1 of 35 values are not finite (first: NaN at row 1, column 1)"));
  }
}

TEST(RoundToNearest, ARotationBeyondTheRangeOfF32IsRefused) {
  at::Tensor weight = at::zeros({5, 16}, at::kFloat);
  weight.select(0, 3).fill_(3e38f);
  weight.data_ptr<float>()[3 * 16 + 3] = -3e38f;
  StorageOptions wanted;
  wanted.rotation = {Rotation::Mode::fixed, 4};
  EXPECT_THAT(numeric_error([&] { round_with(weight, int8().layout(info(weight), wanted)); }), HasSubstr("rotation"));
}

TEST(RoundToNearest, AnInterruptedRunStops) {
  const at::Tensor weight = random_weight(7, 5, at::kFloat, 15);
  const Layout layout = int8().layout(info(weight), plain(Scaling::row));
  TestContext context = context_for(weight, layout);
  context.cancelled = true;
  EXPECT_THROW(round_to_nearest(weight, kInt8Grid, layout, context), Error);
}

TEST(TileScales, TheyAreThoseOfRounding) {
  const at::Tensor weight = random_weight(21, 35, at::kFloat, 16);
  for (const Scaling scaling : {Scaling::row, Scaling::tensor, Scaling::block, Scaling::axis}) {
    const Layout layout = int8().layout(info(weight), plain(scaling, 7));
    TestContext context = context_for(weight, layout);
    EXPECT_TRUE(tile_scales(weight, kInt8Grid, layout, context).values.equal(round_with(weight, layout).scales));
  }
}

// Remembers what it is given and chooses the code 3 with the scale 0.5 for everything.
class ConstantQuantizer final : public GridQuantizer {
 public:
  const QuantizerInfo& info() const override {
    static const QuantizerInfo info = {"constant", {}, "", {}, {}, false};
    return info;
  }
  mutable at::Tensor seen;

 protected:
  CodedWeight choose_codes(at::Tensor weight, const Grid&, const Layout&, LayerContext&) const override {
    seen = weight.clone();
    return {at::zeros(weight.sizes(), at::kChar).fill_(3), at::zeros({weight.size(0), 1}).fill_(0.5)};
  }
};

TEST(GridQuantizer, TheSubclassSeesTheRotatedF32BasisAndItsCodesAreEncoded) {
  const at::Tensor weight = random_weight(5, 512, at::kBFloat16, 17);
  const Layout layout = int8().layout(info(weight), {});
  ASSERT_EQ(layout.rotation_group, 256);
  TestContext context = context_for(weight, layout);
  const ConstantQuantizer quantizer;
  const StoredLayer stored = quantizer.quantize(weight, context);

  const at::Tensor rotated = weight.to(at::kFloat).clone();
  rotate_by_butterflies({rotated.data_ptr<float>(), static_cast<std::size_t>(rotated.numel())}, 256);
  EXPECT_TRUE(quantizer.seen.equal(rotated));

  std::vector<TensorInfo> infos;
  for (const StoredTensor& tensor : stored.tensors) infos.push_back(info_of(tensor));
  EXPECT_EQ(infos, quantizer.plan(info(weight), context.target()));
  EXPECT_TRUE(stored.tensors[0].data.equal(at::zeros({5, 512}, at::kChar).fill_(3)));
  EXPECT_TRUE(stored.tensors[1].data.equal(at::zeros({5, 1}).fill_(0.5)));
}

TEST(GridQuantizer, AWeightThatIsNotFiniteNeverReachesTheSubclass) {
  at::Tensor weight = random_weight(5, 7, at::kFloat, 18);
  weight.data_ptr<float>()[34] = std::numeric_limits<float>::infinity();
  TestContext context = context_for(weight, int8().layout(info(weight), {}));
  const ConstantQuantizer quantizer;
  EXPECT_THAT(numeric_error([&] { quantizer.quantize(weight, context); }), HasSubstr("infinity at row 4, column 6"));
  EXPECT_FALSE(quantizer.seen.defined());
}

}  // namespace rounding_test
