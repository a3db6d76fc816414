#include "feedback_reference.h"

#include <calibration_stub.h>
#include <expect_error.h>
#include <model_file.h>
#include <threaded_context.h>

#include <qmill/numerics/ldlq.h>
#include <qmill/numerics/rounding.h>

#include <ATen/ops/eye.h>
#include <ATen/Parallel.h>

#include <algorithm>

namespace qmill {
namespace ldlq_test {

using testing::CalibrationStub;
using testing::correlated_rows;
using testing::damped;
using testing::differing;
using testing::exact_errors;
using testing::exact_objectives;
using testing::gptq_codes;
using testing::integers_to;
using testing::ldlq_codes;
using testing::random_weight;
using testing::ThreadedContext;
using testing::tiles_of;
using testing::uneven_grid;

// One weight, its inputs, and how it is rounded.
struct Problem {
  Problem(std::int64_t rows, std::int64_t columns, Grid on, Scaling scaling, bool activation_order = false, double relative_damping = 0.01)
      : weight(random_weight(rows, columns, at::kFloat, 7)),
        hessian(CalibrationStub(correlated_rows(columns * 5 / 4 + 50, columns, 8)).given_hessian),
        grid(std::move(on)),
        layout(tiles_of(scaling, rows, columns)),
        by_activation(activation_order),
        damping(relative_damping) {
    ThreadedContext context(1);
    scales = tile_scales(weight, grid, layout, context).values;
  }

  HessianFactor factor() const {
    ThreadedContext context(2);
    return factor_hessian(hessian, weight.size(1), {damping, by_activation}, context);
  }
  FeedbackRounding round(std::int64_t block_columns = kBlockColumns, int threads = 2) const {
    return round_by(factor(), block_columns, threads);
  }
  FeedbackRounding round_by(const HessianFactor& factored, std::int64_t block_columns, int threads = 2) const {
    ThreadedContext context(threads);
    return round_with_feedback(weight, {scales}, grid, layout, factored, context, block_columns);
  }
  at::Tensor expected() const { return ldlq_codes(weight, scales, grid, layout, hessian, damping, by_activation); }
  at::Tensor nearest() const {
    ThreadedContext context(1);
    return round_onto(weight, {scales}, grid, layout, context).codes;
  }

  at::Tensor weight;
  at::Tensor hessian;
  at::Tensor scales;
  Grid grid;
  Layout layout;
  bool by_activation;
  double damping;
};

constexpr double kTies = 0.001;  // share of the codes that may differ: a tie that falls the other way changes the rest of its row

void expect_codes(const at::Tensor& found, const at::Tensor& expected, const std::string& how) {
  EXPECT_LE(static_cast<double>(differing(found, expected)), kTies * static_cast<double>(found.numel())) << how;
}

TEST(Ldlq, CodesAreThoseOfOneColumnAfterTheOtherInF64) {
  const Grid grids[] = {integers_to(127), integers_to(7), uneven_grid()};
  const Scaling scalings[] = {Scaling::row, Scaling::tensor, Scaling::block};
  constexpr std::int64_t kShapes[][2] = {{1, 1}, {3, 2}, {17, 63}, {16, 65}, {5, 129}, {33, 257}, {280, 70}};
  for (const auto& [rows, columns] : kShapes)
    for (std::size_t grid = 0; grid < 3; ++grid)
      for (const bool by_activation : {false, true}) {
        const Problem problem(rows, columns, grids[grid], scalings[(grid + static_cast<std::size_t>(rows)) % 3], by_activation);
        const at::Tensor expected = problem.expected();
        const HessianFactor factor = problem.factor();
        for (const std::int64_t block : {std::int64_t{1}, std::int64_t{7}, kBlockColumns, columns})
          expect_codes(problem.round_by(factor, block).coded.codes, expected,
                       std::to_string(rows) + " x " + std::to_string(columns) + ", grid " + std::to_string(grid) + ", blocks of " +
                           std::to_string(block) + (by_activation ? ", ordered" : ""));
      }
}

TEST(Ldlq, CodesAreThoseOfF64ForWideAndBadlyConditionedHessians) {
  for (const bool by_activation : {false, true}) {
    const Problem wide(9, 700, integers_to(127), by_activation ? Scaling::block : Scaling::row, by_activation, 0.001);
    const at::Tensor expected = wide.expected();
    for (const std::int64_t block : {std::int64_t{64}, std::int64_t{700}})
      expect_codes(wide.round(block).coded.codes, expected, by_activation ? "ordered" : "in order");
  }
  const Problem tall(700, 90, integers_to(7), Scaling::row, true, 0.0001);
  expect_codes(tall.round().coded.codes, tall.expected(), "tall");
}

TEST(Ldlq, CodesAreThoseOfGptqsOwnForm) {
  for (const Scaling scaling : {Scaling::row, Scaling::block}) {
    const Problem problem(40, 200, integers_to(7), scaling);
    const at::Tensor gptq = gptq_codes(problem.weight, problem.scales, problem.grid, problem.layout, problem.hessian, problem.damping);
    expect_codes(problem.expected(), gptq, "the reference");
    expect_codes(problem.round().coded.codes, gptq, "the kernel");
  }
}

TEST(Ldlq, HessiansWhoseFactorIsF32GiveTheSameObjectiveAndNearlyTheSameCodes) {
  const Problem problem(6, 1300, integers_to(127), Scaling::row);
  const FeedbackRounding found = problem.round();
  const at::Tensor expected = problem.expected();
  const at::Tensor hessian = damped(problem.hessian, problem.damping);
  const auto objective = [&](const at::Tensor& codes) {
    return exact_objectives(exact_errors(problem.weight, {codes, problem.scales}, problem.grid, problem.layout), hessian)
        .sum()
        .item<double>();
  };
  EXPECT_NEAR(objective(found.coded.codes) / objective(expected), 1, 1e-4);
  EXPECT_LT(static_cast<double>(differing(found.coded.codes, expected)), 0.02 * static_cast<double>(expected.numel()));
}

TEST(Ldlq, ObjectivesAreTheErrorsUnderTheDampedHessian) {
  for (const Scaling scaling : {Scaling::row, Scaling::tensor, Scaling::block})
    for (const bool by_activation : {false, true}) {
      Problem problem(37, 150, integers_to(scaling == Scaling::row ? 127 : 7), scaling, by_activation);
      problem.hessian.select(0, 20).zero_();
      problem.hessian.select(1, 20).zero_();
      const FeedbackRounding found = problem.round();
      const at::Tensor errors = exact_errors(problem.weight, found.coded, problem.grid, problem.layout);
      const at::Tensor expected = exact_objectives(errors, damped(problem.hessian, problem.damping));
      ASSERT_EQ(found.objectives.size(), 37u);
      for (std::size_t row = 0; row < 37; ++row)
        EXPECT_NEAR(found.objectives[row] / expected.const_data_ptr<double>()[row], 1, 1e-5) << row;
      const at::Tensor nearest = exact_errors(problem.weight, {problem.nearest(), problem.scales}, problem.grid, problem.layout);
      EXPECT_LT(exact_objectives(errors, problem.hessian).sum().item<double>(),
                0.7 * exact_objectives(nearest, problem.hessian).sum().item<double>());
    }
}

TEST(Ldlq, TheIdentityGivesPlainRoundingInEveryOrder) {
  for (const Grid& grid : {integers_to(127), integers_to(7), uneven_grid()}) {
    Problem problem(33, 100, grid, Scaling::block, true);
    problem.hessian = at::eye(100);
    problem.hessian.diagonal().add_(random_weight(1, 100, at::kFloat, 9).view(-1).square());  // an order that is not that of the columns
    EXPECT_EQ(differing(problem.round().coded.codes, problem.nearest()), 0);
  }
}

TEST(Ldlq, DeadColumnsAreRoundedToNearestAndChangeNoOther) {
  Problem problem(20, 130, integers_to(7), Scaling::row, true);
  for (const std::int64_t dead : {0, 64, 129}) {
    problem.hessian.select(0, dead).zero_();
    problem.hessian.select(1, dead).zero_();
  }
  const at::Tensor codes = problem.round().coded.codes;
  for (const std::int64_t dead : {0, 64, 129}) EXPECT_TRUE(codes.select(1, dead).equal(problem.nearest().select(1, dead)));
  Problem other = problem;
  other.weight = problem.weight.clone();
  for (const std::int64_t dead : {0, 64, 129}) other.weight.select(1, dead).mul_(0.25);
  const at::Tensor changed = other.round().coded.codes;
  for (const std::int64_t dead : {0, 64, 129}) changed.select(1, dead).copy_(codes.select(1, dead));
  EXPECT_EQ(differing(changed, codes), 0);
}

TEST(Ldlq, ZeroRowsAndValuesBeyondTheGridAreNoTrouble) {
  for (const Grid& grid : {integers_to(127), integers_to(7), uneven_grid()}) {
    Problem problem(20, 70, grid, Scaling::row);
    problem.weight.select(0, 3).zero_();
    ThreadedContext context(1);
    problem.scales = tile_scales(problem.weight, grid, problem.layout, context).values.mul(0.3);
    const FeedbackRounding found = problem.round();
    expect_codes(found.coded.codes, problem.expected(), "clipped");
    EXPECT_EQ(found.coded.codes.min().item<int>(), grid.lowest);
    EXPECT_EQ(found.coded.codes.max().item<int>(), grid.highest);
    EXPECT_TRUE(found.coded.codes.select(0, 3).eq(0).all().item<bool>() || !grid.values.empty());
    EXPECT_TRUE(std::all_of(found.objectives.begin(), found.objectives.end(), [](double x) { return std::isfinite(x) && x >= 0; }));
  }
}

TEST(Ldlq, BitsAreTheSameForEveryNumberOfThreadsAndForRowsAlone) {
  for (const Scaling scaling : {Scaling::row, Scaling::block}) {
    const Problem problem(545, 200, integers_to(127), scaling, true);
    const FeedbackRounding one = problem.round(kBlockColumns, 1);
    for (const int threads : {2, 3, 5}) {
      const FeedbackRounding other = problem.round(kBlockColumns, threads);
      EXPECT_TRUE(other.coded.codes.equal(one.coded.codes)) << threads;
      EXPECT_EQ(other.objectives, one.objectives) << threads;
    }
    const int before = at::get_num_threads();
    at::set_num_threads(3);
    EXPECT_TRUE(problem.round(kBlockColumns, 2).coded.codes.equal(one.coded.codes)) << "LibTorch's own threads";
    EXPECT_EQ(at::get_num_threads(), 3);
    at::set_num_threads(before);

    for (const auto& [begin, end] :
         std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 32}, {256, 512}, {512, 545}, {224, 320}, {544, 545}}) {
      Problem part = problem;
      part.weight = problem.weight.slice(0, begin, end).contiguous();
      part.scales = problem.scales.slice(0, begin / part.layout.tile_rows, (end - 1) / part.layout.tile_rows + 1).contiguous();
      EXPECT_TRUE(part.round().coded.codes.equal(one.coded.codes.slice(0, begin, end))) << begin << " to " << end;
    }
  }
}

TEST(Ldlq, AnInterruptedRunStops) {
  const Problem problem(20, 70, integers_to(127), Scaling::row);
  testing::TestContext context({}, {});
  context.cancelled = true;
  testing::expect_error(ErrorKind::cancelled, {}, [&] {
    round_with_feedback(problem.weight, {problem.scales}, problem.grid, problem.layout, problem.factor(), context);
  });
}

}  // namespace ldlq_test
}  // namespace qmill
