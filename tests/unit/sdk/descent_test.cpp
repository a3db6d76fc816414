#include "feedback_reference.h"
#include "rounded_values.h"

#include <calibration_stub.h>
#include <formats.h>
#include <model_file.h>
#include <threaded_context.h>

#include <qmill/numerics/descent.h>
#include <qmill/numerics/rounding.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

namespace qmill {
namespace descent_test {

using testing::CalibrationStub;
using testing::coded_format;
using testing::correlated_rows;
using testing::exact_objectives;
using testing::integers_to;
using testing::random_weight;
using testing::rounded;
using testing::short_tiles;
using testing::ThreadedContext;
using testing::uneven_grid;

struct Problem {
  Problem(std::int64_t rows, std::int64_t columns, Grid on, std::int64_t tile_columns)
      : weight(random_weight(rows, columns, at::kFloat, 7)),
        hessian(damped(CalibrationStub(correlated_rows(columns * 5 / 4 + 50, columns, 8)).given_hessian, 0.01)),
        grid(std::move(on)),
        layout(short_tiles(tile_columns)) {
    ThreadedContext context(1);
    scales = tile_scales(weight, grid, layout, context);
    start = round_onto(weight, scales, grid, layout, context).codes;
  }

  TileCodes tiles() const { return TileCodes(grid, layout, weight.size(1), scales); }
  Descent run(std::int64_t passes, int threads = 2) const {
    ThreadedContext context(threads);
    const TileCodes own = tiles();
    return descend(weight, own, start, hessian, at_most(passes), context);
  }
  at::Tensor objectives(const at::Tensor& codes) const {
    const TileCodes own = tiles();
    const std::int64_t columns = weight.size(1);
    at::Tensor errors = at::zeros(weight.sizes());
    for (std::int64_t row = 0; row < weight.size(0); ++row)
      own.decode(row, codes.const_data_ptr<std::int8_t>() + row * columns, errors.mutable_data_ptr<float>() + row * columns);
    return exact_objectives(errors.to(at::kDouble) - weight.to(at::kDouble), hessian);
  }
  // One pass in F64: each code goes to the value nearest to where the others make the objective least, if that lowers it.
  at::Tensor one_pass() const {
    const TileCodes own = tiles();
    const std::int64_t columns = weight.size(1);
    const at::Tensor h = hessian.to(at::kDouble).contiguous();
    at::Tensor codes = start.clone();
    for (std::int64_t row = 0; row < weight.size(0); ++row) {
      std::vector<double> errors(static_cast<std::size_t>(columns));
      auto* code = codes.mutable_data_ptr<std::int8_t>() + row * columns;
      const auto* w = weight.const_data_ptr<float>() + row * columns;
      for (std::int64_t k = 0; k < columns; ++k)
        errors[static_cast<std::size_t>(k)] = static_cast<double>(own.value(row, k, code[k])) - static_cast<double>(w[k]);
      for (std::int64_t k = 0; k < columns; ++k) {
        const auto* line = h.const_data_ptr<double>() + k * columns;
        double slope = 0;
        for (std::int64_t j = 0; j < columns; ++j) slope += line[j] * errors[static_cast<std::size_t>(j)];
        const double before = errors[static_cast<std::size_t>(k)];
        const double target = static_cast<double>(w[k]) + before - slope / line[k];
        const int other = own.nearest(row, k, static_cast<float>(target));
        const double after = static_cast<double>(own.value(row, k, other)) - static_cast<double>(w[k]), move = after - before;
        if (!(move * (2 * slope + move * line[k]) < 0)) continue;
        code[k] = static_cast<std::int8_t>(other);
        errors[static_cast<std::size_t>(k)] = after;
      }
    }
    return codes;
  }

  at::Tensor weight, hessian;
  Grid grid;
  Layout layout;
  TileScales scales;
  at::Tensor start;
};

std::vector<Grid> grids() {
  return {integers_to(127), integers_to(7), uneven_grid(), rounded(uneven_grid()), coded_format("asym_w4a8_int8").grid(),
          coded_format("nvfp4").grid()};
}

TEST(Descent, OnePassIsThatOfF64) {
  for (const Grid& grid : grids()) {
    const Problem problem(40, 150, grid, 16);
    const Descent found = problem.run(1);
    EXPECT_EQ(found.passes, 1);
    const auto other_rows = found.codes.ne(problem.one_pass()).any(1).sum().item<std::int64_t>();
    EXPECT_LE(other_rows, 1) << grid.values.size();
    EXPECT_GT(found.codes.ne(problem.start).sum().item<std::int64_t>(), 100);
  }
}

TEST(Descent, ItNeverRaisesTheObjectiveOfARow) {
  for (const Grid& grid : grids()) {
    const Problem problem(70, 100, grid, 16);
    const at::Tensor kept = problem.start.clone();
    at::Tensor before = problem.objectives(problem.start);
    const double first = before.sum().item<double>();
    for (const std::int64_t passes : {1, 2, 4, 50}) {
      const Descent found = problem.run(passes);
      const at::Tensor after = problem.objectives(found.codes);
      EXPECT_TRUE(after.le(before * (1 + 1e-5)).all().item<bool>()) << passes;
      EXPECT_LE(found.passes, passes);
      before = after;
    }
    EXPECT_LT(before.sum().item<double>(), 0.7 * first);
    EXPECT_TRUE(problem.start.equal(kept));
  }
}

TEST(Descent, ItEndsWhereNoCodeMoves) {
  Problem problem(20, 60, integers_to(7), 16);
  const Descent found = problem.run(1000);
  EXPECT_LT(found.passes, 1000);
  problem.start = found.codes;
  const Descent again = problem.run(1000);
  EXPECT_TRUE(again.codes.equal(found.codes));
  EXPECT_EQ(again.passes, 1);
}

TEST(Descent, BitsAreTheSameForEveryNumberOfThreads) {
  const Problem problem(300, 100, coded_format("asym_w4a8_int8").grid(), 16);
  const Descent one = problem.run(3, 1), three = problem.run(3, 3);
  EXPECT_TRUE(one.codes.equal(three.codes));
  EXPECT_EQ(one.passes, three.passes);
}

TEST(Descent, DampingIsAddedToACopy) {
  const at::Tensor hessian = CalibrationStub(correlated_rows(100, 20, 1)).given_hessian, before = hessian.clone();
  const at::Tensor expected = testing::damped(hessian, 0.5);
  EXPECT_TRUE(damped(hessian, 0.5).to(at::kDouble).allclose(expected, 1e-6, 0));
  EXPECT_TRUE(hessian.equal(before));
}

}  // namespace descent_test
}  // namespace qmill
