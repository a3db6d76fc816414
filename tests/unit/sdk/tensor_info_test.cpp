#include <qmill/error.h>
#include <qmill/tensor.h>

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

using namespace qmill;

namespace tensor_info_test {

constexpr DType kLastType = DType::f6_e3m2;

TEST(DType, EveryNameIsReadAsItIsWritten) {
  for (int i = 0; i <= static_cast<int>(kLastType); ++i)
    EXPECT_EQ(parse_dtype(dtype_name(static_cast<DType>(i))), static_cast<DType>(i)) << i;
  EXPECT_EQ(dtype_name(DType::f8_e4m3), "F8_E4M3");
  EXPECT_EQ(dtype_name(DType::boolean), "BOOL");
  EXPECT_EQ(parse_dtype("f32"), std::nullopt);
  EXPECT_EQ(parse_dtype(""), std::nullopt);
}

TEST(DType, LibTorchHoldsEveryTypeOfWholeBytesInThatManyBytes) {
  for (int i = 0; i <= static_cast<int>(DType::c64); ++i) {
    const auto dtype = static_cast<DType>(i);
    const at::Tensor tensor = at::empty({1}, scalar_type(dtype));
    EXPECT_EQ(dtype_of(tensor), dtype) << dtype_name(dtype);
    EXPECT_EQ(tensor.element_size() * 8, dtype_bits(dtype)) << dtype_name(dtype);
  }
}

TEST(DType, TypesBelowAByteCannotBeComputedWith) {
  for (const DType dtype : {DType::f4, DType::f6_e2m3, DType::f6_e3m2}) EXPECT_THROW(scalar_type(dtype), Error);
  EXPECT_EQ(dtype_bits(DType::f4), 4);
  EXPECT_EQ(dtype_bits(DType::f6_e3m2), 6);
}

TEST(DType, ATypeThatNoFileHoldsIsRefused) { EXPECT_THROW(dtype_of(at::empty({1}, at::kComplexDouble)), Error); }

TEST(DType, TheFloatingTypesAreTheSixThatCanBeQuantized) {
  int floating = 0;
  for (int i = 0; i <= static_cast<int>(kLastType); ++i) floating += is_floating(static_cast<DType>(i)) ? 1 : 0;
  EXPECT_EQ(floating, 6);
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::f8_e4m3, DType::f8_e5m2})
    EXPECT_TRUE(is_floating(dtype));
}

TEST(TensorInfo, SizesFollowFromTypeAndShape) {
  const TensorInfo scalar = {"s", DType::f32, {}};
  EXPECT_EQ(scalar.elements(), 1);
  EXPECT_EQ(scalar.bytes(), 4);
  EXPECT_EQ(scalar.shape_text(), "scalar");
  const TensorInfo matrix = {"m", DType::f4, {5, 6}};
  EXPECT_EQ(matrix.elements(), 30);
  EXPECT_EQ(matrix.bytes(), 15);
  EXPECT_EQ(matrix.shape_text(), "5 x 6");
  const TensorInfo empty = {"e", DType::i64, {7, 0}};
  EXPECT_EQ(empty.bytes(), 0);
}

TEST(TensorInfo, AStoredTensorSaysWhatItIs) {
  EXPECT_EQ(info_of({"a", at::empty({5, 1, 7}, at::kBFloat16)}), (TensorInfo{"a", DType::bf16, {5, 1, 7}}));
}

}  // namespace tensor_info_test
