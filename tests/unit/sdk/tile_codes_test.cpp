#include "feedback_reference.h"
#include "rounded_values.h"

#include <model_file.h>
#include <threaded_context.h>

#include <qmill/numerics/rounding.h>
#include <qmill/numerics/tile_codes.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

namespace qmill {
namespace tile_codes_test {

using testing::integers_to;
using testing::random_weight;
using testing::rounded;
using testing::short_tiles;
using testing::ThreadedContext;
using testing::tiles_of;
using testing::uneven_grid;
using testing::worth;

TEST(TileCodes, EachCodeIsTheNearestOfItsTileAndIsWorthWhatItSays) {
  constexpr std::int64_t kRows = 35, kColumns = 37;  // the last tiles are cut short
  const at::Tensor weight = random_weight(kRows, kColumns, at::kFloat, 1);
  for (const Grid& grid : {integers_to(7), uneven_grid(), rounded(uneven_grid()), rounded(integers_to(7))})
    for (const Layout& layout : {tiles_of(Scaling::row, kRows, kColumns), tiles_of(Scaling::tensor, kRows, kColumns),
                                 tiles_of(Scaling::block, kRows, kColumns), short_tiles(16)}) {
      ThreadedContext context(1);
      const TileScales scales = tile_scales(weight, grid, layout, context);
      const TileCodes tiles(grid, layout, kColumns, scales);
      EXPECT_EQ(tiles.rounds_values(), grid.scale_grid != nullptr);
      EXPECT_EQ(tiles.columns(), kColumns);
      for (const std::int64_t row : {std::int64_t{0}, std::int64_t{31}, std::int64_t{32}, kRows - 1}) {
        const float* values = weight.const_data_ptr<float>() + row * kColumns;
        std::int8_t codes[kColumns];
        float decoded[kColumns], table[256];
        tiles.round(row, values, codes);
        tiles.decode(row, codes, decoded);
        for (std::int64_t k = 0; k < kColumns; ++k) {
          SCOPED_TRACE(std::to_string(row) + " " + std::to_string(k));
          const double scale = static_cast<double>(tiles.scale(row, k));
          ASSERT_EQ(tiles.scale(row, k), scales.values[row / layout.tile_rows][k / layout.tile_columns].item<float>());
          double least = std::numeric_limits<double>::infinity();
          for (int code = grid.lowest; code <= grid.highest; ++code)
            least = std::min(least, std::fabs(static_cast<double>(values[k]) - worth(grid, layout, scales, row, k, code)));
          const double own = worth(grid, layout, scales, row, k, codes[k]);
          ASSERT_NEAR(std::fabs(static_cast<double>(values[k]) - own), least, 1e-6 * scale);
          ASSERT_NEAR(static_cast<double>(decoded[k]), own, 1e-6 * scale);
          ASSERT_EQ(tiles.value(row, k, codes[k]), decoded[k]);
          ASSERT_EQ(tiles.nearest(row, k, values[k]), int{codes[k]});
          tiles.values_at(row, k, table);
          ASSERT_EQ(table[codes[k] - grid.lowest], decoded[k]);
        }
      }
    }
}

// As readers' writers have it, of values that a format rounds.
TEST(TileCodes, OfTwoValuesEquallyNearTheLowerCodeIsTaken) {
  const Grid grid = rounded(integers_to(7));
  const TileCodes tiles(grid, short_tiles(4), 4, {at::ones({1, 1}), at::ones({1})});
  const float values[] = {0.5f, 1.5f, -0.5f, -1.5f};
  std::int8_t codes[4];
  tiles.round(0, values, codes);
  EXPECT_EQ(std::vector<int>(codes, codes + 4), (std::vector<int>{0, 1, -1, -2}));
  for (int k = 0; k < 4; ++k) EXPECT_EQ(tiles.nearest(0, k, values[k]), int{codes[k]});
}

TEST(TileCodes, ValuesBeyondTheGridGetItsEnds) {
  for (const Grid& grid : {integers_to(7), uneven_grid(), rounded(uneven_grid())}) {
    const Layout layout = short_tiles(2);
    const TileCodes tiles(grid, layout, 3, {at::zeros({1, 2}).add(0.5), at::zeros({1}).add(0.01)});
    const float values[] = {1e30f, -1e30f, 0.0f};
    std::int8_t codes[3];
    tiles.round(0, values, codes);
    EXPECT_EQ(int{codes[0]}, grid.highest);
    EXPECT_EQ(int{codes[1]}, grid.lowest);
    EXPECT_EQ(tiles.value(0, 2, codes[2]), 0.0f);
  }
}

}  // namespace tile_codes_test
}  // namespace qmill
