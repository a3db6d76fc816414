// What is written as floats and as w4a8, against vectors of the reader's own library: tests/golden/make_golden.py, make_w4a8.py.
#include <formats.h>
#include <model_file.h>
#include <test_context.h>

#include <qmill/numerics/rounding.h>

#include <ATen/ops/empty.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>

using namespace qmill;
using qmill::testing::coded_format;
using qmill::testing::TestContext;

namespace golden_writing_test {

using Stored = std::map<std::string, at::Tensor>;  // by suffix

Stored rounded(const char* format_name, const at::Tensor& weight) {
  const CodedFormat& format = coded_format(format_name);
  const TensorInfo info = info_of({"l.weight", weight});
  const Layout layout = format.layout(info, {});
  TestContext context(info, {&format, layout, {}});
  Stored stored;
  for (const StoredTensor& tensor : format.encode(round_to_nearest(weight, format.grid(), layout, context), info, layout))
    stored[tensor.name.substr(2)] = tensor.data;
  return stored;
}

at::Tensor bytes_of(const at::Tensor& tensor) { return tensor.contiguous().view(-1).view(at::kByte); }

// Their negative zeros, 0x80 of each code, are zeros of ours.
std::uint8_t without_negative_zero(std::uint8_t byte, int bits) {
  const auto of = [&](int code) { return code == 1 << (bits - 1) ? 0 : code; };
  return static_cast<std::uint8_t>(bits == 8 ? of(byte) : of(byte >> 4) << 4 | of(byte & 0xf));
}

class GoldenWriting : public ::testing::TestWithParam<const char*> {
 protected:
  const qmill::testing::ModelFile file = qmill::testing::read_model(std::string(QMILL_GOLDEN "/") + GetParam() + ".safetensors");
  const at::Tensor weight = file.tensors.at("src.weight");

  // The same tensors of the same types and shapes, padding and the order of scales included.
  void expect_written(const char* format, int bits) const {
    const Stored ours = rounded(format, weight);
    int compared = 0;
    for (const auto& [name, data] : file.tensors) {
      const std::string prefix = std::string(format) + ".";
      if (!name.starts_with(prefix) || name == prefix + "decoded") continue;
      const std::string suffix = name.substr(prefix.size());
      SCOPED_TRACE(name);
      ASSERT_TRUE(ours.contains(suffix));
      EXPECT_EQ(info_of({"", ours.at(suffix)}), info_of({"", data}));
      const at::Tensor found = bytes_of(ours.at(suffix)), expected = bytes_of(data);
      ASSERT_EQ(found.numel(), expected.numel());
      for (std::int64_t i = 0; i < found.numel(); ++i) {
        const std::uint8_t theirs = expected.const_data_ptr<std::uint8_t>()[i];
        const std::uint8_t wanted = suffix == "weight" ? without_negative_zero(theirs, bits) : theirs;
        ASSERT_EQ(int{found.const_data_ptr<std::uint8_t>()[i]}, int{wanted}) << i;
      }
      ++compared;
    }
    EXPECT_EQ(compared, std::string_view(format) == "nvfp4" ? 3 : 2);
  }
};

TEST_P(GoldenWriting, Float8IsTheirsButForNegativeZeros) {
  expect_written("float8_e4m3fn", 8);
  expect_written("float8_e5m2", 8);
}

TEST_P(GoldenWriting, Mxfp8IsTheirsButForNegativeZeros) { expect_written("mxfp8", 8); }

TEST_P(GoldenWriting, Nvfp4IsTheirsButForNegativeZeros) { expect_written("nvfp4", 4); }

INSTANTIATE_TEST_SUITE_P(Vectors, GoldenWriting, ::testing::Values("bf16_7x5", "bf16_64x256", "bf16_136x64", "f16_40x1024", "f32_33x512"),
                         [](const auto& test) { return std::string(test.param); });

class GoldenW4a8 : public ::testing::TestWithParam<const char*> {};

// The sums of the rotation are in another order.
TEST_P(GoldenW4a8, CodesDifferInAFewTiesOnly) {
  constexpr double kRelativeError = 1e-6, kDifferentCodes = 6e-6;
  const auto read = [](const std::string& name) { return qmill::testing::read_model(QMILL_GOLDEN "/" + name + ".safetensors").tensors; };
  const at::Tensor weight = read(GetParam()).at("src.weight");
  const auto file = read(std::string("w4a8_0_2_40_") + GetParam());
  const auto theirs = [&](const char* suffix) { return file.at(std::string("asym_w4a8_int8.") + suffix); };
  Stored ours = rounded("asym_w4a8_int8", weight);
  for (const char* suffix : {"weight", "weight_s_rel", "weight_s_channel", "weight_codebook"})
    EXPECT_EQ(info_of({"", ours[suffix]}), info_of({"", theirs(suffix)})) << suffix;

  std::int64_t different = 0;
  const at::Tensor codes = bytes_of(ours["weight"]), expected = bytes_of(theirs("weight"));
  for (std::int64_t i = 0; i < codes.numel(); ++i)
    for (const int shift : {0, 4}) {
      const int a = codes.const_data_ptr<std::uint8_t>()[i] >> shift & 0xf, b = expected.const_data_ptr<std::uint8_t>()[i] >> shift & 0xf;
      ASSERT_LE(std::abs(a - b), 1) << i;
      if (a != b) ++different;
    }
  EXPECT_LE(static_cast<double>(different), std::ceil(kDifferentCodes * static_cast<double>(weight.numel())));
  EXPECT_TRUE(bytes_of(ours["weight_s_rel"]).equal(bytes_of(theirs("weight_s_rel"))));
  EXPECT_TRUE(ours["weight_codebook"].equal(theirs("weight_codebook")));
  for (std::int64_t row = 0; row < weight.size(0); ++row) {
    const float scale = theirs("weight_s_channel").const_data_ptr<float>()[row];
    ASSERT_NEAR(ours["weight_s_channel"].const_data_ptr<float>()[row], scale, kRelativeError * static_cast<double>(scale)) << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Vectors, GoldenW4a8, ::testing::Values("f32_33x512", "f16_40x1024"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace golden_writing_test
