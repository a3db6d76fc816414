// Scales that are chosen while a tile is rounded with feedback, or for the smallest squared error: against F64, one column after the other.
#include "feedback_reference.h"
#include "rounded_values.h"

#include <calibration_stub.h>
#include <formats.h>
#include <model_file.h>
#include <threaded_context.h>

#include <qmill/numerics/calibrated_rounding.h>
#include <qmill/numerics/ldlq.h>
#include <qmill/numerics/rounding.h>
#include <qmill/numerics/tile_codes.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <set>

namespace qmill {
namespace scale_choice_test {

using testing::CalibrationStub;
using testing::coded_format;
using testing::correlated_rows;
using testing::damped;
using testing::differing;
using testing::integers_to;
using testing::permuted;
using testing::random_weight;
using testing::rounded;
using testing::short_tiles;
using testing::ThreadedContext;
using testing::uneven_grid;
using testing::upper_root;

constexpr double kDamping = 0.01;

// Groups of columns with a large mean of the diagonal first.
std::vector<std::int64_t> order_of_groups(const at::Tensor& hessian, std::int64_t width, bool by_activation) {
  const std::int64_t columns = hessian.size(0);
  std::vector<std::pair<double, std::int64_t>> groups;
  for (std::int64_t first = 0; first < columns; first += width) {
    const std::int64_t end = std::min(columns, first + width);
    double sum = 0;
    for (std::int64_t k = first; k < end; ++k) sum += hessian[k][k].item<double>();
    groups.emplace_back(-sum / static_cast<double>(end - first), first);
  }
  if (by_activation) std::sort(groups.begin(), groups.end());
  std::vector<std::int64_t> order;
  for (const auto& [mean, first] : groups)
    for (std::int64_t k = first; k < std::min(columns, first + width); ++k) order.push_back(k);
  return order;
}

struct Chosen {
  at::Tensor codes;                // I8 [N,K]
  at::Tensor which;                // I64 [N, tiles]: index of the candidate
  std::vector<double> objectives;  // of each row
};

// Each tile is rounded with each candidate, from v_k = w_k + sum_{j<k} (w_j - q_j) U_jk; the first with the smallest
// sum of D_k (v_k - q_k)^2 stays.
Chosen choose(const at::Tensor& weight, const std::vector<at::Tensor>& candidates, const at::Tensor& common, const Grid& grid,
              const Layout& layout, const at::Tensor& hessian, bool by_activation) {
  const std::int64_t rows = weight.size(0), columns = weight.size(1), width = layout.tile_columns;
  const std::vector<std::int64_t> order = order_of_groups(hessian, width, by_activation);
  const at::Tensor root = upper_root(permuted(damped(hessian, kDamping), order));
  const at::Tensor unit = root.div(root.diagonal()).t().contiguous(), pivots = root.diagonal().square().contiguous();
  const auto *unit_of = unit.const_data_ptr<double>(), *pivot_of = pivots.const_data_ptr<double>();  // row k: U_jk
  Chosen chosen{at::zeros({rows, columns}, at::kChar), at::zeros({rows, candidates.front().size(1)}, at::kLong), {}};
  std::vector<TileCodes> tiles;
  for (const at::Tensor& values : candidates) tiles.emplace_back(grid, layout, columns, TileScales{values, common});
  std::vector<float> levels(static_cast<std::size_t>(grid.highest - grid.lowest + 1));
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* w = weight.const_data_ptr<float>() + row * columns;
    std::vector<double> errors(static_cast<std::size_t>(columns));  // by step
    double objective = 0;
    for (std::int64_t first = 0; first < columns;) {
      const std::int64_t tile = order[static_cast<std::size_t>(first)] / width;
      std::int64_t end = first;
      while (end < columns && order[static_cast<std::size_t>(end)] / width == tile) ++end;
      double least = std::numeric_limits<double>::infinity();
      std::vector<double> best_errors;
      for (std::size_t i = 0; i < tiles.size(); ++i) {
        tiles[i].values_at(row, tile * width, levels.data());
        double found = 0;
        std::vector<int> codes;
        for (std::int64_t k = first; k < end; ++k) {
          const auto weight_k = static_cast<double>(w[order[static_cast<std::size_t>(k)]]);
          double v = weight_k;
          for (std::int64_t j = 0; j < k; ++j) v += unit_of[k * columns + j] * errors[static_cast<std::size_t>(j)];
          std::size_t code = 0;
          for (std::size_t c = 1; c < levels.size(); ++c)
            if (std::fabs(v - static_cast<double>(levels[c])) < std::fabs(v - static_cast<double>(levels[code]))) code = c;
          const auto q = static_cast<double>(levels[code]);
          errors[static_cast<std::size_t>(k)] = weight_k - q;
          found += pivot_of[k] * (v - q) * (v - q);
          codes.push_back(grid.lowest + static_cast<int>(code));
        }
        if (!(found < least)) continue;
        least = found;
        chosen.which[row][tile] = static_cast<std::int64_t>(i);
        best_errors.assign(errors.begin() + first, errors.begin() + end);
        for (std::int64_t k = first; k < end; ++k)
          chosen.codes.mutable_data_ptr<std::int8_t>()[row * columns + order[static_cast<std::size_t>(k)]] =
              static_cast<std::int8_t>(codes[static_cast<std::size_t>(k - first)]);
      }
      std::copy(best_errors.begin(), best_errors.end(), errors.begin() + first);
      objective += least;
      first = end;
    }
    chosen.objectives.push_back(objective);
  }
  return chosen;
}

struct Problem {
  Problem(std::int64_t rows, std::int64_t columns, Grid on, std::int64_t tile_columns, bool activation_order)
      : weight(random_weight(rows, columns, at::kFloat, 7)),
        hessian(CalibrationStub(correlated_rows(columns * 5 / 4 + 50, columns, 8)).given_hessian),
        grid(std::move(on)),
        layout(short_tiles(tile_columns)),
        by_activation(activation_order) {
    ThreadedContext context(1);
    const WishedScales wished = wished_scales(weight, grid, layout, context);
    scales = stored_scales(wished, grid);
    for (const double factor : {1.0, 1.2, 0.8, 0.6, 1.0}) {
      const at::Tensor tried = wished.values * factor;
      candidates.push_back(grid.scale_grid == nullptr ? tried : grid.scale_grid->stored(tried, scales.common));
    }
  }

  HessianFactor factor() const {
    ThreadedContext context(2);
    return factor_hessian(hessian, weight.size(1), {kDamping, by_activation, layout.tile_columns}, context);
  }
  // What codes are worth: some are worth the same.
  at::Tensor decoded(const at::Tensor& codes, const at::Tensor& chosen) const {
    const TileCodes tiles(grid, layout, weight.size(1), {chosen, scales.common});
    at::Tensor values = at::zeros_like(weight);
    for (std::int64_t row = 0, at = 0; row < weight.size(0); ++row, at += weight.size(1))
      tiles.decode(row, codes.const_data_ptr<std::int8_t>() + at, values.mutable_data_ptr<float>() + at);
    return values;
  }
  FeedbackRounding round(const std::vector<at::Tensor>& among, int threads = 2) const {
    ThreadedContext context(threads);
    return round_and_choose_scales(weight, among, scales.common, grid, layout, factor(), context);
  }
  Chosen expected(const std::vector<at::Tensor>& among) const {
    return choose(weight, among, scales.common, grid, layout, hessian, by_activation);
  }

  at::Tensor weight, hessian;
  Grid grid;
  Layout layout;
  bool by_activation;
  TileScales scales;
  std::vector<at::Tensor> candidates;
};

// A tie that falls the other way changes the rest of its row.
constexpr double kOtherRows = 0.02;

void expect_same_rows(const at::Tensor& found, const at::Tensor& expected, const std::string& how) {
  const auto other = static_cast<double>(found.ne(expected).any(1).sum().item<std::int64_t>());
  EXPECT_LE(other, std::ceil(kOtherRows * static_cast<double>(found.size(0)))) << how;
}

std::vector<Grid> grids() {
  return {integers_to(7), uneven_grid(), rounded(uneven_grid()), coded_format("asym_w4a8_int8").grid(), coded_format("nvfp4").grid()};
}

TEST(ScalesWhileRounding, EachTileHasTheOneWithTheSmallestObjectiveOfItsColumns) {
  constexpr std::int64_t kShapes[][3] = {{140, 70, 16}, {33, 96, 16}, {20, 37, 8}, {17, 130, 64}, {5, 600, 32}};
  for (const auto& [rows, columns, tile] : kShapes)
    for (const Grid& grid : grids())
      for (const bool by_activation : {false, true}) {
        if (columns > 512 && grid.scale_grid != nullptr) continue;  // wide products know nothing of grids
        const Problem problem(rows, columns, grid, tile, by_activation);
        ASSERT_TRUE(can_choose_scales(problem.layout, columns));
        const FeedbackRounding found = problem.round(problem.candidates);
        const Chosen expected = problem.expected(problem.candidates);
        const std::string how = std::to_string(rows) + " x " + std::to_string(columns) + " by " + std::to_string(tile) +
                                (by_activation ? ", ordered" : "") + ", grid of " + std::to_string(grid.values.size());
        at::Tensor scales = at::zeros_like(problem.candidates.front());
        for (std::int64_t i = 0; i < scales.numel(); ++i)
          scales.mutable_data_ptr<float>()[i] =
              problem.candidates[static_cast<std::size_t>(expected.which.const_data_ptr<std::int64_t>()[i])].const_data_ptr<float>()[i];
        expect_same_rows(found.coded.scales, scales, how);
        expect_same_rows(problem.decoded(found.coded.codes, found.coded.scales), problem.decoded(expected.codes, scales), how);
        EXPECT_GT(expected.which.ne(0).sum().item<std::int64_t>(), 0) << how;
        EXPECT_EQ(expected.which.eq(4).sum().item<std::int64_t>(), 0) << "of equals, the first";
        const auto total = [](const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); };
        EXPECT_NEAR(total(found.objectives) / total(expected.objectives), 1, 1e-3) << how;
      }
}

TEST(ScalesWhileRounding, OneCandidateIsRoundingWithTheScalesThatAreGiven) {
  for (const Grid& grid : grids())
    for (const bool by_activation : {false, true}) {
      const Problem problem(40, 70, grid, 16, by_activation);
      ThreadedContext context(2);
      const FeedbackRounding given = round_with_feedback(problem.weight, problem.scales, grid, problem.layout, problem.factor(), context);
      const FeedbackRounding chosen = problem.round({problem.candidates.front()});
      const at::Tensor expected = problem.expected({problem.candidates.front()}).codes, &scales = problem.scales.values;
      expect_same_rows(problem.decoded(given.coded.codes, scales), problem.decoded(expected, scales), "given");
      expect_same_rows(given.coded.codes, chosen.coded.codes, "one candidate");
      EXPECT_TRUE(chosen.coded.scales.equal(problem.scales.values));
    }
}

TEST(ScalesWhileRounding, BitsAreTheSameForEveryNumberOfThreads) {
  for (const Grid& grid : grids()) {
    const Problem problem(300, 70, grid, 16, true);
    const FeedbackRounding one = problem.round(problem.candidates, 1), three = problem.round(problem.candidates, 3);
    EXPECT_TRUE(one.coded.codes.equal(three.coded.codes));
    EXPECT_TRUE(one.coded.scales.equal(three.coded.scales));
    EXPECT_EQ(one.objectives, three.objectives);
  }
}

TEST(ScalesWhileRounding, AreForShortTilesOfOneRow) {
  EXPECT_TRUE(can_choose_scales(short_tiles(16), 32));
  EXPECT_FALSE(can_choose_scales(short_tiles(32), 32));
  EXPECT_FALSE(can_choose_scales(short_tiles(kBlockColumns + 1), 512));
  EXPECT_FALSE(can_choose_scales(testing::tiles_of(Scaling::block, 64, 512), 512));
}

TEST(GroupsOfColumns, StayTogetherByTheirMeanDiagonal) {
  const at::Tensor hessian = CalibrationStub(correlated_rows(300, 70, 3)).given_hessian;
  for (const std::int64_t width : {1, 4, 16, 70}) {
    ThreadedContext context(1);
    const HessianFactor factor = factor_hessian(hessian, 70, {kDamping, true, width}, context);
    EXPECT_EQ(factor.order, order_of_groups(hessian, width, true)) << width;
    const std::set<std::int64_t> all(factor.order.begin(), factor.order.end());
    EXPECT_EQ(all.size(), 70u);
  }
}

// Without inputs a search is for the squared error of the weight.
TEST(ScalesOfLeastSquares, NoTileWouldBeBetterWithTheFactorOfAnother) {
  for (const Grid& grid : {integers_to(7), uneven_grid(), integers_to(127)})
    for (const std::int64_t width : {std::int64_t{16}, std::int64_t{70}}) {
      const Layout layout = short_tiles(width);
      const at::Tensor weight = random_weight(60, 70, at::kFloat, 9);
      ThreadedContext context(2);
      CalibratedRounding how;
      how.scale_search = ScaleSearch::mse;
      const CodedWeight coded = round_calibrated(weight.clone(), grid, layout, nullptr, how, context);
      const at::Tensor wished = wished_scales(weight, grid, layout, context).values;
      std::set<float> factors;  // to three digits
      const at::Tensor ratios = coded.scales.div(wished).contiguous();
      for (std::int64_t i = 0; i < ratios.numel(); ++i) factors.insert(std::round(ratios.const_data_ptr<float>()[i] * 1000) / 1000);
      EXPECT_GE(factors.size(), 3u);
      EXPECT_LE(factors.size(), 13u);
      for (std::int64_t row = 0; row < 60; ++row)
        for (std::int64_t tile = 0; tile < wished.size(1); ++tile) {
          const auto error = [&](double scale) {
            double sum = 0;
            for (std::int64_t k = tile * width; k < std::min<std::int64_t>(70, (tile + 1) * width); ++k) {
              const auto value = static_cast<double>(weight.const_data_ptr<float>()[row * 70 + k]);
              const double left = value - static_cast<double>(grid.value(testing::nearest_code(grid, value / scale))) * scale;
              sum += left * left;
            }
            return sum;
          };
          const double own = error(coded.scales[row][tile].item<double>());
          const double largest = wished[row][tile].item<double>();
          for (const float factor : factors)
            EXPECT_LE(own, error(static_cast<double>(factor) * largest) * (1 + 1e-4)) << row << ' ' << tile;
          EXPECT_LE(own, error(largest) * (1 + 1e-4));
        }
    }
}

TEST(ScalesOfLeastSquares, GridsThatRoundValuesGainByThemToo) {
  for (const char* name : {"asym_w4a8_int8", "nvfp4", "mxfp8"}) {
    const Grid& grid = coded_format(name).grid();
    const Layout layout = short_tiles(std::string_view(name) == "mxfp8" ? 32 : 16);
    const at::Tensor weight = random_weight(60, 96, at::kFloat, 10);
    ThreadedContext context(2);
    CalibratedRounding how;
    how.scale_search = ScaleSearch::mse;
    const CodedWeight searched = round_calibrated(weight.clone(), grid, layout, nullptr, how, context);
    const CodedWeight plain = round_onto(weight, tile_scales(weight, grid, layout, context), grid, layout, context);
    const auto errors = [&](const CodedWeight& coded) {
      return coding_errors(weight, coded, grid, layout, context).square().to(at::kDouble);
    };
    const at::Tensor of_tiles_searched = errors(searched).view({60, -1, layout.tile_columns}).sum(2);
    const at::Tensor of_tiles_plain = errors(plain).view({60, -1, layout.tile_columns}).sum(2);
    EXPECT_TRUE(of_tiles_searched.le(of_tiles_plain).all().item<bool>()) << name;
    // Half the scale of mxfp8 clips: floats of 8 bits gain nothing by it.
    const double most = std::string_view(name) == "mxfp8" ? 1 : 0.99;
    EXPECT_LE(of_tiles_searched.sum().item<double>(), most * of_tiles_plain.sum().item<double>()) << name;
    if (searched.common_scale.defined()) {
      EXPECT_TRUE(searched.common_scale.equal(plain.common_scale)) << name;
    }
  }
}

}  // namespace scale_choice_test
}  // namespace qmill
