// Nearest codes of tables: what Grid::nearest says, and that kernels say the same on every processor.
#include "feedback_reference.h"

#include <model_file.h>
#include <quantized_scales.h>

#include <qmill/numerics/grid_rounder.h>

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <limits>

using namespace qmill;
using qmill::testing::uneven_grid;

namespace grid_test {

Grid table_of(std::vector<float> values, int lowest) {
  Grid grid;
  grid.lowest = lowest;
  grid.highest = lowest + static_cast<int>(values.size()) - 1;
  grid.values = std::move(values);
  return grid;
}

Grid e2m1() { return table_of(qmill::testing::e2m1_values(), -7); }

// The values of a float with few mantissa bits, -0 left out. The smallest is 2^step.
Grid small_float(int mantissa_bits, int highest, int step) {
  std::vector<float> values;
  const int ones = 1 << mantissa_bits;
  for (int code = 1; code <= highest; ++code) {
    const int exponent = code / ones, mantissa = code % ones;
    values.push_back(exponent == 0 ? std::ldexp(static_cast<float>(mantissa), step)
                                   : std::ldexp(static_cast<float>(ones + mantissa), step + exponent - 1));
  }
  std::vector<float> all;
  for (auto value = values.rbegin(); value != values.rend(); ++value) all.push_back(-*value);
  all.push_back(0);
  all.insert(all.end(), values.begin(), values.end());
  return table_of(all, -highest);
}

Grid e4m3() { return small_float(3, 126, -9); }
Grid e5m2() { return small_float(2, 123, -16); }

// Many values that are no small float.
Grid stretched() {
  Grid grid = e4m3();
  for (float& value : grid.values) value *= 1.25f;
  return grid;
}

// So close together that several codes change among values with the same first bits.
Grid crowded() {
  std::vector<float> values;
  for (int i = 0; i < 40; ++i) values.push_back(1 + static_cast<float>(i) / 1024);
  return table_of(values, -20);
}

// As it is defined: the smallest distance, in exact arithmetic; of two the even code.
int slow_nearest(const Grid& grid, float x) {
  if (std::isnan(x)) return grid.lowest;
  x = std::clamp(x, grid.value(grid.lowest), grid.value(grid.highest));  // far outside, distances are equal to the last digit
  int best = grid.lowest;
  for (int code = grid.lowest + 1; code <= grid.highest; ++code) {
    const long double distance = std::fabs(static_cast<long double>(x) - grid.value(code));
    const long double least = std::fabs(static_cast<long double>(x) - grid.value(best));
    if (distance < least || (distance == least && code % 2 == 0)) best = code;
  }
  return best;
}

std::vector<Grid> tables() {
  return {e2m1(),      uneven_grid(), e4m3(), e5m2(), small_float(3, 126, 100), small_float(3, 126, -120),
          stretched(), crowded(),     table_of({-1, 2}, 0)};
}

// Values, midpoints, their neighbours, what is far outside, zeros, denormals.
std::vector<float> inputs_for(const Grid& grid) {
  std::vector<float> inputs = {0.0f, -0.0f, 1e-40f, -1e-40f, 1e30f, -1e30f, std::numeric_limits<float>::max(),
                               std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                               std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN()};
  const auto add = [&](float x) {
    inputs.push_back(std::nextafter(x, -1e30f));
    inputs.push_back(x);
    inputs.push_back(std::nextafter(x, 1e30f));
  };
  for (int code = grid.lowest; code <= grid.highest; ++code) {
    add(grid.value(code));
    if (code < grid.highest) add((grid.value(code) + grid.value(code + 1)) / 2);
  }
  const at::Tensor random = qmill::testing::random_weight(1, 5000, at::kFloat, 7).mul(3 * grid.largest());
  inputs.insert(inputs.end(), random.const_data_ptr<float>(), random.const_data_ptr<float>() + 5000);
  return inputs;
}

TEST(Grid, TheNearestCodeIsThatOfTheSlowSearch) {
  for (const Grid& grid : tables())
    for (const float x : inputs_for(grid)) ASSERT_EQ(grid.nearest(x), slow_nearest(grid, x)) << x << ' ' << grid.values.size();
}

TEST(Grid, TiesGoToTheEvenCode) {
  const Grid grid = e2m1();
  EXPECT_EQ(grid.nearest(0.25f), 0);
  EXPECT_EQ(grid.nearest(0.75f), 2);
  EXPECT_EQ(grid.nearest(-2.5f), -4);
  EXPECT_EQ(grid.nearest(5), 6);
}

class GridOnEveryProcessor : public ::testing::Test {
 protected:
  void TearDown() override { use(0); }
  static void use(std::int64_t targets) {  // 0: what the processor has
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

TEST_F(GridOnEveryProcessor, RoundersGiveTheNearestCodes) {
  const std::int64_t available = hwy::SupportedTargets();
  for (int bit = 0; bit < 62; ++bit) {
    const std::int64_t target = std::int64_t{1} << bit;
    if ((available & target) == 0) continue;
    use(target);
    for (const Grid& grid : tables()) {
      const GridRounder rounder(grid);
      const std::vector<float> inputs = inputs_for(grid);
      for (const float scale : {1.0f, 0.37f})
        for (const std::size_t skipped : {0, 1, 5}) {  // odd lengths and places
          std::vector<std::int8_t> codes(inputs.size() - skipped);
          rounder.round(inputs.data() + skipped, static_cast<std::int64_t>(codes.size()), scale, codes.data());
          for (std::size_t i = 0; i < codes.size(); ++i)
            ASSERT_EQ(int{codes[i]}, grid.nearest(inputs[i + skipped] / scale)) << inputs[i + skipped] << ' ' << grid.values.size();
        }
    }
  }
}

}  // namespace grid_test
