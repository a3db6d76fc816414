#include "reference.h"

#include <qmill/error.h>
#include <qmill/numerics/row_kernels.h>
#include <qmill/tensor.h>

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <set>

using namespace qmill;
using qmill::testing::hadamard_sign;
using qmill::testing::random_values;
using qmill::testing::rotate_by_butterflies;

namespace row_kernels_test {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::int64_t kLongestTail = 70;  // more than two vectors of every processor

std::vector<float> read_as_f32(const at::Tensor& source, std::int64_t first, std::int64_t n) {
  // One value more, which must stay as it is.
  std::vector<float> out(static_cast<std::size_t>(n) + 1, -12345.0f);
  const auto* bytes = static_cast<const std::byte*>(source.const_data_ptr());
  load_f32(bytes + first * source.element_size(), dtype_of(source), n, out.data());
  EXPECT_EQ(out.back(), -12345.0f);
  out.pop_back();
  return out;
}

void expect_same_numbers(const std::vector<float>& found, const at::Tensor& expected, std::int64_t first) {
  const float* values = expected.const_data_ptr<float>() + first;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(values[i]))
      EXPECT_TRUE(std::isnan(found[i])) << i;
    else
      ASSERT_EQ(std::memcmp(&found[i], &values[i], sizeof(float)), 0) << i << ": " << found[i] << " expected " << values[i];
  }
}

// Every bit pattern of a type of one or two bytes.
at::Tensor all_patterns(at::ScalarType dtype) {
  const std::int64_t bytes = static_cast<std::int64_t>(c10::elementSize(dtype));
  const std::int64_t count = bytes == 1 ? 256 : 65536;
  at::Tensor tensor = at::empty({count}, dtype);
  auto* out = static_cast<unsigned char*>(tensor.data_ptr());
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t b = 0; b < bytes; ++b) *out++ = static_cast<unsigned char>(i >> (8 * b));
  return tensor;
}

at::Tensor special_doubles() {
  std::vector<double> values = {0.0,
                                -0.0,
                                1e-310,
                                1e-45,
                                7e-46,
                                1.4e-45,
                                3.4028235677973366e38,
                                3.4028235e38,
                                1e300,
                                -1e300,
                                1.0 + 0x1p-24,
                                1.0 + 0x1.8p-23,
                                std::numeric_limits<double>::infinity(),
                                std::numeric_limits<double>::quiet_NaN()};
  for (const float value : random_values(115, 7)) values.push_back(value / 3.0);
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, at::kDouble);
  std::memcpy(tensor.data_ptr(), values.data(), values.size() * sizeof(double));
  return tensor;
}

class LoadF32 : public ::testing::TestWithParam<at::ScalarType> {};

at::Tensor samples(at::ScalarType dtype) {
  if (dtype == at::kDouble) return special_doubles();
  if (dtype == at::kFloat) return special_doubles().to(at::kFloat);
  return all_patterns(dtype);
}

TEST_P(LoadF32, EveryValueIsWhatLibTorchCastsItTo) {
  const at::Tensor source = samples(GetParam());
  expect_same_numbers(read_as_f32(source, 0, source.numel()), source.to(at::kFloat), 0);
}

TEST_P(LoadF32, EveryTailIsReadAndNothingBehindItIsWritten) {
  const at::Tensor source = samples(GetParam());
  const at::Tensor expected = source.to(at::kFloat);
  for (std::int64_t n = 0; n <= kLongestTail; ++n) expect_same_numbers(read_as_f32(source, 3, n), expected, 3);
}

INSTANTIATE_TEST_SUITE_P(FloatingTypes, LoadF32,
                         ::testing::Values(at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kFloat8_e4m3fn, at::kFloat8_e5m2),
                         [](const auto& test) { return std::string(c10::toString(test.param)); });

TEST(RowKernels, IntegersCannotBeReadAsRealNumbers) {
  const std::int8_t codes[1] = {};
  float out[1];
  EXPECT_THROW(load_f32(codes, DType::i8, 1, out), Error);
}

class RotateGroups : public ::testing::TestWithParam<std::int64_t> {
 protected:
  std::int64_t group() const { return GetParam(); }
  std::size_t size() const { return static_cast<std::size_t>(GetParam()); }

  // Row r of the matrix, times sqrt(group): what the kernel makes of the unit vector r.
  std::vector<float> row(std::int64_t r) const {
    std::vector<float> unit(size());
    unit[static_cast<std::size_t>(r)] = std::sqrt(static_cast<float>(group()));
    rotate_groups(unit.data(), group(), group());
    return unit;
  }
};

TEST_P(RotateGroups, TheKernelMultipliesByTheKroneckerPowerOfH4) {
  const std::vector<float> values = random_values(3 * size(), 11);
  std::vector<float> rotated = values;
  rotate_groups(rotated.data(), 3 * group(), group());
  double stages = 0;
  for (std::int64_t g = group(); g > 1; g /= 4) ++stages;
  for (std::size_t i = 0; i < rotated.size(); ++i) {
    const std::size_t first = i / size() * size();
    double sum = 0, magnitudes = 0;
    for (std::size_t c = 0; c < size(); ++c) {
      const double value = values[first + c];
      sum += hadamard_sign(static_cast<std::int64_t>(i - first), static_cast<std::int64_t>(c), group()) * value;
      magnitudes += std::fabs(value);
    }
    const double root = std::sqrt(static_cast<double>(group()));
    // Two roundings per stage.
    ASSERT_NEAR(rotated[i], sum / root, 2 * stages * 0x1p-24 * magnitudes / root) << i;
  }
}

TEST_P(RotateGroups, TheBytesAreThoseOfTheDocumentedButterflies) {
  std::vector<float> rotated = random_values(3 * size(), 12);
  std::vector<float> expected = rotated;
  rotate_groups(rotated.data(), 3 * group(), group());
  rotate_by_butterflies(expected, group());
  EXPECT_EQ(std::memcmp(rotated.data(), expected.data(), rotated.size() * sizeof(float)), 0);
}

TEST_P(RotateGroups, PointersNeedNoAlignmentAndNeighboursStayAsTheyAre) {
  std::vector<float> values = random_values(size() + 2, 13);
  const std::vector<float> before = values;
  std::vector<float> expected(before.begin() + 1, before.end() - 1);
  rotate_groups(values.data() + 1, group(), group());
  rotate_by_butterflies(expected, group());
  EXPECT_EQ(values.front(), before.front());
  EXPECT_EQ(values.back(), before.back());
  EXPECT_EQ(std::memcmp(values.data() + 1, expected.data(), expected.size() * sizeof(float)), 0);
}

TEST_P(RotateGroups, TheMatrixIsSymmetricAndItsRowsSumToOne) {
  std::vector<std::vector<float>> rows;
  for (std::int64_t r = 0; r < group(); ++r) rows.push_back(row(r));
  for (std::size_t r = 0; r < size(); ++r) {
    float sum = 0;
    for (std::size_t c = 0; c < size(); ++c) {
      ASSERT_EQ(rows[r][c], rows[c][r]);
      ASSERT_EQ(std::fabs(rows[r][c]), 1.0f);
      sum += rows[r][c];
    }
    ASSERT_EQ(sum, std::sqrt(static_cast<float>(group())));
  }
}

TEST_P(RotateGroups, RotatingTwiceGivesTheValuesBack) {
  const std::vector<float> values = random_values(size(), 14);
  std::vector<float> twice = values;
  rotate_groups(twice.data(), group(), group());
  EXPECT_NE(twice, values);
  rotate_groups(twice.data(), group(), group());
  for (std::size_t i = 0; i < size(); ++i) EXPECT_NEAR(twice[i], values[i], 1e-5);
}

TEST_P(RotateGroups, AConstantGroupStaysAsItIs) {
  std::vector<float> values(size(), 0.75f);
  rotate_groups(values.data(), group(), group());
  EXPECT_EQ(values, std::vector<float>(size(), 0.75f));
}

INSTANTIATE_TEST_SUITE_P(Groups, RotateGroups, ::testing::Values(4, 16, 64, 256, 1024), ::testing::PrintToStringParamName());

std::string kernel_signs(std::int64_t group, std::int64_t row) {
  std::vector<float> unit(static_cast<std::size_t>(group));
  unit[static_cast<std::size_t>(row)] = 1;
  rotate_groups(unit.data(), group, group);
  std::string signs;
  for (const float value : unit) signs += value > 0 ? '+' : '-';
  return signs;
}

TEST(Rotation, TheMatricesHaveTheKnownNumberOfPlusSigns) {
  for (const auto& [group, expected] : {std::pair<std::int64_t, std::int64_t>{4, 12}, {16, 160}, {64, 2304}, {256, 34816}}) {
    std::int64_t plus = 0;
    for (std::int64_t row = 0; row < group; ++row) {
      const std::string signs = kernel_signs(group, row);
      plus += std::count(signs.begin(), signs.end(), '+');
    }
    EXPECT_EQ(plus, expected) << group;
  }
}

TEST(Rotation, KnownRowsHaveTheirSigns) {
  EXPECT_EQ(kernel_signs(16, 0), "+++-+++-+++----+");
  EXPECT_EQ(kernel_signs(256, 5).substr(0, 32), "++-+++-+--+-++-+++-+++-+--+-++-+");
}

TEST(Rotation, TheWorkedExampleSpreadsOneValueOverItsGroup) {
  std::array<float, 4> values = {1.27f, 0, 0, 0};
  rotate_groups(values.data(), 4, 4);
  EXPECT_EQ(values, (std::array<float, 4>{0.635f, 0.635f, 0.635f, -0.635f}));
  std::array<std::int8_t, 4> codes{};
  round_codes(values.data(), 4, largest_magnitude(values.data(), 4) / 127, -127, 127, codes.data());
  EXPECT_EQ(codes, (std::array<std::int8_t, 4>{127, 127, 127, -127}));
}

TEST(LargestMagnitude, ItIsFoundAtEveryPlaceOfEveryLength) {
  for (std::int64_t n = 1; n <= kLongestTail; ++n)
    for (std::int64_t place = 0; place < n; ++place) {
      std::vector<float> values = random_values(static_cast<std::size_t>(n), 21);
      values[static_cast<std::size_t>(place)] = -100;
      ASSERT_EQ(largest_magnitude(values.data(), n), 100) << n << ' ' << place;
    }
}

TEST(LargestMagnitude, NoValuesAndZerosOfBothSignsGiveZero) {
  const float zeros[5] = {0.0f, -0.0f, -0.0f, 0.0f, -0.0f};
  EXPECT_EQ(largest_magnitude(zeros, 0), 0);
  EXPECT_EQ(largest_magnitude(zeros, 5), 0);
  EXPECT_FALSE(std::signbit(largest_magnitude(zeros, 5)));
}

TEST(LargestMagnitude, ItIsNotFiniteWhereverAValueIsNot) {
  for (const float bad : {kNan, -kNan, kInfinity, -kInfinity})
    for (std::size_t place = 0; place < 70; ++place) {
      std::vector<float> values(70, std::numeric_limits<float>::max());
      values[place] = bad;
      ASSERT_FALSE(std::isfinite(largest_magnitude(values.data(), 70))) << bad << ' ' << place;
    }
}

std::vector<std::int8_t> rounded(const std::vector<float>& values, float scale, int lowest, int highest) {
  std::vector<std::int8_t> codes(values.size() + 1, 99);
  round_codes(values.data(), static_cast<std::int64_t>(values.size()), scale, lowest, highest, codes.data());
  EXPECT_EQ(codes.back(), 99);
  codes.pop_back();
  return codes;
}

TEST(RoundCodes, EveryTailIsDividedRoundedAndClamped) {
  const float scale = 0.013f;
  for (std::size_t n = 0; n <= kLongestTail; ++n) {
    const std::vector<float> values = random_values(n, 31);
    const std::vector<std::int8_t> codes = rounded(values, scale, -127, 127);
    for (std::size_t i = 0; i < n; ++i)
      ASSERT_EQ(codes[i], std::clamp(std::nearbyint(values[i] / scale), -127.0f, 127.0f)) << n << ' ' << i;
  }
}

TEST(RoundCodes, TiesGoToTheEvenCode) {
  std::vector<float> values;
  for (int i = -126; i < 126; ++i) values.push_back((static_cast<float>(i) + 0.5f) * 0.25f);
  const std::vector<std::int8_t> codes = rounded(values, 0.25f, -127, 127);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    EXPECT_EQ(codes[i] % 2, 0);
    EXPECT_EQ(std::fabs(static_cast<float>(codes[i]) - values[i] / 0.25f), 0.5f);
  }
}

TEST(RoundCodes, CodesStayWithinTheirBoundsWhateverTheValue) {
  const std::vector<float> values = {kInfinity, -kInfinity, 1e38f, -1e38f, 7.6f, -7.6f, kNan, 8};
  const std::vector<std::int8_t> codes = rounded(values, 1, -7, 7);
  for (const std::int8_t code : codes) EXPECT_TRUE(code >= -7 && code <= 7) << static_cast<int>(code);
  EXPECT_EQ((std::vector<std::int8_t>(codes.begin(), codes.begin() + 6)), (std::vector<std::int8_t>{7, -7, 7, -7, 7, -7}));
  EXPECT_EQ(codes[7], 7);
}

TEST(ScaleCodes, EveryCodeOfEveryTailIsMultiplied) {
  for (std::int64_t n = 0; n <= kLongestTail; ++n)
    for (const int first : {-128, -35, 58}) {
      std::vector<std::int8_t> codes;
      for (int i = 0; i < n; ++i) codes.push_back(static_cast<std::int8_t>(first + i));
      std::vector<float> out(codes.size() + 1, 5.0f);
      scale_codes(codes.data(), n, 0.37f, out.data());
      ASSERT_EQ(out.back(), 5.0f);
      for (std::size_t i = 0; i < codes.size(); ++i) ASSERT_EQ(out[i], static_cast<float>(codes[i]) * 0.37f);
    }
}

void expect_sums_of_doubles(const std::vector<float>& original, const std::vector<float>& decoded) {
  const std::size_t n = original.size();
  double squared_error = 0, squared_signal = 0, largest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double error = static_cast<double>(original[i]) - static_cast<double>(decoded[i]);
    squared_error += error * error;
    squared_signal += static_cast<double>(original[i]) * original[i];
    largest = std::max(largest, std::fabs(error));
  }
  ErrorSums sums;
  add_errors(original.data(), decoded.data(), static_cast<std::int64_t>(n), sums);
  EXPECT_NEAR(sums.squared_error, squared_error, 1e-5 * squared_error) << n;
  EXPECT_NEAR(sums.squared_signal, squared_signal, 1e-5 * squared_signal) << n;
  EXPECT_NEAR(sums.largest_error, largest, 1e-6 * largest) << n;
  EXPECT_EQ(sums.count, static_cast<std::int64_t>(n));
}

TEST(AddErrors, TheSumsAreThoseOfDoubles) {
  std::vector<std::size_t> lengths = {1024, 1025, 1031, 5000};
  for (std::size_t n = 0; n <= kLongestTail; ++n) lengths.push_back(n);
  for (const std::size_t n : lengths)
    for (const float scale : {1.0f, 1e-17f, 1e-23f, 1e-30f, 1e18f, 1e20f, 1e37f}) {  // squares below and above the range of F32
      std::vector<float> original = random_values(n, 41);
      std::vector<float> decoded = random_values(n, 42, 0.01f);
      for (std::size_t i = 0; i < n; ++i) decoded[i] = scale * (original[i] + decoded[i]), original[i] *= scale;
      expect_sums_of_doubles(original, decoded);
      expect_sums_of_doubles(original, original);
    }
}

TEST(AddErrors, OneNotANumberMakesTheLargestErrorOneForGood) {
  for (std::size_t place = 0; place < 37; ++place) {
    std::vector<float> original(37, 1.0f);
    const std::vector<float> decoded(37, 2.0f);
    ErrorSums sums;
    add_errors(original.data(), decoded.data(), 37, sums);
    EXPECT_EQ(sums.largest_error, 1);
    original[place] = kNan;
    add_errors(original.data(), decoded.data(), 37, sums);
    ASSERT_TRUE(std::isnan(sums.largest_error)) << place;
    original[place] = 1;
    add_errors(original.data(), decoded.data(), 37, sums);
    ASSERT_TRUE(std::isnan(sums.largest_error)) << place;
    EXPECT_EQ(sums.count, 3 * 37);
  }
}

TEST(ErrorSums, MergingAddsSumsAndKeepsTheLargest) {
  ErrorSums sums{1, 2, 3, 4};
  sums.merge({10, 20, 2, 40});
  EXPECT_EQ(sums.squared_error, 11);
  EXPECT_EQ(sums.squared_signal, 22);
  EXPECT_EQ(sums.largest_error, 3);
  EXPECT_EQ(sums.count, 44);
}

// Everything whose bytes must not depend on the processor, one after the other.
std::vector<unsigned char> kernel_bytes() {
  std::vector<unsigned char> bytes;
  const auto add = [&](const auto& values) {
    const auto* data = reinterpret_cast<const unsigned char*>(values.data());
    bytes.insert(bytes.end(), data, data + values.size() * sizeof values[0]);
  };
  for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
    const at::Tensor source = all_patterns(dtype);
    std::vector<float> loaded = read_as_f32(source, 0, source.numel());
    for (float& value : loaded)
      if (std::isnan(value)) value = kNan;  // which NaN is not promised
    add(loaded);
  }
  for (const std::int64_t group : {4, 16, 64, 256, 1024}) {
    std::vector<float> values = random_values(3072, 51);
    rotate_groups(values.data(), 3072, group);
    add(values);
  }
  for (std::size_t n = 0; n <= kLongestTail; ++n) {
    std::vector<float> values = random_values(n, 52, 40);
    const std::vector<std::int8_t> codes = rounded(values, 0.7f, -127, 127);
    add(codes);
    add(std::vector<float>{largest_magnitude(values.data(), static_cast<std::int64_t>(n))});
    scale_codes(codes.data(), static_cast<std::int64_t>(n), 0.7f, values.data());
    add(values);
  }
  return bytes;
}

class EveryProcessor : public ::testing::Test {
 protected:
  void TearDown() override { use(0); }
  static void use(std::int64_t targets) {  // 0: what the processor has
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

TEST_F(EveryProcessor, TheBytesAreTheSameOnEachInstructionSet) {
  const std::int64_t available = hwy::SupportedTargets();
  const std::vector<unsigned char> expected = kernel_bytes();
  std::set<std::string_view> names = {simd_name()};
  for (int bit = 0; bit < 62; ++bit) {
    const std::int64_t target = std::int64_t{1} << bit;
    if ((available & target) == 0) continue;
    use(target);
    names.insert(simd_name());
    EXPECT_TRUE(kernel_bytes() == expected) << simd_name();
  }
#if defined(__x86_64__)
  EXPECT_GE(names.size(), 2u);  // at least the baseline and one more
#endif
}

}  // namespace row_kernels_test
