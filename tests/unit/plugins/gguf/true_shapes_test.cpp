#include <true_shapes.h>

#include <expect_error.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

using namespace gguf;
using qmill::DType;
using qmill::ErrorKind;
using qmill::testing::expect_error;

namespace {

Entry one(std::string name, Shape shape) {
  Entry entry;
  entry.info = {std::move(name), DType::f32, std::move(shape)};
  return entry;
}

void expect_shape_refused(Shape stored, Shape original, std::initializer_list<std::string_view> parts) {
  Entry entry = one("t", std::move(stored));
  expect_error(ErrorKind::input, parts, [&] { restore_folded(entry, {{"t", original}}); });
}

TEST(TrueShapes, AFoldedTensorGetsTheShapeOfItsKey) {
  Entry entry = one("t", {144, 256});
  restore_folded(entry, {{"t", {64, 64, 3, 3}}, {"another", {5}}});
  EXPECT_EQ(entry.info.shape, (Shape{64, 64, 3, 3}));
  restore_folded(entry, {{"another", {5}}});
  EXPECT_EQ(entry.info.shape, (Shape{64, 64, 3, 3}));
  entry = one("t", {0, 256});
  restore_folded(entry, {{"t", {256, 0, 3}}});
  EXPECT_EQ(entry.info.shape, (Shape{256, 0, 3}));
}

TEST(TrueShapes, AShapeWithAnotherNumberOfValuesIsAnError) {
  expect_shape_refused({144, 256}, {64, 64, 3}, {"tensor 't'", "144 x 256", "64 x 64 x 3", "comfy.gguf.orig_shape.t"});
  expect_shape_refused({4, 6}, {5, 5}, {"4 x 6", "5 x 5"});
  expect_shape_refused({4, 6}, {4, 6, 0}, {"4 x 6 x 0"});
  expect_shape_refused({4, 0}, {4, 6}, {"4 x 0", "4 x 6", "another number of values"});
  // Their product is 2^248, which is 0 in 64 bits.
  constexpr std::int64_t huge = std::int64_t{1} << 31;
  expect_shape_refused({0}, Shape(8, huge), {"2147483648"});
  expect_shape_refused({256}, Shape(8, huge), {"2147483648"});
}

TEST(TrueShapes, AnEmptyShapeWithHugeDimensionsIsAnError) {
  constexpr std::int64_t huge = std::numeric_limits<std::int32_t>::max();
  Shape shape(7, huge);
  shape.push_back(0);
  expect_shape_refused({0}, shape, {"tensor 't'", "2147483647", "x 0, which is too large"});
  std::rotate(shape.begin(), shape.end() - 1, shape.end());
  expect_shape_refused({0}, shape, {"'comfy.gguf.orig_shape.t' says 0 x 2147483647", "too large"});
  Entry entry = one("t", {0});
  restore_folded(entry, {{"t", {huge, 0, 1 << 20}}});
  EXPECT_EQ(entry.info.shape, (Shape{huge, 0, 1 << 20}));
}

TEST(TrueShapes, LinearLayersOfSdxlThatAreConvolutionsBecomeMatricesAgain) {
  const auto model = [] {
    std::vector<Entry> entries;
    for (auto [name, shape] : std::vector<std::pair<std::string, Shape>>{{"m.label_emb.0.0.weight", {8, 8}},
                                                                         {"m.1.proj_in.weight", {8, 8, 1, 1}},
                                                                         {"m.1.proj_out.weight", {8, 8, 1}},
                                                                         {"m.2.proj_in.weight", {8, 8, 3, 3}},
                                                                         {"m.skip_connection.weight", {8, 8, 1, 1}}})
      entries.push_back(one(name, shape));
    return entries;
  };
  std::vector<Entry> entries = model();
  EXPECT_EQ(restore_linear(entries, {}), 2u);
  EXPECT_EQ(entries[1].info.shape, (Shape{8, 8}));
  EXPECT_EQ(entries[2].info.shape, (Shape{8, 8}));
  EXPECT_EQ(entries[3].info.shape, (Shape{8, 8, 3, 3}));
  EXPECT_EQ(entries[4].info.shape, (Shape{8, 8, 1, 1}));
  entries = model();
  EXPECT_EQ(restore_linear(entries, {{"general.architecture", "sdxl"}}), 0u);
  entries = model();
  entries.erase(entries.begin());  // of a model whose projections are convolutions
  EXPECT_EQ(restore_linear(entries, {}), 0u);
}

}  // namespace
