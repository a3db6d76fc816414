#include "reference.h"

#include <expect_error.h>
#include <threaded_context.h>

#include <qmill/numerics/hadamard.h>
#include <qmill/numerics/random.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/eye.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>
#include <set>

using namespace qmill;
using qmill::testing::random_values;
using qmill::testing::ThreadedContext;

namespace {

using Row = std::vector<float>;

double sylvester_sign(std::int64_t r, std::int64_t c) { return std::popcount(static_cast<std::uint64_t>(r & c)) % 2 == 0 ? 1 : -1; }

// X(a) modulo q, by Euler's criterion: a^((q-1)/2).
double character(std::int64_t a, std::int64_t q) {
  a = (a % q + q) % q;
  if (a == 0) return 0;
  std::int64_t power = 1;
  for (std::int64_t i = 0; i < (q - 1) / 2; ++i) power = power * a % q;
  return power == 1 ? 1 : -1;
}

double conference(std::int64_t r, std::int64_t c, std::int64_t q, double corner_sign) {
  if (r == 0) return c == 0 ? 0 : 1;
  return c == 0 ? corner_sign : character(r - c, q);
}

// Orders of the small factor whose Hadamard matrix is Paley's first, or second; all others are Hartley's.
const std::set<std::int64_t> kFirst = {12, 20, 44, 60, 104, 108};
const std::set<std::int64_t> kSecond = {28, 36};

// Element of the small factor, times sqrt(m).
double small_factor(std::int64_t r, std::int64_t c, std::int64_t m) {
  if (m == 1) return 1;
  if (kFirst.contains(m)) return conference(r, c, m - 1, -1) + (r == c ? 1 : 0);
  if (kSecond.contains(m)) {
    constexpr double outer[2][2] = {{1, 1}, {1, -1}}, inner[2][2] = {{1, -1}, {-1, -1}};
    return conference(r / 2, c / 2, m / 2 - 1, 1) * outer[r % 2][c % 2] + (r / 2 == c / 2 ? inner[r % 2][c % 2] : 0);
  }
  const double angle = 2 * std::numbers::pi * static_cast<double>(r * c % m) / static_cast<double>(m);
  return std::cos(angle) + std::sin(angle);
}

// The small factor by rows, so that large transforms are compared in reasonable time.
std::vector<double> small_matrix(std::int64_t m) {
  std::vector<double> values;
  for (std::int64_t r = 0; r < m; ++r)
    for (std::int64_t c = 0; c < m; ++c) values.push_back(small_factor(r, c, m));
  return values;
}

double norm(const Row& row) {
  double sum = 0;
  for (const float value : row) sum += static_cast<double>(value) * value;
  return std::sqrt(sum);
}

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

// Columns, and the order of the small factor.
struct Shape {
  std::int64_t columns, order;
};

const Shape kShapes[] = {{1, 1},     {2, 1},    {3, 3},     {6, 3},      {12, 12},     {24, 12},   {28, 28},
                         {36, 36},   {43, 43},  {56, 28},   {60, 60},    {97, 97},     {104, 104}, {127, 127},
                         {129, 129}, {192, 12}, {251, 251}, {704, 44},   {768, 12},    {1152, 36}, {3072, 12},
                         {3584, 28}, {4096, 1}, {5120, 20}, {11008, 43}, {13824, 108}, {172, 43},  {1021, 1021}};

class Plan : public ::testing::TestWithParam<Shape> {
 protected:
  std::int64_t columns() const { return GetParam().columns; }
  Row values(unsigned seed) const { return random_values(static_cast<std::size_t>(columns()), seed); }
  HadamardPlan plan_ = HadamardPlan::for_columns(GetParam().columns);
};

TEST_P(Plan, TheSmallFactorHasTheExpectedOrder) {
  EXPECT_TRUE(HadamardPlan::exists(columns()));
  EXPECT_EQ(plan_.columns(), columns());
  EXPECT_EQ(plan_.order(), GetParam().order);
}

TEST_P(Plan, TheRowIsMultipliedByTheKroneckerProduct) {
  const std::int64_t m = plan_.order(), run = columns() / m;
  const std::vector<double> small = small_matrix(m);
  const Row x = values(4);
  Row found = x, transposed = x;
  plan_.apply(found.data());
  plan_.apply_transposed(transposed.data());
  const std::int64_t step = std::max<std::int64_t>(1, columns() / 500) | 1;  // odd: of the large ones, every residue
  for (std::int64_t r = 0; r < columns(); r += step) {
    double sum = 0, transposed_sum = 0;
    for (std::int64_t c = 0; c < columns(); ++c) {
      const double value = sylvester_sign(r % run, c % run) * x[static_cast<std::size_t>(c)];
      sum += small[static_cast<std::size_t>(r / run * m + c / run)] * value;
      transposed_sum += small[static_cast<std::size_t>(c / run * m + r / run)] * value;
    }
    const double root = std::sqrt(static_cast<double>(columns()));
    ASSERT_NEAR(found[static_cast<std::size_t>(r)], sum / root, 1e-5) << r;
    ASSERT_NEAR(transposed[static_cast<std::size_t>(r)], transposed_sum / root, 1e-5) << r;
  }
}

TEST_P(Plan, TheTransposeTakesItBackAndLengthsStay) {
  const Row x = values(5);
  Row row = x;
  plan_.apply(row.data());
  EXPECT_NEAR(norm(row), norm(x), 1e-5 * norm(x));
  plan_.apply_transposed(row.data());
  expect_near(row, x, 2e-5);
  plan_.apply_transposed(row.data());
  plan_.apply(row.data());
  expect_near(row, x, 4e-5);
}

TEST_P(Plan, SignsComeFirstInTheRandomizedTransform) {
  const RandomHadamard random(6, columns());
  EXPECT_EQ(random.signs(), random_signs(6, columns()));
  const Row x = values(6);
  Row expected = x;
  for (std::size_t i = 0; i < x.size(); ++i) expected[i] *= random.signs()[i];
  plan_.apply(expected.data());
  Row found = x;
  random.apply(found.data());
  EXPECT_EQ(found, expected);
  random.apply_transposed(found.data());
  expect_near(found, x, 2e-5);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Plan, ::testing::ValuesIn(kShapes), [](const auto& test) { return std::to_string(test.param.columns); });

TEST(HadamardPlan, EveryLengthWithASmallOddPartHasOne) {
  for (std::int64_t columns = 1; columns <= 1024; ++columns) ASSERT_TRUE(HadamardPlan::exists(columns)) << columns;
  EXPECT_FALSE(HadamardPlan::exists(0));
  EXPECT_FALSE(HadamardPlan::exists(-4));
}

TEST(HadamardPlan, SmallMatricesAreOrthogonalAndAsFlatAsTheySay) {
  for (const std::int64_t columns : {1, 2, 3, 6, 8, 12, 24, 28, 36, 43, 60, 97, 127, 172, 192, 251}) {
    const HadamardPlan plan = HadamardPlan::for_columns(columns);
    const double flat = 1 / std::sqrt(static_cast<double>(columns));
    std::vector<Row> images;
    bool is_flat = true;
    for (std::int64_t c = 0; c < columns; ++c) {
      images.push_back(unit(columns, c));
      plan.apply(images.back().data());
      for (const float value : images.back()) {
        is_flat = is_flat && std::fabs(std::fabs(value) - flat) < 1e-6;
        ASSERT_LT(std::fabs(value), 1.4143 * flat) << columns;
      }
    }
    EXPECT_EQ(plan.is_flat(), is_flat) << columns;
    for (std::size_t i = 0; i < images.size(); ++i)
      for (std::size_t j = 0; j <= i; ++j) {
        double product = 0;
        for (std::size_t c = 0; c < images.size(); ++c) product += static_cast<double>(images[i][c]) * images[j][c];
        ASSERT_NEAR(product, i == j ? 1 : 0, 2e-6) << columns << ": " << i << ' ' << j;
      }
  }
}

TEST(HadamardPlan, EveryFlatOneIsOrthogonal) {
  for (std::int64_t columns = 4; columns <= 256; columns += 4) {
    const HadamardPlan plan = HadamardPlan::for_columns(columns);
    if (!plan.is_flat()) continue;
    for (std::int64_t c = 0; c < columns; ++c) {
      Row row = unit(columns, c);
      plan.apply(row.data());
      plan.apply_transposed(row.data());
      expect_near(row, unit(columns, c), 1e-5);
    }
  }
}

TEST(HadamardPlan, AnOddPartThatIsTooLargeIsRefusedByItsNumber) {
  for (const std::int64_t columns : {1031, 2062, 1025 * 64}) {
    EXPECT_FALSE(HadamardPlan::exists(columns));
    qmill::testing::expect_error(ErrorKind::unsupported, {std::to_string(columns)}, [&] { HadamardPlan::for_columns(columns); });
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
  for (const Shape& shape : kShapes) {
    const HadamardPlan plan = HadamardPlan::for_columns(shape.columns);
    Row row = random_values(static_cast<std::size_t>(shape.columns), 8);
    plan.apply(row.data());
    add(row);
    plan.apply_transposed(row.data());
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

TEST(RandomOrthogonal, ItIsTheOrthogonalFactorOfTheNormalsWithAPositiveDiagonal) {
  for (const std::int64_t n : {1, 2, 3, 17, 64, 129}) {
    const at::Tensor q = random_orthogonal(3, n).to(at::kDouble);
    EXPECT_LT((q.t().mm(q) - at::eye(n, at::kDouble)).abs().max().item<double>(), 1e-5) << n;
    at::Tensor normals = at::empty({n, n}, at::kFloat);
    normal_values(3, n * n, normals.mutable_data_ptr<float>());
    const at::Tensor r = q.t().mm(normals.to(at::kDouble));
    EXPECT_LT(r.tril(-1).abs().max().item<double>(), 1e-4) << n;
    EXPECT_GT(r.diagonal().min().item<double>(), 0) << n;
  }
}

TEST(RandomOrthogonal, SeedsDecideAndTheNumberOfThreadsDoesNot) {
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor alone = random_orthogonal(4, 300);
  at::set_num_threads(3);
  const at::Tensor together = random_orthogonal(4, 300);
  EXPECT_EQ(at::get_num_threads(), 3);
  at::set_num_threads(before);
  EXPECT_TRUE(alone.equal(together));
  EXPECT_FALSE(alone.equal(random_orthogonal(5, 300)));
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
  for (const std::int64_t columns : {1, 2, 31, 33, 192, 260, 387})
    cases.push_back({"plan", columns, [plan = HadamardPlan::for_columns(columns)](float* row) { plan.apply(row); }});
  cases.push_back({"random", 129, [random = RandomHadamard(1, 129)](float* row) { random.apply(row); }});
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
  const HadamardPlan plan = HadamardPlan::for_columns(387);
  std::vector<at::Tensor> results;
  for (const int threads : {1, 2, 3}) {
    ThreadedContext context(threads);
    results.push_back(symmetric(387));
    transform_symmetric(
        results.back(), [&](float* row) { plan.apply(row); }, context);
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

}  // namespace
