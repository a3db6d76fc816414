#include "feedback_reference.h"

#include <calibration_stub.h>
#include <expect_error.h>
#include <model_file.h>
#include <threaded_context.h>

#include <qmill/numerics/ldlq.h>

#include <ATen/ops/diag.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include <limits>

namespace qmill {
namespace factor_test {

using testing::CalibrationStub;
using testing::correlated_rows;
using testing::damped;
using ::testing::ElementsAre;
using testing::expect_error;
using testing::mean_diagonal;
using testing::order_of;
using testing::permuted;
using testing::ThreadedContext;

at::Tensor correlated_hessian(std::int64_t columns) {
  return CalibrationStub(correlated_rows(columns * 5 / 4 + 50, columns, 1)).given_hessian;
}

HessianFactor factor(const at::Tensor& hessian, const FactorOptions& options = {}, int threads = 2) {
  ThreadedContext context(threads);
  return factor_hessian(hessian, hessian.size(0), options, context);
}

// (I + U) D (I + U)^T, F64.
at::Tensor product(const HessianFactor& factor) {
  const at::Tensor root = factor.coefficients.to(at::kDouble).t().add(at::eye(factor.coefficients.size(0), at::kDouble));
  return root.mul(at::tensor(factor.pivots, at::kDouble)).matmul(root.t());
}

// Beside the geometric mean of the two diagonals: what small inputs say must not drown in what large ones say.
double largest_difference(const at::Tensor& found, const at::Tensor& expected) {
  const at::Tensor size = expected.diagonal().sqrt();
  return found.sub(expected).div(size.view({-1, 1})).div(size.view({1, -1})).abs().max().item<double>();
}

TEST(Factor, ItsProductIsTheDampedHessianInTheOrderOfTheColumns) {
  for (const std::int64_t columns : {1, 2, 17, 255, 256, 257, 520}) {
    const at::Tensor hessian = correlated_hessian(columns);
    for (const double damping : {0.0001, 1.0}) {
      const bool by_activation = (columns % 2 == 0) == (damping < 1);
      SCOPED_TRACE(std::to_string(columns) + " columns, damping " + std::to_string(damping));
      const HessianFactor found = factor(hessian, {damping, by_activation});
      ASSERT_EQ(found.order, order_of(hessian, by_activation));
      EXPECT_NEAR(found.damping, damping * mean_diagonal(hessian), 1e-9 * mean_diagonal(hessian));
      EXPECT_EQ(found.dead_columns, 0);
      EXPECT_LT(largest_difference(product(found), permuted(damped(hessian, damping), found.order)), 1e-6);
      EXPECT_TRUE(found.coefficients.triu().eq(0).all().item<bool>());
      EXPECT_TRUE(std::all_of(found.pivots.begin(), found.pivots.end(), [](double pivot) { return pivot > 0; }));
    }
  }
}

TEST(Factor, ColumnsWithTheLargestInputsComeFirstAndEqualOnesStayInOrder) {
  const at::Tensor hessian = at::diag(at::tensor({2.0f, 5.0f, 2.0f, 0.0f, 9.0f, 5.0f}));
  EXPECT_THAT(factor(hessian, {0.01, true}).order, ElementsAre(4, 1, 5, 0, 2, 3));
  EXPECT_THAT(factor(hessian, {0.01, false}).order, ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(Factor, InputsThatWereAlwaysZeroHaveNoPartInTheOthers) {
  const at::Tensor rows = correlated_rows(400, 300, 2);
  for (const std::int64_t dead : {0, 150, 299}) rows.select(1, dead).zero_();
  const at::Tensor hessian = CalibrationStub(rows).given_hessian;
  for (const double damping : {0.0, 0.01}) {
    const HessianFactor found = factor(hessian, {damping, false});
    EXPECT_EQ(found.dead_columns, 3);
    for (const std::int64_t dead : {0, 150, 299}) {
      EXPECT_TRUE(found.coefficients.select(0, dead).eq(0).all().item<bool>());
      EXPECT_TRUE(found.coefficients.select(1, dead).eq(0).all().item<bool>());
      EXPECT_NEAR(found.pivots[static_cast<std::size_t>(dead)] / mean_diagonal(hessian), 1 + damping, 1e-6);
    }
    EXPECT_LT(largest_difference(product(found), damped(hessian, damping)), 1e-6);
  }
}

TEST(Factor, WideHessiansAreAsExactAsTheirConditionAsksFor) {
  // F32 would do for the usual damping, and would not for the small one.
  const at::Tensor hessian = correlated_hessian(1030);
  EXPECT_LT(largest_difference(product(factor(hessian)), damped(hessian, 0.01)), 1e-5);
  EXPECT_LT(largest_difference(product(factor(hessian, {1e-6, false})), damped(hessian, 1e-6)), 1e-6);
}

TEST(Factor, IsTheSameForF32AndF64AndForEveryNumberOfThreads) {
  for (const std::int64_t columns : {300, 1030}) {
    const at::Tensor hessian = correlated_hessian(columns);
    const HessianFactor one = factor(hessian, {0.01, true}, 1);
    const auto expect_same = [&](const HessianFactor& other, const std::string& how) {
      EXPECT_TRUE(other.coefficients.equal(one.coefficients)) << how;
      EXPECT_EQ(other.pivots, one.pivots) << how;
      EXPECT_EQ(other.order, one.order) << how;
    };
    expect_same(factor(hessian.to(at::kDouble), {0.01, true}, 1), "F64");
    for (const int threads : {2, 3, 5}) expect_same(factor(hessian, {0.01, true}, threads), std::to_string(threads) + " threads");
    const int before = at::get_num_threads();
    at::set_num_threads(3);
    expect_same(factor(hessian, {0.01, true}, 2), "LibTorch's own threads");
    EXPECT_EQ(at::get_num_threads(), 3);
    at::set_num_threads(before);
  }
}

TEST(Factor, TheScaleOfTheInputsDoesNotMatter) {
  for (const std::int64_t columns : {40, 1030}) {
    at::Tensor hessian = correlated_hessian(columns);
    hessian = hessian.div(mean_diagonal(hessian));
    const HessianFactor plain = factor(hessian);
    for (const double size : {0x1p-120, 0x1p110}) {
      const HessianFactor scaled = factor(hessian.mul(size));
      EXPECT_LT(scaled.coefficients.sub(plain.coefficients).abs().max().item<double>(), 1e-3) << size;
      EXPECT_NEAR(scaled.pivots[7] / plain.pivots[7] / size, 1, 1e-3) << size;
    }
  }
}

TEST(Factor, AHessianOfAnotherSizeIsRefused) {
  ThreadedContext context(1);
  for (const std::vector<std::int64_t>& shape :
       std::vector<std::vector<std::int64_t>>{{5, 5}, {7, 7}, {6, 5}, {5, 6}, {36}, {1, 6, 6}, {0}})
    expect_error(ErrorKind::input, {"the Hessian has the shape [", "expected [6,6]"},
                 [&] { factor_hessian(at::ones(shape), 6, {}, context); });
}

TEST(Factor, ValuesThatAreNotFiniteAreRefusedWhereverTheyAre) {
  for (const std::int64_t columns : {6, 1030})
    for (const double bad :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()})
      for (const std::int64_t place : {std::int64_t{0}, std::int64_t{3}, 3 * columns, columns * columns - 1}) {
        const at::Tensor hessian = at::eye(columns);
        hessian.view(-1)[place] = bad;
        expect_error(ErrorKind::numeric, {"not finite"}, [&] { factor(hessian); });
      }
}

// The same eigenvectors for every choice of the eigenvalues.
at::Tensor with_eigenvalues(const at::Tensor& values) {
  const auto [vectors, triangle] = at::linalg_qr(testing::random_weight(values.size(0), values.size(0), at::kDouble, 3));
  const at::Tensor hessian = vectors.mul(values).matmul(vectors.t());
  return hessian.add(hessian.t()).div(2).contiguous();
}

TEST(Factor, WhatIsNotPositiveDefiniteIsRefusedUnlessDampingMakesItSo) {
  const at::Tensor values = at::ones({300}, at::kDouble);
  values[200] = -1;
  const at::Tensor indefinite = with_eigenvalues(values);
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    expect_error(ErrorKind::numeric, {"not positive definite", "raise the damping"}, [&] { factor(indefinite.to(type)); });
    EXPECT_LT(largest_difference(product(factor(indefinite.to(type), {2.0, false})), damped(indefinite, 2.0)), 1e-5);
  }
  const at::Tensor wide = at::eye(1030);
  wide[3][3] = -0.5;
  expect_error(ErrorKind::numeric, {"not positive definite"}, [&] { factor(wide); });

  const at::Tensor singular = at::ones({5, 5});
  expect_error(ErrorKind::numeric, {"not positive definite", "with 0 added"}, [&] { factor(singular, {0.0, false}); });
  EXPECT_LT(largest_difference(product(factor(singular)), damped(singular, 0.01)), 1e-6);
}

TEST(Factor, AZeroHessianIsSaidToBeZeroAndANegativeOneIsNot) {
  expect_error(ErrorKind::numeric, {"the Hessian is zero", "all zero"}, [] { factor(at::zeros({6, 6})); });
  for (const at::Tensor& hessian : {at::eye(6).neg(), at::diag(at::tensor({1.0f, -3.0f})), at::diag(at::tensor({1.0f, -1.0f}))}) {
    const Error error = testing::error_of([&] { factor(hessian); });
    EXPECT_EQ(error.kind(), ErrorKind::numeric);
    EXPECT_EQ(std::string(error.what()).find("zero"), std::string::npos) << error.what();
  }
}

TEST(Factor, DampingThatIsNoNumberOrBeyondThemGivesAnErrorAndNoGarbage) {
  for (const double damping : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), 1e308, -2.0})
    for (const std::int64_t columns : {7, 1030})
      expect_error(ErrorKind::numeric, {}, [&] { factor(at::eye(columns).mul(100), {damping, false}); });
}

TEST(Factor, AnInterruptedRunStops) {
  testing::TestContext context({}, {});
  context.cancelled = true;
  expect_error(ErrorKind::cancelled, {}, [&] { factor_hessian(at::eye(6), 6, {}, context); });
}

}  // namespace factor_test
}  // namespace qmill
