// asym_w4a8_int8 as it is written: groups, rotations, and what does not fit.
#include "reference.h"

#include <expect_error.h>
#include <formats.h>
#include <model_file.h>
#include <test_context.h>

#include <qmill/numerics/rounding.h>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

using namespace qmill;
using qmill::testing::coded_format;
using qmill::testing::expect_error;
using qmill::testing::random_weight;
using qmill::testing::TestContext;

namespace w4a8_format_test {

const CodedFormat& w4a8() { return coded_format("asym_w4a8_int8"); }

TensorInfo matrix(std::int64_t rows, std::int64_t columns) { return {"l.weight", DType::bf16, {rows, columns}}; }

StorageOptions groups_of(std::int64_t size) {
  StorageOptions wanted;
  wanted.scaling = Scaling::block;
  wanted.block_size = size;
  return wanted;
}

StorageOptions rotated_by(std::int64_t group) {
  StorageOptions wanted;
  wanted.rotation = {Rotation::Mode::fixed, group};
  return wanted;
}

TEST(W4a8Layout, ItIsRotatedByTheLargestThatDivides) {
  using Pair = std::pair<std::int64_t, std::int64_t>;
  for (const auto& [columns, group] : {Pair{16, 16}, Pair{48, 16}, Pair{64, 64}, Pair{320, 64}, Pair{256, 256}, Pair{4096, 256}}) {
    const Layout layout = w4a8().layout(matrix(3, columns), {});
    EXPECT_EQ(layout.rotation_group, group) << columns;
    const auto marker = nlohmann::json::parse(w4a8().label(layout).marker);
    EXPECT_EQ(marker.at("convrot_groupsize"), group);
    EXPECT_EQ(marker.at("group_size"), 16);
  }
  for (const std::int64_t group : {4, 16, 64}) EXPECT_EQ(w4a8().layout(matrix(3, 320), rotated_by(group)).rotation_group, group);
}

TEST(W4a8Layout, WhatDoesNotFitIsSaid) {
  EXPECT_EQ(w4a8().misfit(matrix(3, 256), {}), "");
  EXPECT_EQ(w4a8().misfit(matrix(3, 300), {}), "16 does not divide its 300 columns");
  EXPECT_EQ(w4a8().misfit(matrix(3, 8), {}), "16 does not divide its 8 columns");
  EXPECT_EQ(w4a8().misfit(matrix(3, 320), groups_of(128)), "128 does not divide its 320 columns");
  EXPECT_EQ(w4a8().misfit(matrix(3, 320), rotated_by(256)), "256 does not divide its 320 columns");
  EXPECT_EQ(w4a8().misfit({"l.weight", DType::bf16, {320}}, {}), "");  // no substitute could take it: layout() says so
  expect_error(ErrorKind::unsupported, {"'l.weight'", "16 does not divide its 300 columns"}, [] { w4a8().layout(matrix(3, 300), {}); });
  expect_error(ErrorKind::usage, {"found legacy names"}, [] {
    StorageOptions legacy;
    legacy.naming = Naming::legacy;
    w4a8().misfit(matrix(3, 300), legacy);  // the wish is wrong for the run
  });
}

TEST(W4a8Layout, GroupsAre4Or8OrMultiplesOf16) {
  for (const std::int64_t size : {4, 8, 16, 32, 64, 160}) {
    const Layout layout = w4a8().layout(matrix(3, 320), groups_of(size));
    EXPECT_EQ(layout.tile_columns, size);
    EXPECT_EQ(w4a8().outputs(matrix(3, 320), layout)[1], (TensorInfo{"l.weight_s_rel", DType::f8_e4m3, {3, 320 / size}}));
  }
  for (const std::int64_t size : {1, 2, 5, 12, 24})
    expect_error(ErrorKind::usage, {"found a block size of " + std::to_string(size)},
                 [&] { w4a8().layout(matrix(3, 480), groups_of(size)); });
}

TEST(W4a8, EachCodeIsTheNearestOfTheLevelsThatReadersCompute) {
  constexpr std::int64_t kRows = 4, kColumns = 64;
  const at::Tensor weight = random_weight(kRows, kColumns, at::kFloat, 6);
  const TensorInfo info = info_of({"l.weight", weight});
  const Layout layout = w4a8().layout(info, {});
  TestContext context(info, {&w4a8(), layout, {}});
  const auto stored = w4a8().encode(round_to_nearest(weight, w4a8().grid(), layout, context), info, layout);
  const at::Tensor relative = stored[1].data.to(at::kFloat), &channel = stored[2].data, &codebook = stored[3].data;
  for (std::int64_t row = 0; row < kRows; ++row) {
    double largest = 0;
    for (std::int64_t k = 0; k < kColumns; ++k) {
      const auto exact = [&](std::int64_t r, std::int64_t c) {
        return static_cast<double>(weight.const_data_ptr<float>()[r * kColumns + c]);
      };
      const double value = qmill::testing::rotated_element(exact, row, k, 64);
      const auto step = static_cast<double>(channel.const_data_ptr<float>()[row]);
      const auto level = [&](int code) {
        const float product = codebook.const_data_ptr<float>()[code] * relative.const_data_ptr<float>()[row * (kColumns / 16) + k / 16];
        return std::clamp(static_cast<double>(std::nearbyint(product)), -127.0, 127.0) * step;
      };
      const int byte = static_cast<std::uint8_t>(stored[0].data.const_data_ptr<std::int8_t>()[(row * kColumns + k) / 2]);
      const int code = k % 2 == 0 ? byte & 0xf : byte >> 4;
      double least = 1e9;
      for (int other = 0; other < 16; ++other) least = std::min(least, std::fabs(value - level(other)));
      EXPECT_NEAR(std::fabs(value - level(code)), least, 1e-5 * step) << row << ' ' << k;
      largest = std::max(largest, std::fabs(level(code)) / step);
    }
    EXPECT_GE(largest, 118) << "the row's scale is for integers up to 127";
  }
}

}  // namespace w4a8_format_test
