#include <expect_error.h>
#include <threaded_context.h>

#include <qmill/numerics/low_rank.h>
#include <qmill/numerics/random.h>

#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

using namespace qmill;
using qmill::testing::expect_error;
using qmill::testing::ThreadedContext;

namespace low_rank_test {

at::Tensor normal_matrix(std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  at::Tensor matrix = at::empty({rows, columns}, at::kFloat);
  normal_values(seed, rows * columns, matrix.mutable_data_ptr<float>());
  return matrix;
}

// A matrix with singular values spectrum(0), spectrum(1), ...
at::Tensor with_spectrum(std::int64_t rows, std::int64_t columns, const std::function<double(double)>& spectrum) {
  const std::int64_t n = std::min(rows, columns);
  const auto basis = [](const at::Tensor& m) { return std::get<0>(at::linalg_qr(m.to(at::kDouble))); };
  at::Tensor values = at::empty({n}, at::kDouble);
  for (std::int64_t i = 0; i < n; ++i) values.mutable_data_ptr<double>()[i] = spectrum(static_cast<double>(i));
  const at::Tensor u = basis(normal_matrix(rows, n, 101)), v = basis(normal_matrix(columns, n, 102));
  return (u * values).mm(v.t()).to(at::kFloat).contiguous();
}

LowRank decompose(const at::Tensor& weight, std::int64_t k, int threads = 2, std::uint64_t seed = 1) {
  ThreadedContext context(threads);
  return low_rank_svd(weight, k, seed, context);
}

at::Tensor singular_values(const at::Tensor& weight) { return std::get<1>(at::linalg_svd(weight.to(at::kDouble), false)); }

double energy(const at::Tensor& values) { return values.to(at::kDouble).square().sum().item<double>(); }

void expect_orthonormal(const at::Tensor& columns) {
  const at::Tensor q = columns.to(at::kDouble);
  EXPECT_FALSE((q.t().mm(q) - at::eye(q.size(1), at::kDouble)).abs().gt(1e-5).any().item<bool>());
}

void expect_sound(const LowRank& found, const at::Tensor& weight, std::int64_t k) {
  EXPECT_EQ(found.u.sizes(), (std::vector<std::int64_t>{weight.size(0), k}));
  EXPECT_EQ(found.s.sizes(), (std::vector<std::int64_t>{k}));
  EXPECT_EQ(found.v.sizes(), (std::vector<std::int64_t>{weight.size(1), k}));
  for (const at::Tensor& tensor : {found.u, found.s, found.v}) {
    EXPECT_EQ(tensor.scalar_type(), at::kFloat);
    EXPECT_TRUE(tensor.is_contiguous());
  }
  expect_orthonormal(found.u);
  expect_orthonormal(found.v);
  const auto* s = found.s.const_data_ptr<float>();
  for (std::int64_t i = 0; i < k; ++i) {
    ASSERT_GE(s[i], 0) << i;
    ASSERT_LE(s[i], s[std::max<std::int64_t>(i, 1) - 1]) << i;
  }
}

// Energy of the weight outside the directions v, as a multiple of what the best k directions leave.
double excess(const at::Tensor& weight, const LowRank& found, std::int64_t k) {
  const at::Tensor w = weight.to(at::kDouble), v = found.v.to(at::kDouble), exact = singular_values(weight);
  return energy(w - w.mm(v).mm(v.t())) / energy(exact.narrow(0, k, exact.size(0) - k));
}

struct Spectrum {
  const char* name;
  std::function<double(double)> value;
  double largest_excess;
};

class Spectra : public ::testing::TestWithParam<Spectrum> {};

TEST_P(Spectra, TheEnergyLeftIsNearlyTheLeastPossible) {
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{300, 200}, {200, 500}}) {
    const at::Tensor weight = with_spectrum(rows, columns, GetParam().value);
    const LowRank found = decompose(weight, 40);
    expect_sound(found, weight, 40);
    EXPECT_LT(excess(weight, found, 40), GetParam().largest_excess) << rows;
    // The decomposition is the weight's own in these directions: u diag(s) = W v.
    const at::Tensor image = weight.to(at::kDouble).mm(found.v.to(at::kDouble));
    const double scale = singular_values(weight)[0].item<double>();
    EXPECT_LT((image - found.u.to(at::kDouble) * found.s.to(at::kDouble)).norm().item<double>(),
              0.3 * std::sqrt(energy(singular_values(weight).narrow(0, 40, 160))) + 1e-5 * scale);
    const at::Tensor exact = singular_values(weight).narrow(0, 0, 40);
    EXPECT_LT(((found.s.to(at::kDouble) - exact).abs() / scale).max().item<double>(), 0.01);
    EXPECT_NEAR(found.s[0].item<double>(), exact[0].item<double>(), 1e-4 * exact[0].item<double>());
  }
}

INSTANTIATE_TEST_SUITE_P(Decays, Spectra,
                         ::testing::Values(Spectrum{"Harmonic", [](double i) { return 1 / (1 + i); }, 1.005},
                                           Spectrum{"Root", [](double i) { return 1 / std::sqrt(1 + i); }, 1.02},
                                           Spectrum{"Geometric", [](double i) { return std::pow(0.9, i); }, 1.001},
                                           Spectrum{"Step", [](double i) { return i < 40 ? 3.0 : 0.01; }, 1.0001},
                                           Spectrum{"LargeAndFlat", [](double i) { return i < 3 ? 500.0 : 1.0; }, 1.0001}),
                         [](const auto& test) { return test.param.name; });

TEST(LowRankSvd, AGaussianMatrixKeepsMostOfItsLargestEnergy) {
  for (const auto& [k, share] : {std::pair<std::int64_t, double>{10, 0.86}, {100, 0.93}, {200, 0.96}}) {
    const at::Tensor weight = normal_matrix(512, 640, 7);
    const LowRank found = decompose(weight, k);
    expect_sound(found, weight, k);
    const double best = energy(singular_values(weight).narrow(0, 0, k));
    EXPECT_GT(energy(found.s), share * best) << k;
    EXPECT_LT(energy(found.s), best * (1 + 1e-5)) << k;
  }
}

TEST(LowRankSvd, MorePowerIterationsComeNearerToTheWholeDecomposition) {
  const at::Tensor weight = normal_matrix(400, 300, 8);
  double before = 0;
  for (const int iterations : {0, 1, 2, 4}) {
    ThreadedContext context(2);
    const double captured = energy(low_rank_svd(weight, 60, 1, context, iterations).s);
    EXPECT_GT(captured, before) << iterations;
    before = captured;
  }
  ThreadedContext context(2);
  const double best = energy(singular_values(weight).narrow(0, 0, 60));
  EXPECT_NEAR(energy(low_rank_svd(weight, 60, 1, context, 40).s), best, 0.002 * best);
}

TEST(LowRankSvd, TheNumberOfThreadsChangesNoBit) {
  const at::Tensor weight = normal_matrix(1000, 450, 9);
  const LowRank one = decompose(weight, 100, 1);
  for (const int threads : {2, 3}) {
    const LowRank more = decompose(weight, 100, threads);
    EXPECT_TRUE(one.u.equal(more.u)) << threads;
    EXPECT_TRUE(one.s.equal(more.s)) << threads;
    EXPECT_TRUE(one.v.equal(more.v)) << threads;
  }
  qmill::testing::TestContext backwards({}, {});
  EXPECT_TRUE(one.u.equal(low_rank_svd(weight, 100, 1, backwards).u));
  EXPECT_FALSE(one.u.equal(decompose(weight, 100, 1, 2).u));  // another seed
}

TEST(LowRankSvd, RanksNearTheFullOneGiveTheWholeDecomposition) {
  const at::Tensor weight = normal_matrix(40, 30, 10);
  for (const std::int64_t k : {20, 29, 30, 31, 1000}) {
    const std::int64_t kept = std::min<std::int64_t>(k, 30);
    const LowRank found = decompose(weight, k);
    expect_sound(found, weight, kept);
    const at::Tensor exact = singular_values(weight).narrow(0, 0, kept);
    EXPECT_LT((found.s.to(at::kDouble) - exact).abs().max().item<double>(), 1e-5 * exact[0].item<double>());
    EXPECT_TRUE(found.u.equal(full_svd(weight, k).u));
  }
  const LowRank whole = full_svd(weight, 30);
  const at::Tensor back = (whole.u * whole.s).to(at::kDouble).mm(whole.v.t().to(at::kDouble));
  EXPECT_LT((back - weight.to(at::kDouble)).abs().max().item<double>(), 2e-5);
}

TEST(LowRankSvd, ASmallRankIsFoundWholeAndTheRestIsZero) {
  const at::Tensor weight = with_spectrum(150, 220, [](double i) { return i < 5 ? 5 - i : 0; });
  const LowRank found = decompose(weight, 20);
  expect_sound(found, weight, 20);
  const auto* s = found.s.const_data_ptr<float>();
  for (int i = 0; i < 20; ++i) EXPECT_NEAR(s[i], i < 5 ? 5 - i : 0, 2e-5) << i;
}

TEST(LowRankSvd, ZerosAndSingleRowsHaveOrthonormalDirectionsToo) {
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{100, 80}, {1, 50}, {50, 1}, {1, 1}}) {
    const at::Tensor weight = at::zeros({rows, columns}, at::kFloat);
    const std::int64_t k = std::min<std::int64_t>({20, rows, columns});
    const LowRank found = decompose(weight, k);
    expect_sound(found, weight, k);
    EXPECT_EQ(energy(found.s), 0);
  }
  const at::Tensor row = normal_matrix(1, 50, 11);
  EXPECT_NEAR(decompose(row, 1).s[0].item<double>(), std::sqrt(energy(row)), 1e-5);
}

TEST(LowRankSvd, EmptyWeightsHaveNoDirections) {
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{0, 5}, {5, 0}})
    expect_sound(decompose(at::zeros({rows, columns}, at::kFloat), 3), at::zeros({rows, columns}, at::kFloat), 0);
}

TEST(LowRankSvd, ThePowerOfTwoOfAWeightIsThatOfItsSingularValues) {
  const at::Tensor weight = normal_matrix(90, 70, 12);
  const LowRank plain = decompose(weight, 20);
  for (const double exponent : {-110.0, 110.0}) {
    const LowRank found = decompose(weight * std::exp2(exponent), 20);
    expect_sound(found, weight, 20);
    const at::Tensor ratio = found.s.to(at::kDouble) / plain.s.to(at::kDouble) / std::exp2(exponent);
    EXPECT_LT((ratio - 1).abs().max().item<double>(), 1e-4) << exponent;
  }
}

TEST(LowRankSvd, ValuesThatAreNotFiniteAreErrors) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (const std::int64_t k : {5, 60}) {
      at::Tensor weight = normal_matrix(60, 70, 13);
      weight.mutable_data_ptr<float>()[4199] = bad;
      expect_error(ErrorKind::numeric, {"finite"}, [&] { decompose(weight, k); });
      expect_error(ErrorKind::numeric, {"finite"}, [&] { full_svd(weight, k); });
    }
  const at::Tensor huge = at::zeros({40, 40}, at::kFloat).fill_(std::numeric_limits<float>::max());
  expect_error(ErrorKind::numeric, {"beyond the range of F32"}, [&] { decompose(huge, 5); });
}

TEST(LowRankSvd, NonsenseIsRefused) {
  const at::Tensor weight = normal_matrix(40, 50, 14);
  ThreadedContext context(1);
  expect_error(ErrorKind::usage, {"rank of 0"}, [&] { low_rank_svd(weight, 0, 1, context); });
  expect_error(ErrorKind::usage, {"rank of -1"}, [&] { full_svd(weight, -1); });
  expect_error(ErrorKind::usage, {"-1 power iterations"}, [&] { low_rank_svd(weight, 5, 1, context, -1); });
  EXPECT_THROW(full_svd(weight.to(at::kDouble), 5), Error);
  EXPECT_THROW(full_svd(weight.t(), 5), Error);
}

TEST(LowRankSvd, AnInterruptionIsSeen) {
  qmill::testing::TestContext context({}, {});
  context.cancelled = true;
  expect_error(ErrorKind::cancelled, {"interrupted"}, [&] { low_rank_svd(normal_matrix(100, 100, 15), 5, 1, context); });
}

}  // namespace low_rank_test
