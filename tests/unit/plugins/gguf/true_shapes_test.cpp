#include <true_shapes.h>

#include <expect_error.h>

#include <gtest/gtest.h>

#include <limits>

using namespace gguf;
using qmill::DType;
using qmill::ErrorKind;
using qmill::testing::expect_error;

namespace {

std::vector<Entry> one(std::string name, Shape shape) {
  Entry entry;
  entry.info = {std::move(name), DType::f32, std::move(shape)};
  return {entry};
}

void expect_shape_refused(Shape stored, Shape original, std::initializer_list<std::string_view> parts) {
  std::vector<Entry> entries = one("t", std::move(stored));
  expect_error(ErrorKind::input, parts, [&] { restore_folded(entries, {{"t", original}}); });
}

TEST(TrueShapes, AFoldedTensorGetsTheShapeOfItsKey) {
  std::vector<Entry> entries = one("t", {144, 256});
  restore_folded(entries, {{"t", {64, 64, 3, 3}}, {"another", {5}}});
  EXPECT_EQ(entries[0].info.shape, (Shape{64, 64, 3, 3}));
  entries = one("t", {0, 256});
  restore_folded(entries, {{"t", {256, 0, 3}}});
  EXPECT_EQ(entries[0].info.shape, (Shape{256, 0, 3}));
}

TEST(TrueShapes, AShapeWithAnotherNumberOfValuesIsAnError) {
  expect_shape_refused({144, 256}, {64, 64, 3}, {"tensor 't'", "144 x 256", "64 x 64 x 3", "comfy.gguf.orig_shape.t"});
  expect_shape_refused({4, 6}, {5, 5}, {"4 x 6", "5 x 5"});
  expect_shape_refused({4, 6}, {4, 6, 0}, {"4 x 6 x 0"});
  expect_shape_refused({4, 0}, {4, 6}, {"4 x 0", "4 x 6"});
  // Their product is 2^248, which is 0 in 64 bits.
  constexpr std::int64_t huge = std::int64_t{1} << 31;
  expect_shape_refused({0}, Shape(8, huge), {"2147483648"});
  expect_shape_refused({256}, Shape(8, huge), {"2147483648"});
}

TEST(TrueShapes, LinearLayersOfSdxlThatAreConvolutionsBecomeMatricesAgain) {
  const auto model = [] {
    std::vector<Entry> entries;
    for (auto [name, shape] : std::vector<std::pair<std::string, Shape>>{{"m.label_emb.0.0.weight", {8, 8}},
                                                                         {"m.1.proj_in.weight", {8, 8, 1, 1}},
                                                                         {"m.1.proj_out.weight", {8, 8, 1}},
                                                                         {"m.2.proj_in.weight", {8, 8, 3, 3}},
                                                                         {"m.skip_connection.weight", {8, 8, 1, 1}}})
      entries.push_back(one(name, shape).front());
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
