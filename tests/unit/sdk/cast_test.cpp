#include <qmill/error.h>
#include <qmill/numerics/cast.h>

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

using namespace qmill;

namespace cast_test {

at::Tensor doubles(const std::vector<double>& values) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, at::kDouble);
  std::memcpy(tensor.data_ptr(), values.data(), values.size() * sizeof(double));
  return tensor;
}

struct Cast {
  CastResult result;
  at::Tensor values;  // F64
};

Cast cast(const at::Tensor& source, at::ScalarType target_type, bool clamp) {
  at::Tensor target = at::empty(source.sizes(), target_type);
  const CastResult result = cast_values(source, target, clamp);
  return {result, target.to(at::kDouble)};
}

double only(const Cast& c) { return c.values.const_data_ptr<double>()[0]; }

TEST(CastValues, F16OverflowsHalfAStepAboveItsLargestValue) {
  for (const double sign : {1.0, -1.0}) {
    for (const double fits : {65504.0, 65519.0, 65519.99}) {
      const Cast c = cast(doubles({sign * fits}).to(at::kFloat), at::kHalf, false);
      EXPECT_EQ(c.result.overflowed, 0) << fits;
      EXPECT_EQ(only(c), sign * 65504) << fits;
    }
    for (const double too_large : {65520.0, 1e6, 3e38}) {
      const Cast c = cast(doubles({sign * too_large}).to(at::kFloat), at::kHalf, false);
      EXPECT_EQ(c.result.overflowed, 1) << too_large;
      EXPECT_EQ(only(c), sign * std::numeric_limits<double>::infinity()) << too_large;
    }
  }
}

TEST(CastValues, ClampedValuesBecomeTheLargestAndAreCounted) {
  const Cast c = cast(doubles({65520, -1e9, 3, 65504}).to(at::kFloat), at::kHalf, true);
  EXPECT_EQ(c.result.overflowed, 2);
  EXPECT_EQ(c.result.not_finite, 0);
  EXPECT_TRUE(c.values.equal(doubles({65504, -65504, 3, 65504})));
}

TEST(CastValues, BF16OverflowsHalfAStepAboveItsLargestValue) {
  const double largest = 0x1.fep127, bound = 0x1.ffp127;
  EXPECT_EQ(cast(doubles({std::nextafter(static_cast<float>(bound), 0.0f)}).to(at::kFloat), at::kBFloat16, false).result.overflowed, 0);
  EXPECT_EQ(cast(doubles({bound}).to(at::kFloat), at::kBFloat16, false).result.overflowed, 1);
  EXPECT_EQ(only(cast(doubles({bound}), at::kBFloat16, true)), largest);
}

TEST(CastValues, WhatIsNotFiniteIsCountedAndIsNoOverflow) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  for (const at::ScalarType source : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const Cast c = cast(doubles({nan, infinity, -infinity, 1}).to(source), at::kHalf, true);
    EXPECT_EQ(c.result.not_finite, 3);
    EXPECT_EQ(c.result.overflowed, 0);
    EXPECT_TRUE(std::isnan(only(c)));
  }
}

TEST(CastValues, AFiniteF64BeyondF32IsAnOverflow) {
  for (const at::ScalarType target : {at::kHalf, at::kBFloat16, at::kFloat}) {
    const Cast c = cast(doubles({1e300, -1e300}), target, false);
    EXPECT_EQ(c.result.overflowed, 2);
    EXPECT_EQ(c.result.not_finite, 0);
  }
  EXPECT_EQ(only(cast(doubles({1e300}), at::kFloat, true)), std::numeric_limits<float>::max());
}

TEST(CastValues, EveryValueOfALongTensorIsRoundedAsLibTorchDoes) {
  std::vector<double> values;
  for (int i = 0; i < 10001; ++i) values.push_back(std::ldexp(1 + i % 97 / 97.0, i % 60 - 44));
  for (const at::ScalarType source : {at::kFloat, at::kBFloat16, at::kFloat8_e5m2})
    for (const at::ScalarType target : {at::kHalf, at::kBFloat16, at::kFloat}) {
      const at::Tensor from = doubles(values).clamp(0, 20000).to(source);
      const Cast c = cast(from, target, false);
      EXPECT_EQ(c.result.overflowed, 0);
      EXPECT_TRUE(c.values.equal(from.to(at::kFloat).to(target).to(at::kDouble)));
    }
}

TEST(CastValues, OtherTargetsAreRefused) {
  for (const at::ScalarType target_type : {at::kChar, at::kDouble, at::kFloat8_e4m3fn}) {
    at::Tensor target = at::empty({1}, target_type);
    EXPECT_THROW(cast_values(doubles({1}), target, false), Error);
  }
}

}  // namespace cast_test
