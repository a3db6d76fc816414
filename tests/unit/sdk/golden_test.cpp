// Against vectors of the reader's own library: see tests/golden/make_golden.py.
#include <formats.h>
#include <model_file.h>
#include <test_context.h>

#include <qmill/numerics/rounding.h>

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cmath>

using namespace qmill;
using qmill::testing::TestContext;

namespace golden_test {

constexpr double kRelativeError = 1e-6;   // of scales and decoded values: another order of summation
constexpr double kDifferentCodes = 6e-6;  // of rotated weights, each by one step: ties that fall to the other side

const CodedFormat& int8() { return qmill::testing::coded_format("int8"); }
const CodedFormat& int4() { return qmill::testing::coded_format("int4"); }

at::Tensor unpacked(const at::Tensor& packed) {
  at::Tensor codes = at::empty({packed.size(0), 2 * packed.size(1)}, at::kInt);
  for (std::int64_t i = 0; i < packed.numel(); ++i) {
    const int byte = packed.const_data_ptr<std::int8_t>()[i];
    const int low = (byte + 256) % 16;
    codes.data_ptr<int>()[2 * i] = low < 8 ? low : low - 16;
    codes.data_ptr<int>()[2 * i + 1] = (byte - codes.data_ptr<int>()[2 * i]) / 16;
  }
  return codes;
}

class Golden : public ::testing::TestWithParam<const char*> {
 protected:
  const qmill::testing::ModelFile file = qmill::testing::read_model(std::string(QMILL_GOLDEN "/") + GetParam() + ".safetensors");
  const at::Tensor weight = file.tensors.at("src.weight");
  const TensorInfo info = info_of({"src.weight", weight});

  Layout layout(Scaling scaling, std::int64_t group, const CodedFormat& format = int8()) const {
    StorageOptions wanted;
    wanted.scaling = scaling;
    wanted.rotation.mode = group == 0 ? Rotation::Mode::off : Rotation::Mode::fixed;
    wanted.rotation.group = group;
    return format.layout(info, wanted);
  }

  std::vector<StoredTensor> stored(const Layout& as, const CodedFormat& format = int8()) const {
    TestContext context(info, {&format, as, {}});
    return format.encode(round_to_nearest(weight, format.grid(), as, context), info, as);
  }

  const at::Tensor& theirs(const std::string& format, const char* tensor) const { return file.tensors.at(format + "." + tensor); }

  std::vector<std::int64_t> rotation_groups(const std::string& format) const {
    std::vector<std::int64_t> groups;
    for (const std::int64_t group : {4, 16, 64, 256})
      if (file.tensors.contains(format + std::to_string(group) + ".weight")) groups.push_back(group);
    return groups;
  }

  void expect_same_codes(const std::string& format, const at::Tensor& ours, const at::Tensor& theirs) const {
    const at::Tensor steps = ours.sub(theirs).abs();
    const std::int64_t different = steps.ne(0).sum().item<std::int64_t>();
    EXPECT_LE(steps.amax().item<int>(), 1) << format;
    EXPECT_LE(static_cast<double>(different), std::ceil(kDifferentCodes * static_cast<double>(weight.numel()))) << format;
  }

  void expect_decoded(const std::string& format, const Layout& as, const CodedFormat& ours_is = int8()) const {
    const at::Tensor& decoded = theirs(format, "decoded");
    const std::vector<at::Tensor> tensors = {theirs(format, "weight"), theirs(format, "weight_scale")};
    std::vector<float> ours(static_cast<std::size_t>(decoded.numel()));
    ours_is.decode_rows(tensors, as, 0, decoded.size(0), ours.data());
    for (std::int64_t row = 0; row < decoded.size(0); ++row) {
      const float* expected = decoded.const_data_ptr<float>() + row * decoded.size(1);
      const double largest = decoded.select(0, row).abs().amax().item<float>();
      for (std::int64_t c = 0; c < decoded.size(1); ++c)
        ASSERT_NEAR(ours[static_cast<std::size_t>(row * decoded.size(1) + c)], expected[c], kRelativeError * largest)
            << format << ' ' << row << ' ' << c;
    }
  }
};

TEST_P(Golden, RowsAreIdenticalToTheLastBit) {
  const std::vector<StoredTensor> ours = stored(layout(Scaling::row, 0));
  EXPECT_TRUE(ours[0].data.equal(theirs("int8_row", "weight")));
  EXPECT_TRUE(ours[1].data.equal(theirs("int8_row", "weight_scale")));
}

TEST_P(Golden, OneScaleIsIdenticalToTheLastBit) {
  const std::vector<StoredTensor> ours = stored(layout(Scaling::tensor, 0));
  EXPECT_TRUE(ours[0].data.equal(theirs("int8_tensor", "weight")));
  EXPECT_TRUE(ours[1].data.equal(theirs("int8_tensor", "weight_scale")));
}

TEST_P(Golden, RotatedRowsDifferInAFewTiesOnly) {
  for (const std::int64_t group : rotation_groups("int8_convrot")) {
    const std::string format = "int8_convrot" + std::to_string(group);
    const std::vector<StoredTensor> ours = stored(layout(Scaling::row, group));
    expect_same_codes(format, ours[0].data.to(at::kInt), theirs(format, "weight").to(at::kInt));
    const at::Tensor& scales = theirs(format, "weight_scale");
    for (std::int64_t row = 0; row < scales.numel(); ++row) {
      const float expected = scales.const_data_ptr<float>()[row];
      ASSERT_NEAR(ours[1].data.const_data_ptr<float>()[row], expected, kRelativeError * expected) << format << ' ' << row;
    }
  }
}

TEST_P(Golden, TheirTensorsDecodeToTheirValues) {
  expect_decoded("int8_row", layout(Scaling::row, 0));
  expect_decoded("int8_tensor", layout(Scaling::tensor, 0));
  for (const std::int64_t group : rotation_groups("int8_convrot"))
    expect_decoded("int8_convrot" + std::to_string(group), layout(Scaling::row, group));
}

TEST_P(Golden, NibblesDifferInAFewTiesOnly) {
  for (const std::int64_t group : rotation_groups("convrot_w4a4_")) {
    const std::string format = "convrot_w4a4_" + std::to_string(group);
    const std::vector<StoredTensor> ours = stored(layout(Scaling::row, group, int4()), int4());
    EXPECT_EQ(info_of({"src.weight", theirs(format, "weight")}), info_of(ours[0]));
    EXPECT_EQ(info_of({"src.weight_scale", theirs(format, "weight_scale")}), info_of(ours[1]));
    expect_same_codes(format, unpacked(ours[0].data), unpacked(theirs(format, "weight")));
    const at::Tensor& scales = theirs(format, "weight_scale");
    for (std::int64_t row = 0; row < scales.numel(); ++row) {
      const float expected = scales.const_data_ptr<float>()[row];
      const float found = ours[1].data.const_data_ptr<float>()[row];
      if (found == kSmallestScale)  // a row of zeros: their floor is another one
        ASSERT_FLOAT_EQ(expected, 1e-10f / 7) << format << ' ' << row;
      else
        ASSERT_NEAR(found, expected, kRelativeError * expected) << format << ' ' << row;
    }
  }
}

TEST_P(Golden, TheirNibblesDecodeToTheirValues) {
  for (const std::int64_t group : rotation_groups("convrot_w4a4_"))
    expect_decoded("convrot_w4a4_" + std::to_string(group), layout(Scaling::row, group, int4()), int4());
}

TEST(GoldenVectors, HaveConvrotW4a4InEveryGroup) {
  const auto tensors = qmill::testing::read_model(QMILL_GOLDEN "/bf16_64x256.safetensors").tensors;
  for (const char* group : {"16", "64", "256"}) EXPECT_TRUE(tensors.contains(std::string("convrot_w4a4_") + group + ".weight")) << group;
}

INSTANTIATE_TEST_SUITE_P(Vectors, Golden, ::testing::Values("bf16_7x5", "bf16_64x256", "bf16_136x64", "f16_40x1024", "f32_33x512"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace golden_test
