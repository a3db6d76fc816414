#include "reference.h"

#include <expect_error.h>
#include <threaded_context.h>

#include <qmill/numerics/hadamard.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/eye.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

using namespace qmill;
using qmill::testing::random_values;
using qmill::testing::ThreadedContext;

namespace hadamard_test {

using Row = std::vector<float>;

double sylvester_sign(std::int64_t r, std::int64_t c) { return std::popcount(static_cast<std::uint64_t>(r & c)) % 2 == 0 ? 1 : -1; }

Row unit(std::int64_t n, std::int64_t place) {
  Row row(static_cast<std::size_t>(n));
  row[static_cast<std::size_t>(place)] = 1;
  return row;
}

void expect_near(const Row& found, const Row& expected, double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], tolerance) << i;
}

class Sylvester : public ::testing::TestWithParam<std::int64_t> {
 protected:
  std::int64_t n() const { return GetParam(); }
  Row values(unsigned seed) const { return random_values(static_cast<std::size_t>(n()), seed); }
};

TEST_P(Sylvester, TheKernelMultipliesByTheMatrixOfParities) {
  const Row x = values(1);
  Row found = x;
  sylvester_transform(found.data(), n());
  for (std::int64_t r = 0; r < n(); ++r) {
    double sum = 0;
    for (std::int64_t c = 0; c < n(); ++c) sum += sylvester_sign(r, c) * x[static_cast<std::size_t>(c)];
    ASSERT_NEAR(found[static_cast<std::size_t>(r)], sum / std::sqrt(static_cast<double>(n())), 3e-6) << r;
  }
}

TEST_P(Sylvester, TheBytesAreThoseOfStagesOfGrowingStride) {
  Row expected = values(2);
  Row found = {55.0f};  // unaligned, with neighbours
  found.insert(found.end(), expected.begin(), expected.end());
  found.push_back(66.0f);
  sylvester_transform(found.data() + 1, n());
  const auto size = static_cast<std::size_t>(n());
  for (float& value : expected) value *= static_cast<float>(1 / std::sqrt(static_cast<double>(n())));
  for (std::size_t stride = 1; stride < size; stride *= 2)
    for (std::size_t i = 0; i < size; ++i) {
      if (i / stride % 2 != 0) continue;
      const float a = expected[i], b = expected[i + stride];
      expected[i] = a + b;
      expected[i + stride] = a - b;
    }
  EXPECT_EQ(std::memcmp(found.data() + 1, expected.data(), size * sizeof(float)), 0);
  EXPECT_EQ(found.front(), 55.0f);
  EXPECT_EQ(found.back(), 66.0f);
}

TEST_P(Sylvester, ItIsItsOwnInverse) {
  const Row x = values(3);
  Row twice = x;
  sylvester_transform(twice.data(), n());
  sylvester_transform(twice.data(), n());
  expect_near(twice, x, 5e-6);
}

INSTANTIATE_TEST_SUITE_P(Orders, Sylvester, ::testing::Values(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192),
                         ::testing::PrintToStringParamName());

TEST(Sylvester, TheMatrixOfOrderFourIsTheKnownOne) {
  const Row rows[4] = {{.5f, .5f, .5f, .5f}, {.5f, -.5f, .5f, -.5f}, {.5f, .5f, -.5f, -.5f}, {.5f, -.5f, -.5f, .5f}};
  for (std::int64_t r = 0; r < 4; ++r) {
    Row row = unit(4, r);
    sylvester_transform(row.data(), 4);
    EXPECT_EQ(row, rows[r]);
  }
}

// Everything whose bytes must not depend on the processor.
std::vector<float> all_values() {
  std::vector<float> all;
  const auto add = [&](const Row& row) { all.insert(all.end(), row.begin(), row.end()); };
  for (std::int64_t n = 1; n <= 4096; n *= 2) {
    Row row = random_values(static_cast<std::size_t>(n), 7);
    sylvester_transform(row.data(), n);
    add(row);
  }
  return all;
}

class HadamardOnEveryProcessor : public ::testing::Test {
 protected:
  void TearDown() override { use(0); }
  static void use(std::int64_t targets) {  // 0: what the processor has
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

TEST_F(HadamardOnEveryProcessor, TheBytesAreTheSameOnEachInstructionSet) {
  const std::int64_t available = hwy::SupportedTargets();
  const std::vector<float> expected = all_values();
  for (int bit = 0; bit < 62; ++bit) {
    const std::int64_t target = std::int64_t{1} << bit;
    if ((available & target) == 0) continue;
    use(target);
    const std::vector<float> found = all_values();
    ASSERT_EQ(found.size(), expected.size());
    EXPECT_EQ(std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)), 0) << simd_name();
  }
}

at::Tensor symmetric(std::int64_t k) {
  Row values = random_values(static_cast<std::size_t>(k * (k + 5)), static_cast<unsigned>(k));
  at::Tensor x = at::empty({k + 5, k}, at::kFloat);
  std::memcpy(x.data_ptr(), values.data(), values.size() * sizeof(float));
  const at::Tensor h = x.t().mm(x);
  return ((h + h.t()) / 2).contiguous();
}

// T [K,K] in double, from the transforms of unit vectors.
at::Tensor matrix_of(std::int64_t k, const std::function<void(float*)>& transform) {
  at::Tensor images = at::eye(k, at::kFloat);
  for (std::int64_t i = 0; i < k; ++i) transform(images.mutable_data_ptr<float>() + i * k);
  return images.t().to(at::kDouble);
}

struct TwoSided {
  const char* name;
  std::int64_t columns;
  std::function<void(float*)> transform;
};

std::vector<TwoSided> two_sided() {
  std::vector<TwoSided> cases;
  cases.push_back({"groups", 192, [](float* row) { rotate_groups(row, 192, 64); }});
  for (const std::int64_t columns : {1, 2, 32, 256})
    cases.push_back({"Sylvester", columns, [columns](float* row) { sylvester_transform(row, columns); }});
  for (const std::int64_t columns : {31, 33, 260, 387})
    cases.push_back({"differences", columns, [columns](float* row) {
                       for (std::int64_t i = 1; i < columns; ++i) row[i - 1] -= row[i];
                     }});
  return cases;
}

TEST(TransformSymmetric, BothSidesAreMultiplied) {
  for (const TwoSided& test : two_sided()) {
    at::Tensor h = symmetric(test.columns);
    const at::Tensor t = matrix_of(test.columns, test.transform);
    const at::Tensor expected = t.mm(h.to(at::kDouble)).mm(t.t());
    ThreadedContext context(2);
    transform_symmetric(h, test.transform, context);
    const double largest = expected.abs().max().item<double>();
    EXPECT_LT((h.to(at::kDouble) - expected).abs().max().item<double>(), 3e-6 * largest) << test.name << ' ' << test.columns;
    EXPECT_TRUE(h.equal(h.t())) << test.name << ' ' << test.columns;
  }
}

TEST(TransformSymmetric, TheNumberOfThreadsChangesNoBit) {
  std::vector<at::Tensor> results;
  for (const int threads : {1, 2, 3}) {
    ThreadedContext context(threads);
    results.push_back(symmetric(387));
    transform_symmetric(
        results.back(), [](float* row) { std::reverse(row, row + 387); }, context);
  }
  EXPECT_TRUE(results[0].equal(results[1]));
  EXPECT_TRUE(results[0].equal(results[2]));
}

TEST(TransformRows, EachRowIsTransformedOnce) {
  for (const std::int64_t rows : {0, 1, 5, 3000}) {
    at::Tensor matrix = at::zeros({rows, 100}, at::kFloat);
    ThreadedContext context(3);
    transform_rows(
        matrix,
        [](float* row) {
          for (int i = 0; i < 100; ++i) row[i] += 1;
        },
        context);
    EXPECT_TRUE(matrix.eq(1).all().item<bool>()) << rows;
  }
}

TEST(TransformSymmetric, OtherTensorsAreRefused) {
  ThreadedContext context(1);
  const auto nothing = [](float*) {};
  at::Tensor wide = at::zeros({2, 3}, at::kFloat), doubles = at::zeros({2, 2}, at::kDouble), vector = at::zeros({4}, at::kFloat);
  at::Tensor strided = at::zeros({4, 3}, at::kFloat).narrow(1, 0, 2).narrow(0, 0, 2);
  for (at::Tensor* tensor : {&wide, &doubles, &vector, &strided}) EXPECT_THROW(transform_symmetric(*tensor, nothing, context), Error);
}

}  // namespace hadamard_test
