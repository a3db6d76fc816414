#include <qmill/numerics/random.h>

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <string_view>

using namespace qmill;

namespace random_test {

// SplitMix64 as published, started where the header says: FNV-1a of the purpose and the seed.
class SplitMix64 {
 public:
  SplitMix64(std::uint64_t seed, std::string_view purpose) : state_(fnv(purpose) + (seed - 1) * kStep) {
    state_ = fnv("") + (next() - 1) * kStep;
  }
  std::uint64_t next() {
    std::uint64_t z = (state_ += kStep);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

 private:
  static constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15u;
  static std::uint64_t fnv(std::string_view text) {
    std::uint64_t hash = 0xcbf29ce484222325u;
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return hash;
  }
  std::uint64_t state_;
};

std::vector<float> normals(std::uint64_t seed, std::int64_t n, std::int64_t first = 0) {
  std::vector<float> values(static_cast<std::size_t>(n) + 1, 77.0f);
  normal_values(seed, n, values.data(), first);
  EXPECT_EQ(values.back(), 77.0f);  // nothing behind is written
  values.pop_back();
  return values;
}

TEST(RandomSigns, TheyAreTheBitsOfSplitMix64) {
  for (const std::uint64_t seed : {0u, 1u, 12345u}) {
    SplitMix64 words(seed, "random_signs");
    const std::vector<float> signs = random_signs(seed, 200);
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < signs.size(); ++i) {
      if (i % 64 == 0) word = words.next();
      ASSERT_EQ(signs[i], (word >> (i % 64) & 1) != 0 ? -1.0f : 1.0f) << seed << ' ' << i;
    }
  }
}

TEST(RandomSigns, ALongerCallBeginsLikeAShorterOneAndSeedsDiffer) {
  const std::vector<float> longer = random_signs(7, 300);
  for (const std::int64_t n : {0, 1, 63, 64, 65, 299})
    EXPECT_EQ(random_signs(7, n), std::vector<float>(longer.begin(), longer.begin() + n)) << n;
  EXPECT_NE(random_signs(8, 300), longer);
}

TEST(RandomSigns, BothSignsAreEquallyLikely) {
  double sum = 0;
  for (const float sign : random_signs(3, 100000)) sum += sign;
  EXPECT_LT(std::fabs(sum), 5 * std::sqrt(100000.0));
}

TEST(NormalValues, TheyAreBoxAndMullersOfSplitMix64) {
  SplitMix64 words(5, "normal_values");
  const std::vector<float> values = normals(5, 20000);
  for (std::size_t i = 0; i < values.size(); i += 2) {
    const double u = static_cast<double>((words.next() >> 11) + 1) * 0x1p-53;
    const double turns = static_cast<double>(words.next() >> 11) * 0x1p-53;
    const double radius = std::sqrt(-2 * std::log(u)), angle = 2 * std::numbers::pi * turns;
    const double tolerance = 6e-8 * radius + 1e-14;  // half a unit of F32, and what the angle's own rounding leaves
    ASSERT_NEAR(values[i], radius * std::cos(angle), tolerance) << i;
    ASSERT_NEAR(values[i + 1], radius * std::sin(angle), tolerance) << i;
  }
}

TEST(NormalValues, TheyDoNotDependOnWhereACallBegins) {
  const std::vector<float> all = normals(9, 50);
  for (std::int64_t first = 0; first < 6; ++first)
    for (std::int64_t n = 0; n < 40; ++n)
      ASSERT_EQ(normals(9, n, first), std::vector<float>(all.begin() + first, all.begin() + first + n)) << first << ' ' << n;
  EXPECT_NE(normals(10, 50), all);
}

TEST(NormalValues, TheirMomentsAreThoseOfTheStandardNormal) {
  const std::int64_t n = 400000;
  double moments[5] = {};
  for (const float value : normals(11, n))
    for (int power = 1; power <= 4; ++power) moments[power] += std::pow(value, power) / static_cast<double>(n);
  const double error = 5 / std::sqrt(static_cast<double>(n));  // five deviations, times the root of each power's variance
  EXPECT_NEAR(moments[1], 0, error);
  EXPECT_NEAR(moments[2], 1, error * std::sqrt(2));
  EXPECT_NEAR(moments[3], 0, error * std::sqrt(15));
  EXPECT_NEAR(moments[4], 3, error * std::sqrt(96));
}

TEST(NormalValues, NeighbouringSeedsAreIndependent) {
  const std::int64_t n = 100000;
  const std::vector<float> a = normals(20, n), b = normals(21, n);
  for (const std::size_t shift : {0, 1, 2, 3}) {
    double sum = 0;
    for (std::size_t i = 0; i + shift < a.size(); ++i) sum += static_cast<double>(a[i + shift]) * b[i];
    EXPECT_LT(std::fabs(sum), 5 * std::sqrt(static_cast<double>(n))) << shift;
  }
}

}  // namespace random_test
