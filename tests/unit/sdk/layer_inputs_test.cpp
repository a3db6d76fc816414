#include "reference.h"

#include <calibration_stub.h>
#include <expect_error.h>
#include <model_file.h>
#include <threaded_context.h>

#include <qmill/numerics/layer_inputs.h>

#include <ATen/ops/eye.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include <limits>

namespace qmill {
namespace layer_inputs_test {

using testing::CalibrationStub;
using testing::correlated_rows;
using testing::error_of;
using testing::expect_error;
using testing::hadamard_sign;
using ::testing::HasSubstr;
using testing::random_weight;
using testing::TestContext;
using testing::ThreadedContext;

Layout rotated(std::int64_t group) {
  Layout layout;
  layout.rotation_group = group;
  return layout;
}

TestContext context_of(std::int64_t columns, const LayerCalibration* calibration) {
  TestContext context({"a.weight", DType::f32, {8, columns}}, {});
  context.calibrated = calibration;
  return context;
}

std::shared_ptr<const LayerInputs> inputs_of(const LayerCalibration& calibration, const Layout& layout) {
  TestContext context = context_of(256, &calibration);
  return inputs_in_stored_basis(layout, context);
}

// The matrix of the stored basis, F64.
at::Tensor rotation(std::int64_t columns, std::int64_t group) {
  const at::Tensor matrix = at::zeros({columns, columns}, at::kDouble);
  for (std::int64_t r = 0; r < columns; ++r)
    for (std::int64_t c = r / group * group; c < r / group * group + group; ++c)
      matrix.mutable_data_ptr<double>()[r * columns + c] =
          hadamard_sign(r % group, c % group, group) / std::sqrt(static_cast<double>(group));
  return matrix;
}

double relative_difference(const at::Tensor& found, const at::Tensor& expected) {
  return found.to(at::kDouble).sub(expected).norm().item<double>() / expected.norm().item<double>();
}

TEST(LayerInputs, AreInTheBasisInWhichTheWeightIsStored) {
  const CalibrationStub calibration(correlated_rows(100, 256, 1));
  const at::Tensor hessian = calibration.given_hessian.clone(), held_out = calibration.held_out.clone();
  const std::shared_ptr<const LayerInputs> plain = inputs_of(calibration, {});
  EXPECT_TRUE(plain->hessian.equal(hessian));
  EXPECT_TRUE(plain->held_out.equal(held_out));
  EXPECT_EQ(plain->rows, 80);
  const at::Tensor weight = random_weight(5, 256, at::kDouble, 2);
  for (const std::int64_t group : {4, 64, 256}) {
    const std::shared_ptr<const LayerInputs> found = inputs_of(calibration, rotated(group));
    const at::Tensor r = rotation(256, group);
    EXPECT_LT(relative_difference(found->hessian, r.t().matmul(hessian.to(at::kDouble)).matmul(r)), 1e-6) << group;
    EXPECT_LT(relative_difference(found->held_out, held_out.to(at::kDouble).matmul(r)), 1e-6) << group;
    EXPECT_LT(
        relative_difference(weight.matmul(r).matmul(found->held_out.to(at::kDouble).t()), weight.matmul(held_out.to(at::kDouble).t())),
        1e-6)
        << "the rotated weight has the outputs of the plain one";
    EXPECT_TRUE(found->hessian.equal(found->hessian.t())) << group;
    EXPECT_NE(found->key, plain->key);
  }
  EXPECT_TRUE(calibration.given_hessian.equal(hessian)) << "what calibration gave is its own";
  EXPECT_TRUE(calibration.held_out.equal(held_out));
}

TEST(LayerInputs, TakeAnyLinearTransform) {
  const CalibrationStub calibration(correlated_rows(50, 24, 3));
  TestContext context = context_of(24, &calibration);
  at::Tensor matrix = at::eye(24, at::kDouble);
  for (std::int64_t k = 0; k < 24; ++k) matrix[k][(k + 5) % 24] = 0.5 + static_cast<double>(k);
  const auto transform = [&](float* row) {
    const at::Tensor before = at::zeros({24}, at::kDouble);
    for (std::int64_t k = 0; k < 24; ++k) before.mutable_data_ptr<double>()[k] = static_cast<double>(row[k]);
    const at::Tensor after = matrix.mv(before);
    for (std::int64_t k = 0; k < 24; ++k) row[k] = static_cast<float>(after.const_data_ptr<double>()[k]);
  };
  const std::shared_ptr<const LayerInputs> found = inputs_in_basis("bent", transform, context);
  EXPECT_LT(relative_difference(found->hessian, matrix.matmul(calibration.given_hessian.to(at::kDouble)).matmul(matrix.t())), 1e-6);
  EXPECT_LT(relative_difference(found->held_out, calibration.held_out.to(at::kDouble).matmul(matrix.t())), 1e-6);
}

TEST(LayerInputs, AreMadeOnceForAllLayersThatGetTheSame) {
  const CalibrationStub same(correlated_rows(50, 256, 4), "block of q, k and v");
  const CalibrationStub other(correlated_rows(50, 256, 5), "another");
  TestContext context = context_of(256, &same);
  const std::shared_ptr<const LayerInputs> first = inputs_in_stored_basis(rotated(64), context);
  EXPECT_EQ(inputs_in_stored_basis(rotated(64), context), first);
  EXPECT_EQ(same.hessian_calls, 1);
  EXPECT_NE(inputs_in_stored_basis(rotated(256), context), first);
  context.calibrated = &other;
  const std::shared_ptr<const LayerInputs> others = inputs_in_stored_basis(rotated(64), context);
  EXPECT_NE(others->key, first->key);
  EXPECT_FALSE(others->hessian.equal(first->hessian));
}

TEST(LayerInputs, AreNothingWhereNothingIsKnown) {
  TestContext context = context_of(256, nullptr);
  EXPECT_EQ(inputs_in_stored_basis(rotated(64), context), nullptr);
  const CalibrationStub without_hessian = CalibrationStub::of_hessian({});
  context.calibrated = &without_hessian;
  EXPECT_EQ(inputs_in_stored_basis(rotated(64), context), nullptr);
  EXPECT_EQ(inputs_in_stored_basis({}, context), nullptr);

  const CalibrationStub statistics = CalibrationStub::of_hessian(at::eye(256));
  context = context_of(256, &statistics);
  const std::shared_ptr<const LayerInputs> found = inputs_in_stored_basis(rotated(64), context);
  EXPECT_FALSE(found->held_out.defined());
  EXPECT_EQ(found->rows, 0);
  EXPECT_FALSE(found->all_zero());
  EXPECT_TRUE(inputs_of(CalibrationStub::of_hessian(at::zeros({256, 256})), rotated(64))->all_zero());
}

TEST(LayerInputs, OfAnotherSizeAreRefused) {
  for (const std::vector<std::int64_t>& shape :
       std::vector<std::vector<std::int64_t>>{{255, 255}, {257, 257}, {256, 64}, {64, 256}, {65536}, {1, 256, 256}})
    for (const Layout& layout : {Layout{}, rotated(64)})
      expect_error(ErrorKind::input, {"the Hessian", "expected 256 columns"},
                   [&] { inputs_of(CalibrationStub::of_hessian(at::ones(shape)), layout); });
  CalibrationStub calibration(correlated_rows(50, 256, 6));
  for (const std::vector<std::int64_t>& shape : std::vector<std::vector<std::int64_t>>{{10, 255}, {10, 512}, {256}}) {
    calibration.held_out = at::ones(shape);
    expect_error(ErrorKind::input, {"the rows kept apart", "expected 256 columns"}, [&] { inputs_of(calibration, {}); });
  }
}

TEST(LayerInputs, ThatAreNotFiniteAreRefusedInEveryBasis) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity()})
    for (const Layout& layout : {Layout{}, rotated(64)}) {
      CalibrationStub calibration(correlated_rows(50, 256, 7));
      calibration.held_out.select(0, 9)[255] = bad;
      expect_error(ErrorKind::numeric, {"rows kept apart", "not finite"}, [&] { inputs_of(calibration, layout); });
      calibration.given_hessian.select(0, 255)[0] = bad;
      expect_error(ErrorKind::numeric, {"Hessian", "not finite"}, [&] { inputs_of(calibration, layout); });
    }
}

TEST(LayerInputs, ErrorsOfOutputsAreThoseOfF64AndTheSameForEveryNumberOfThreads) {
  const at::Tensor rows = correlated_rows(70, 130, 8);
  const at::Tensor hessian = CalibrationStub(rows).given_hessian;
  const at::Tensor errors = random_weight(200, 130, at::kFloat, 9).mul(0.01);
  const double outputs = errors.to(at::kDouble).matmul(rows.to(at::kDouble).t()).square().sum().item<double>();
  const double objective = errors.to(at::kDouble).matmul(hessian.to(at::kDouble)).mul(errors).sum().item<double>();
  ThreadedContext one(1);
  const double first_outputs = squared_output_error(rows, errors, one), first_objective = squared_error_under(hessian, errors, one);
  EXPECT_NEAR(first_outputs / outputs, 1, 1e-5);
  EXPECT_NEAR(first_objective / objective, 1, 1e-5);
  const int before = at::get_num_threads();
  for (const int threads : {2, 3, 5}) {
    at::set_num_threads(threads);
    ThreadedContext several(threads);
    EXPECT_EQ(squared_output_error(rows, errors, several), first_outputs) << threads;
    EXPECT_EQ(squared_error_under(hessian, errors, several), first_objective) << threads;
  }
  at::set_num_threads(before);
}

}  // namespace layer_inputs_test
}  // namespace qmill
