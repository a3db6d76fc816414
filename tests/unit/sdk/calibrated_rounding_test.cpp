#include "feedback_reference.h"

#include <calibration_stub.h>
#include <expect_error.h>
#include <model_file.h>
#include <threaded_context.h>

#include <qmill/numerics/calibrated_rounding.h>
#include <qmill/numerics/rounding.h>

#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>

#include <algorithm>

namespace qmill {
namespace calibrated_rounding_test {

using testing::CalibrationStub;
using testing::correlated_rows;
using ::testing::ElementsAre;
using testing::exact_errors;
using testing::exact_objectives;
using testing::expect_error;
using ::testing::HasSubstr;
using testing::integers_to;
using ::testing::IsEmpty;
using testing::mean_diagonal;
using testing::random_weight;
using testing::TestContext;
using testing::ThreadedContext;
using testing::tiles_of;
using testing::uneven_grid;

CalibratedRounding how(std::optional<double> damping, std::optional<ScaleSearch> search = {}, bool by_activation = false) {
  return {damping, by_activation, search, kBlockColumns};
}

struct Problem {
  Problem(std::int64_t rows, std::int64_t columns, Grid on, Scaling scaling, const LayerCalibration* inputs)
      : weight(random_weight(rows, columns, at::kFloat, 17)),
        grid(std::move(on)),
        layout(tiles_of(scaling, rows, columns)),
        known(inputs) {}

  CodedWeight round(const CalibratedRounding& settings = {}) {
    TestContext context({"a.weight", DType::f32, weight.sizes().vec()}, {nullptr, layout, {}});
    context.calibrated = known;
    CodedWeight coded = round_calibrated(weight.clone(), grid, layout, inputs_in_stored_basis(layout, context).get(), settings, context);
    notes = context.notes;
    return coded;
  }
  CodedWeight nearest() const {
    ThreadedContext context(1);
    return round_to_nearest(weight, grid, layout, context);
  }
  at::Tensor errors(const CodedWeight& coded) const { return exact_errors(weight, coded, grid, layout); }
  double objective(const CodedWeight& coded) const { return exact_objectives(errors(coded), known->hessian()).mean().item<double>(); }
  double output_error(const CodedWeight& coded, const at::Tensor& rows) const {
    const at::Tensor inputs = rows.to(at::kDouble).t();
    return errors(coded).matmul(inputs).norm().item<double>() / weight.to(at::kDouble).matmul(inputs).norm().item<double>();
  }

  at::Tensor weight;
  Grid grid;
  Layout layout;
  const LayerCalibration* known;
  std::vector<std::string> notes;
};

void expect_same(const CodedWeight& found, const CodedWeight& expected, const std::string& how = {}) {
  EXPECT_TRUE(found.codes.equal(expected.codes)) << how;
  EXPECT_TRUE(found.scales.equal(expected.scales)) << how;
}

TEST(CalibratedRounding, StatisticsAreTrueAndBeatPlainRoundingInEveryLayout) {
  const CalibrationStub calibration(correlated_rows(300, 100, 1));
  for (const Grid& grid : {integers_to(127), integers_to(7), uneven_grid()})
    for (const Scaling scaling : {Scaling::row, Scaling::axis, Scaling::tensor, Scaling::block}) {
      SCOPED_TRACE(std::string(scaling_name(scaling)) + ", up to " + std::to_string(grid.highest));
      Problem problem(70, 100, grid, scaling, &calibration);
      const CodedWeight coded = problem.round();
      EXPECT_THAT(problem.notes, IsEmpty());
      const std::map<std::string, double>& found = coded.statistics;
      EXPECT_NEAR(found.at("objective") / problem.objective(coded), 1, 1e-4);
      EXPECT_NEAR(found.at("objective_rtn") / problem.objective(problem.nearest()), 1, 1e-4);
      EXPECT_NEAR(found.at("output_error") / problem.output_error(coded, calibration.held_out), 1, 1e-4);
      EXPECT_NEAR(found.at("output_error_rtn") / problem.output_error(problem.nearest(), calibration.held_out), 1, 1e-4);
      EXPECT_LT(found.at("objective"), 0.8 * found.at("objective_rtn"));
      EXPECT_LT(found.at("output_error"), 0.9 * found.at("output_error_rtn"));
      EXPECT_FALSE(found.contains("dead_inputs"));
      EXPECT_LT(problem.output_error(coded, correlated_rows(50, 100, 2)),
                0.9 * problem.output_error(problem.nearest(), correlated_rows(50, 100, 2)));
    }
}

TEST(CalibratedRounding, LargeWeightsAreJudgedByASampleOfTheirRows) {
  const CalibrationStub calibration(correlated_rows(200, 40, 3));
  for (const Scaling scaling : {Scaling::row, Scaling::block}) {
    Problem problem(1030, 40, integers_to(127), scaling, &calibration);
    const CodedWeight coded = problem.round();
    std::vector<std::int64_t> sample;
    for (std::int64_t i = 0; i < 512; ++i) sample.push_back(i * 1030 / 512);
    const at::Tensor errors = problem.errors(coded).index_select(0, at::tensor(sample, at::kLong));
    EXPECT_NEAR(coded.statistics.at("objective") / exact_objectives(errors, calibration.hessian()).mean().item<double>(), 1, 1e-4);
    EXPECT_NEAR(coded.statistics.at("objective") / problem.objective(coded), 1, 0.05);
  }
}

TEST(CalibratedRounding, DampingIsTheBestOfThoseTriedOnTheRowsKeptApart) {
  for (const std::int64_t rows : {10, 80, 1000}) {
    const CalibrationStub calibration(correlated_rows(rows, 120, 4));
    for (const bool by_activation : {false, true}) {
      Problem problem(60, 120, integers_to(127), Scaling::row, &calibration);
      const CodedWeight chosen = problem.round(how({}, {}, by_activation));
      const double damping = chosen.statistics.at("damping");
      const auto error_at = [&](double tried) { return problem.round(how(tried, {}, by_activation)).statistics.at("output_error"); };
      EXPECT_EQ(error_at(damping), chosen.statistics.at("output_error")) << damping;
      for (const double tried : {0.01, damping * 10, damping / 10})
        if (tried >= 0.0005 && tried < 20) {
          EXPECT_LE(chosen.statistics.at("output_error"), error_at(tried)) << damping << " or " << tried;
        }
    }
  }
}

// Two columns at a time are equal inputs; in the rows kept apart they are opposite.
TEST(CalibratedRounding, KeepsPlainRoundingWhereTheRowsKeptApartAreAgainstTheRest) {
  const at::Tensor half = random_weight(100, 32, at::kFloat, 5);
  CalibrationStub calibration(at::cat({half, half}, 1));
  calibration.held_out = at::cat({half, half.neg()}, 1);
  for (const Grid& grid : {integers_to(127), integers_to(7)}) {
    Problem problem(40, 64, grid, Scaling::row, &calibration);
    const CodedWeight coded = problem.round();
    expect_same(coded, problem.nearest());
    EXPECT_THAT(problem.notes, ElementsAre(HasSubstr("rounded to nearest: nothing else had a smaller error on the rows kept apart")));
    EXPECT_EQ(coded.statistics.at("output_error"), coded.statistics.at("output_error_rtn"));
    EXPECT_EQ(coded.statistics.at("objective"), coded.statistics.at("objective_rtn"));
    EXPECT_NEAR(coded.statistics.at("objective_rtn") / problem.objective(problem.nearest()), 1, 1e-4);
  }
}

TEST(CalibratedRounding, AWeightThatPlainRoundingStoresExactlyIsKeptSo) {
  const CalibrationStub with_rows(correlated_rows(100, 64, 6));
  const CalibrationStub statistics = CalibrationStub::of_hessian(with_rows.given_hessian);
  for (const CalibrationStub* calibration : {&with_rows, &statistics}) {
    Problem problem(8, 64, integers_to(127), Scaling::row, calibration);
    problem.weight = problem.weight.mul(30).round().clamp(-127, 127);
    problem.weight.select(1, 5).fill_(127);
    const CodedWeight coded = problem.round();
    expect_same(coded, problem.nearest());
    EXPECT_EQ(coded.statistics.at("objective"), 0);
    problem.weight.zero_();
    EXPECT_TRUE(problem.round().codes.eq(0).all().item<bool>());
  }
}

TEST(CalibratedRounding, WithoutInputsCodesAreThoseOfPlainRounding) {
  const CalibrationStub zero(at::zeros({50, 100}));
  for (const LayerCalibration* calibration : {static_cast<const LayerCalibration*>(nullptr), static_cast<const LayerCalibration*>(&zero)})
    for (const Grid& grid : {integers_to(127), integers_to(7), uneven_grid()})
      for (const Scaling scaling : {Scaling::row, Scaling::tensor, Scaling::block}) {
        Problem problem(70, 100, grid, scaling, calibration);
        const CodedWeight nearest = problem.nearest();
        expect_same(problem.round(how({}, ScaleSearch::off)), nearest);
        EXPECT_THAT(problem.notes, ElementsAre(HasSubstr(calibration == nullptr ? "no calibration data" : "inputs were all zero")));
        const CodedWeight usual = problem.round();
        EXPECT_TRUE(usual.statistics.empty());
        if (grid.highest == 127)
          expect_same(usual, nearest);
        else
          EXPECT_LT(problem.errors(usual).square().sum().item<double>(), 0.97 * problem.errors(nearest).square().sum().item<double>());
      }
}

TEST(CalibratedRounding, SearchedScalesLowerTheObjectiveOfEveryBandOfRows) {
  const CalibrationStub calibration = CalibrationStub::of_hessian(CalibrationStub(correlated_rows(300, 100, 7)).given_hessian);
  for (const Scaling scaling : {Scaling::row, Scaling::tensor, Scaling::block}) {
    Problem problem(70, 100, integers_to(7), scaling, &calibration);
    const CodedWeight off = problem.round(how(0.01, ScaleSearch::off));
    const CodedWeight searched = problem.round(how(0.01, ScaleSearch::hessian));
    expect_same(problem.round(how(0.01)), searched, "few values: searched for by default");
    EXPECT_TRUE(off.scales.equal(problem.nearest().scales));
    const at::Tensor hessian = testing::damped(calibration.given_hessian, 0.01);
    const at::Tensor before = exact_objectives(problem.errors(off), hessian), after = exact_objectives(problem.errors(searched), hessian);
    for (std::int64_t row = 0; row < 70; row += problem.layout.tile_rows) {
      const std::int64_t end = std::min<std::int64_t>(70, row + problem.layout.tile_rows);
      EXPECT_LE(after.slice(0, row, end).sum().item<double>(), before.slice(0, row, end).sum().item<double>() * (1 + 1e-5)) << row;
    }
    EXPECT_LT(searched.statistics.at("objective"), 0.99 * off.statistics.at("objective"));
    EXPECT_FALSE(searched.statistics.contains("output_error"));

    Problem many(70, 100, integers_to(127), scaling, &calibration);
    expect_same(many.round(), many.round(how({}, ScaleSearch::off)), "many values: not searched for by default");
    const CodedWeight gained = many.round(how({}, ScaleSearch::hessian));
    EXPECT_LE(gained.statistics.at("objective"), many.round().statistics.at("objective") * (1 + 1e-3));
  }
}

TEST(CalibratedRounding, FewRowsDoNotMakeALayerWorse) {
  for (const std::int64_t columns : {24, 120}) {
    const at::Tensor fresh = correlated_rows(200, columns, 9);
    for (const std::int64_t rows : {1, 4, 5, 19, 20, 80})
      for (const Scaling scaling : {Scaling::row, Scaling::block})
        for (const int highest : {127, 7}) {
          SCOPED_TRACE(std::to_string(rows) + " rows of " + std::to_string(columns) + " columns, " + std::string(scaling_name(scaling)) +
                       ", up to " + std::to_string(highest));
          const CalibrationStub calibration(correlated_rows(rows, columns, 8));
          Problem problem(40, columns, integers_to(highest), scaling, &calibration);
          const CodedWeight coded = problem.round();
          EXPECT_LE(problem.output_error(coded, fresh), 1.02 * problem.output_error(problem.nearest(), fresh));
          if (rows >= 20) continue;
          expect_same(coded, problem.nearest());
          EXPECT_THAT(problem.notes, ElementsAre(HasSubstr("fewer than 20 rows")));
        }
  }
}

TEST(CalibratedRounding, DeadInputsAreCounted) {
  const at::Tensor rows = correlated_rows(100, 64, 10);
  rows.select(1, 7).zero_();
  rows.select(1, 63).zero_();
  const CalibrationStub calibration(rows);
  Problem problem(20, 64, integers_to(127), Scaling::row, &calibration);
  EXPECT_EQ(problem.round().statistics.at("dead_inputs"), 2);
}

TEST(CalibratedRounding, AHessianThatNeedsItsDampingIsNotRefusedForLess) {
  CalibrationStub calibration(correlated_rows(1000, 40, 11));
  calibration.given_hessian.diagonal().sub_(0.005 * mean_diagonal(calibration.given_hessian));
  Problem problem(40, 40, integers_to(127), Scaling::row, &calibration);
  EXPECT_EQ(problem.round().statistics.at("damping"), 0.01);  // 0.1 is worse, 0.001 is refused
  expect_error(ErrorKind::numeric, {"not positive definite"}, [&] { problem.round(how(0.001)); });
}

TEST(CalibratedRounding, BitsAreTheSameForEveryNumberOfThreadsAndForPartsOfTheWeight) {
  const CalibrationStub calibration(correlated_rows(200, 96, 12));
  for (const Scaling scaling : {Scaling::row, Scaling::tensor, Scaling::block})
    for (const int highest : {127, 7}) {
      Problem problem(600, 96, integers_to(highest), scaling, &calibration);
      const CodedWeight one = problem.round();
      for (const int threads : {1, 2, 3, 5}) {
        ThreadedContext context(threads, {"a.weight", DType::f32, {600, 96}});
        context.calibrated = &calibration;
        const auto inputs = inputs_in_stored_basis(problem.layout, context);
        const CodedWeight other = round_calibrated(problem.weight.clone(), problem.grid, problem.layout, inputs.get(), {}, context);
        expect_same(other, one, std::to_string(threads) + " threads");
        EXPECT_EQ(other.statistics, one.statistics) << threads;
      }
      TestContext context({"a.weight", DType::f32, {600, 96}}, {nullptr, problem.layout, {}});
      context.calibrated = &calibration;
      const WeightParts parts{600, 96, 200,
                              [&](std::int64_t begin, std::int64_t end) { return problem.weight.slice(0, begin, end).clone(); }};
      const auto inputs = inputs_in_stored_basis(problem.layout, context);
      expect_same(round_calibrated(parts, problem.grid, problem.layout, inputs.get(), {}, context), one, "in parts");
    }
}

TEST(CalibratedRounding, OptionsAreReadAndWhatIsNoDampingIsRefused) {
  const auto read = [](const char* name, const char* text) {
    Options options(calibrated_options());
    options.parse("gptq", name, text);
    return read_calibrated_options(options);
  };
  EXPECT_FALSE(read("damping", "auto").damping);
  EXPECT_FALSE(read("scale_search", "auto").scale_search);
  EXPECT_EQ(read("damping", "0").damping, 0.0);
  EXPECT_EQ(read("damping", "2.5e-3").damping, 2.5e-3);
  EXPECT_EQ(read("scale_search", "mse").scale_search, ScaleSearch::mse);
  EXPECT_EQ(read("scale_search", "hessian").scale_search, ScaleSearch::hessian);
  EXPECT_EQ(read("scale_search", "off").scale_search, ScaleSearch::off);
  for (const char* bad : {"", "x", "-1", "nan", "inf", "0.01x", "1e400", "0,01", "AUTO "})
    expect_error(ErrorKind::usage, {"damping", "allowed: auto, or a number of at least 0"}, [&] { read("damping", bad); });
  expect_error(ErrorKind::usage, {"scale_search", "mse"}, [&] { read("scale_search", "best"); });
}

}  // namespace calibrated_rounding_test
}  // namespace qmill
