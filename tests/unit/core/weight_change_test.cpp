// Changes of weights against LibTorch in F64, on sizes with several groups of rows.
#include "lora/weight_change.h"
#include "engine/task_pool.h"

#include <ATen/ops/abs.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/kron.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "model_file.h"

#include <array>

namespace qmill {
namespace {

at::Tensor random(at::IntArrayRef shape, std::uint64_t seed) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return testing::random_weight(1, count, at::kFloat, seed).reshape(shape).clone();
}

at::Tensor f64(const at::Tensor& tensor) { return tensor.to(at::kDouble); }

const ParallelLoop kInOrder = [](std::int64_t tasks, const std::function<void(std::int64_t)>& body) {
  for (std::int64_t i = 0; i < tasks; ++i) body(i);
};

void expect_near(const at::Tensor& found, const at::Tensor& expected, const char* what) {
  ASSERT_EQ(found.sizes(), expected.sizes()) << what;
  const double size = expected.abs().max().item<double>();
  EXPECT_LT(f64(found).sub(expected).abs().max().item<double>(), 2e-6 * size) << what;
}

// [401, 160] has three groups of rows.
constexpr std::int64_t kRows = 401, kColumns = 160;

TEST(WeightChange, EveryKindIsThePlainExpression) {
  const at::Tensor up = random({kRows, 7}, 1), down = random({7, kColumns}, 2);
  const at::Tensor up2 = random({kRows, 3}, 3), down2 = random({3, kColumns}, 4);
  const at::Tensor difference = random({kRows, kColumns}, 5);
  const at::Tensor w1 = random({401, 5}, 6), w2 = random({1, 32}, 7);
  const at::Tensor v1 = random({1, 4}, 8), v2 = random({401, 40}, 9);
  const std::pair<std::unique_ptr<WeightChange>, at::Tensor> cases[] = {
      {low_rank_change(up, down), f64(up).matmul(f64(down))},
      {hadamard_change(up, down, up2, down2), f64(up).matmul(f64(down)).mul(f64(up2).matmul(f64(down2)))},
      {kronecker_change(w1, w2), at::kron(f64(w1), f64(w2))},
      {kronecker_change(v1, v2), at::kron(f64(v1), f64(v2))},
      {plain_change(difference), f64(difference)}};
  for (const auto& [change, expected] : cases) {
    const at::Tensor weight = random({kRows, kColumns}, 10);
    at::Tensor merged = weight.clone();
    add_change(merged, *change, 0.5, -3, nullptr, kInOrder);
    expect_near(merged, f64(weight).sub(expected, 1.5), "merged");
  }
}

TEST(WeightChange, CoresOfConvolutionsAreContracted) {
  const at::Tensor core = random({3, 2, 5, 4}, 1), factor = random({2, 6}, 2);
  const at::Tensor expected = at::einsum("ijxy,jc->icxy", {f64(core), f64(factor)}).reshape({3, 6 * 5 * 4});
  expect_near(contract_core(core, factor), expected, "core");
}

TEST(WeightChange, MagnitudesNormalizeRowsOrColumns) {
  const at::Tensor weight = random({kRows, 20, 4, 2}, 1);
  const at::Tensor up = random({kRows, 2}, 2), down = random({2, kColumns}, 3);
  const at::Tensor changed = f64(weight).add(f64(up).matmul(f64(down)).mul(0.25).view(weight.sizes()));
  for (const bool of_rows : {true, false})
    for (const double strength : {1.0, 0.3, -1.0}) {
      const Magnitude magnitude{random({of_rows ? kRows : 20}, 4).abs(), of_rows};
      const std::array<std::int64_t, 3> row_dims = {1, 2, 3}, column_dims = {0, 2, 3};
      const at::Tensor norms = changed.square().sum(of_rows ? at::IntArrayRef(row_dims) : at::IntArrayRef(column_dims), true).sqrt();
      const at::Tensor wanted = f64(magnitude.norms).view(norms.sizes());
      const at::Tensor normalized = changed.mul(wanted).div(norms);
      at::Tensor merged = weight.clone();
      add_change(merged, *low_rank_change(up, down), 0.25, strength, &magnitude, kInOrder);
      expect_near(merged, f64(weight).add(normalized.sub(f64(weight)), strength), of_rows ? "rows" : "columns");
    }
}

TEST(WeightChange, ARowOfZerosStaysZero) {
  at::Tensor weight = random({3, 4}, 1);
  weight.select(0, 1).zero_();
  at::Tensor up = random({3, 1}, 2);
  up.select(0, 1).zero_();
  const Magnitude magnitude{random({3}, 3).abs(), true};
  add_change(weight, *low_rank_change(up, random({1, 4}, 4)), 1, 1, &magnitude, kInOrder);
  EXPECT_EQ(weight.select(0, 1).abs().max().item<float>(), 0);
  EXPECT_GT(weight.select(0, 0).abs().max().item<float>(), 0);
}

TEST(WeightChange, TheBitsAreTheSameForEveryNumberOfThreads) {
  const at::Tensor weight = random({1203, 700}, 1);
  const at::Tensor up = random({1203, 33}, 2), down = random({33, 700}, 3);
  const Magnitude rows{random({1203}, 4).abs(), true}, columns{random({700}, 5).abs(), false};
  for (const Magnitude* magnitude : {static_cast<const Magnitude*>(nullptr), &rows, &columns}) {
    at::Tensor first = weight.clone();
    add_change(first, *low_rank_change(up, down), 0.5, 0.7, magnitude, kInOrder);
    for (const int threads : {1, 2, 3, 8}) {
      TaskPool tasks(threads);
      const ParallelLoop parallel = [&](std::int64_t count, const std::function<void(std::int64_t)>& body) { tasks.parallel(count, body); };
      at::Tensor other = weight.clone();
      add_change(other, *hadamard_change(up, down, at::zeros({1203, 1}, at::kFloat), down.narrow(0, 0, 1).clone()), 1, 1, nullptr,
                 parallel);
      EXPECT_TRUE(other.equal(weight));
      add_change(other, *low_rank_change(up, down), 0.5, 0.7, magnitude, parallel);
      EXPECT_TRUE(other.equal(first)) << threads;
    }
  }
}

}  // namespace
}  // namespace qmill
