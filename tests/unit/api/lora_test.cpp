// The public functions about LoRAs.
#include <qmill/compat/lora.h>

#include "expect_error.h"
#include "model_file.h"
#include "temp_dir.h"
#include "test_host.h"

#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>

#include <limits>

namespace qmill {
namespace {

using testing::expect_error;
using testing::host;
using testing::NamedTensor;
using testing::random_weight;
using testing::TempDir;
using testing::write_model;

at::Tensor f64(const at::Tensor& tensor) { return tensor.to(at::kDouble); }

double distance(const at::Tensor& found, const at::Tensor& expected) {
  return f64(found).sub(expected).abs().max().item<double>() / expected.abs().max().item<double>();
}

struct Pair {
  at::Tensor a = random_weight(4, 32, at::kFloat, 1);
  at::Tensor b = random_weight(24, 4, at::kFloat, 2);
  at::Tensor product() const { return f64(b).matmul(f64(a)); }
};

TEST(Lora, MergingAddsTheScaledProductInTheWeightsType) {
  const Pair lora;
  for (const auto& [type, error] : {std::pair(at::kFloat, 1e-6), {at::kDouble, 1e-6}, {at::kHalf, 1e-3}, {at::kBFloat16, 8e-3}}) {
    const at::Tensor weight = random_weight(24, 32, type, 3);
    const at::Tensor before = weight.clone();
    const at::Tensor merged = merge_lora_into_weight(weight, lora.a, lora.b, 6, 4, 0.5);
    EXPECT_EQ(merged.scalar_type(), type);
    EXPECT_LT(distance(merged, f64(weight).add(lora.product(), 6. / 4 * 0.5)), error);
    EXPECT_TRUE(weight.equal(before)) << "the weight itself is left alone";
  }
  const at::Tensor weight = random_weight(24, 32, at::kFloat, 3);
  EXPECT_LT(distance(merge_lora_into_weight(weight, lora.a, lora.b, 6, 4), f64(weight).add(lora.product(), 1.5)), 1e-6) << "scale is 1";
  EXPECT_LT(distance(merge_lora_into_weight(weight.t().contiguous().t(), lora.a.to(at::kHalf), lora.b, 4, 4),
                     f64(weight).add(f64(lora.b).matmul(f64(lora.a.to(at::kHalf))))),
            1e-6)
      << "strides and other types";
}

TEST(Lora, ConvolutionsAreMergedLikeMatrices) {
  const at::Tensor weight = random_weight(8, 54, at::kFloat, 1).view({8, 6, 3, 3});
  const at::Tensor a = random_weight(2, 54, at::kFloat, 2).view({2, 6, 3, 3});
  const at::Tensor b = random_weight(8, 2, at::kFloat, 3).view({8, 2, 1, 1});
  const at::Tensor product = f64(b).view({8, 2}).matmul(f64(a).view({2, 54})).view(weight.sizes());
  EXPECT_LT(distance(merge_lora_into_weight(weight, a, b, 1, 2), f64(weight).add(product, 0.5)), 1e-6);
}

TEST(Lora, OfSeveralNumberIIsWeakenedOnce) {
  const at::Tensor weight = random_weight(24, 32, at::kBFloat16, 9);
  std::vector<LoraConfig> loras;
  at::Tensor dampened = f64(weight), plain = f64(weight);
  for (std::uint64_t i = 0; i < 3; ++i) {
    const at::Tensor a = random_weight(2, 32, at::kFloat, 10 + i), b = random_weight(24, 2, at::kFloat, 20 + i);
    const double scale = 1 + 0.5 * static_cast<double>(i);
    loras.push_back({a, b, 3, 2, scale});
    dampened = dampened.add(f64(b).matmul(f64(a)), 1.5 * scale * (i == 0 ? 1 : i == 1 ? 0.9 : 0.81));
    plain = plain.add(f64(b).matmul(f64(a)), 1.5 * scale);
  }
  EXPECT_LT(distance(merge_multiple_loras(weight.to(at::kFloat), loras, true), dampened), 1e-6);
  EXPECT_LT(distance(merge_multiple_loras(weight.to(at::kFloat), loras), plain), 1e-6);
  // Rounded once, at the end.
  const at::Tensor once = merge_multiple_loras(weight.to(at::kFloat), loras).to(at::kBFloat16);
  EXPECT_TRUE(merge_multiple_loras(weight, loras).equal(once));
  EXPECT_TRUE(merge_multiple_loras(weight, {}).equal(weight));
}

TEST(Lora, WhatDoesNotFitIsRefused) {
  const Pair lora;
  const at::Tensor weight = random_weight(24, 32, at::kFloat, 3);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  expect_error(ErrorKind::usage, {"24 x 4", "4 x 31", "24 x 32"},
               [&] { merge_lora_into_weight(weight, lora.a.narrow(1, 0, 31), lora.b, 1, 4); });
  expect_error(ErrorKind::usage, {"24 x 3"}, [&] { merge_lora_into_weight(weight, lora.a, lora.b.narrow(1, 0, 3), 1, 4); });
  expect_error(ErrorKind::usage, {"rank is 0"}, [&] { merge_lora_into_weight(weight, lora.a, lora.b, 1, 0); });
  expect_error(ErrorKind::usage, {"alpha"}, [&] { merge_lora_into_weight(weight, lora.a, lora.b, nan, 4); });
  expect_error(ErrorKind::usage, {"scale"}, [&] { merge_lora_into_weight(weight, lora.a, lora.b, 1, 4, nan); });
  expect_error(ErrorKind::usage, {"lora_A"}, [&] { merge_lora_into_weight(weight, at::Tensor(), lora.b, 1, 4); });
  expect_error(ErrorKind::usage, {"weight"}, [&] { merge_lora_into_weight(weight.to(at::kInt), lora.a, lora.b, 1, 4); });
  expect_error(ErrorKind::usage, {"weight"}, [&] { merge_lora_into_weight(at::Tensor(), lora.a, lora.b, 1, 4); });
  expect_error(ErrorKind::numeric, {"range"}, [&] { merge_lora_into_weight(weight.to(at::kHalf), lora.a, lora.b, 1e6, 4); });
}

struct LoraOnDisk {
  explicit LoraOnDisk(const std::vector<NamedTensor>& tensors, const std::map<std::string, std::string>& metadata = {}) {
    write_model(path, tensors, metadata);
  }
  TempDir dir;
  std::filesystem::path path = dir / "lora.safetensors";
};

TEST(Lora, FilesAreLoadedByLayer) {
  const Pair lora;
  const LoraOnDisk file({{"transformer.blocks.0.q.lora_A.weight", lora.a},
                         {"transformer.blocks.0.q.lora_B.weight", lora.b.to(at::kHalf)},
                         {"transformer.blocks.0.q.alpha", at::full({}, 2.)},
                         {"text_encoder.q.lora_A.weight", lora.a.add(1)},
                         {"text_encoder.q.lora_B.weight", lora.b},
                         {"text_encoder_2.q.lora_A.weight", lora.a.add(2)},
                         {"text_encoder_2.q.lora_B.weight", lora.b},
                         {"lora_unet_k.lora_down.weight", lora.a},
                         {"lora_unet_k.lora_up.weight", lora.b},
                         {"note", at::ones({1})}},
                        {{"lora_unet_k_alpha", "1.5"}});
  const std::map<std::string, at::Tensor> tensors = load_lora_tensors(host(), file.path);
  ASSERT_EQ(tensors.size(), 4u);
  EXPECT_TRUE(tensors.at("blocks.0.q").equal(lora.a));
  EXPECT_TRUE(tensors.at("text_encoder_2.q").equal(lora.a.add(2))) << "both would be 'q'";
  const std::map<std::string, LoraData> layers = load_lora_for_merging(host(), file.path);
  ASSERT_EQ(layers.size(), 4u);
  EXPECT_EQ(layers.at("blocks.0.q").alpha, 2);
  EXPECT_EQ(layers.at("blocks.0.q").rank, 4);
  EXPECT_EQ(layers.at("lora_unet_k").alpha, 1.5);
  EXPECT_EQ(layers.at("text_encoder.q").alpha, 4) << "the rank";
  EXPECT_EQ(layers.at("blocks.0.q").lora_B.scalar_type(), at::kFloat);
  EXPECT_TRUE(layers.at("blocks.0.q").lora_B.equal(lora.b.to(at::kHalf).to(at::kFloat)));
  EXPECT_EQ(load_lora_tensors(file.path).size(), 4u) << "with the default host";
  EXPECT_EQ(load_lora_for_merging(file.path).size(), 4u);
}

TEST(Lora, ALoadedConvolutionInCpFormMergesLikeAnyOther) {
  const at::Tensor up = random_weight(8, 3, at::kFloat, 1).view({8, 3, 1, 1}), down = random_weight(2, 6, at::kFloat, 2).view({2, 6, 1, 1});
  const at::Tensor mid = random_weight(6, 9, at::kFloat, 3).view({3, 2, 3, 3});
  const LoraOnDisk file(
      {{"c.lora_down.weight", down}, {"c.lora_up.weight", up}, {"c.lora_mid.weight", mid}, {"c.alpha", at::full({}, 5.)}});
  const LoraData data = load_lora_for_merging(host(), file.path).at("c");
  const at::Tensor weight = random_weight(8, 54, at::kFloat, 4).view({8, 6, 3, 3});
  const at::Tensor inner = f64(mid).permute({0, 2, 3, 1}).matmul(f64(down).view({2, 6})).permute({0, 3, 1, 2});
  const at::Tensor expected = f64(weight).add(f64(up).view({8, 3}).matmul(inner.reshape({3, 54})).view(weight.sizes()), 5. / 2);
  EXPECT_LT(distance(merge_lora_into_weight(weight, data.lora_A, data.lora_B, data.alpha, data.rank), expected), 1e-6);
}

TEST(Lora, FilesThatCannotBeLoadedAreRefusedByName) {
  const Pair lora;
  const LoraOnDisk dora({{"q.lora_A.weight", lora.a}, {"q.lora_B.weight", lora.b}, {"q.dora_scale", at::ones({24})}});
  expect_error(ErrorKind::unsupported, {"lora.safetensors", "'q'"}, [&] { load_lora_for_merging(host(), dora.path); });
  EXPECT_EQ(load_lora_tensors(host(), dora.path).size(), 1u);
  const LoraOnDisk lokr({{"q.lokr_w1", lora.a}, {"q.lokr_w2", lora.b}});
  expect_error(ErrorKind::unsupported, {"'q'"}, [&] { load_lora_for_merging(host(), lokr.path); });
  expect_error(ErrorKind::input, {"lora.safetensors"}, [&] { load_lora_tensors(host(), lokr.path); });
  const LoraOnDisk none({{"q.weight", lora.a}});
  expect_error(ErrorKind::input, {"lora.safetensors"}, [&] { load_lora_for_merging(host(), none.path); });
  const LoraOnDisk alone({{"q.lora_A.weight", lora.a}});
  expect_error(ErrorKind::input, {"no partner"}, [&] { load_lora_tensors(host(), alone.path); });
  expect_error(ErrorKind::io, {"gone.safetensors"}, [&] { load_lora_tensors(host(), none.dir / "gone.safetensors"); });
}

}  // namespace
}  // namespace qmill
