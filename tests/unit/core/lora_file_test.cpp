#include "lora/lora_file.h"
#include "core_support.h"
#include "lora/fit.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <limits>

namespace qmill {
namespace {

using testing::expect_error;
using testing::host;
using testing::TempDir;
using testing::write_model;

const LayerNames& layers() {
  static const LayerNames names(
      {"model.diffusion_model.blocks.0.attn.q", "model.diffusion_model.blocks.0.attn_q.k", "blocks.0.ffn.0", "blocks.0.attn.q_k"});
  return names;
}

struct OpenedLora {
  explicit OpenedLora(const std::vector<testing::NamedTensor>& tensors) { write_model(dir / "lora.safetensors", tensors); }
  LoraFile open() const { return LoraFile(dir / "lora.safetensors", host().open(dir / "lora.safetensors"), layers()); }
  TempDir dir;
};

TEST(LayerNames, PrefixesAreStrippedAsOftenAsThereIsOne) {
  EXPECT_EQ(without_prefixes("model.diffusion_model.blocks.0"), "blocks.0");
  EXPECT_EQ(without_prefixes("base_model.model.transformer.blocks.0"), "blocks.0");
  EXPECT_EQ(without_prefixes("modeling.blocks"), "modeling.blocks");
  EXPECT_EQ(without_prefixes("model."), "model.") << "nothing would be left";
}

TEST(LayerNames, OfACheckpointsOtherPartsOnlyWholeNamesAreKnown) {
  for (const std::string prefix :
       {"first_stage_model.", "vae.", "audio_vae.", "vocoder.", "pretransform.", "control_model.", "model_ema."}) {
    const std::string base = prefix + "blocks.0.q";
    const LayerAddress address = layer_address(base);
    EXPECT_EQ(address.component.kind, ModelKind::other) << base;
    EXPECT_EQ(address.rest, "blocks.0.q") << base;
    const LayerNames names({{"model.diffusion_model.blocks.0.q", 4, 4}, {base, 4, 4}}, {});
    EXPECT_EQ(names.resolve("blocks.0.q").place, (LayerPlace{0, {}})) << base;
    EXPECT_EQ(names.resolve(base).place, (LayerPlace{1, {}}));
  }
}

TEST(OtherNames, PartsBeyondAllRowsAreLeftOut) {
  const BlockNames parts = {{}, {{"qkv", {{"to_q", 1000}, {"to_k", 0}}, false}}};
  EXPECT_EQ(other_names({&parts}, "qkv", 1008, 1).size(), 2u);
  EXPECT_TRUE(other_names({&parts}, "qkv", 1008, std::int64_t{1} << 62).empty()) << "1000 times as many are 0 in 64 bits";
}

TEST(LoraFile, EverySpellingFindsItsLayer) {
  const std::pair<const char*, const char*> spellings[] = {
      {"blocks.0.ffn.0.lora_A.weight", "blocks.0.ffn.0.lora_B.weight"},
      {"blocks.0.ffn.0.lora_A.default.weight", "blocks.0.ffn.0.lora_B.default.weight"},
      {"diffusion_model.blocks.0.ffn.0.lora_down.weight", "diffusion_model.blocks.0.ffn.0.lora_up.weight"},
      {"transformer.blocks.0.ffn.0.lora.down.weight", "transformer.blocks.0.ffn.0.lora.up.weight"},
      {"base_model.model.blocks.0.ffn.0.lora_A.weight", "base_model.model.blocks.0.ffn.0.lora_B.weight"},
      {"blocks.0.ffn.0.lora_linear_layer.down.weight", "blocks.0.ffn.0.lora_linear_layer.up.weight"},
      {"blocks.0.ffn.0_lora.down.weight", "blocks.0.ffn.0_lora.up.weight"},
      {"lora_unet_blocks_0_ffn_0.lora_down.weight", "lora_unet_blocks_0_ffn_0.lora_up.weight"},
      {"lycoris_blocks_0_ffn_0.lora_down.weight", "lycoris_blocks_0_ffn_0.lora_up.weight"},
  };
  for (const auto& [down, up] : spellings) {
    const OpenedLora file({{down, at::ones({2, 8})}, {up, at::ones({4, 2})}});
    const LoraFile lora = file.open();
    ASSERT_EQ(lora.entries().size(), 1u) << down;
    const LoraEntry& entry = lora.entries()[0];
    EXPECT_EQ(entry.kind, LoraKind::low_rank);
    EXPECT_EQ(layers().bases()[entry.place.layer], "blocks.0.ffn.0");
    EXPECT_EQ(lora.info(entry, AdapterPart::down).name, down);
    EXPECT_EQ(lora.info(entry, AdapterPart::up).name, up);
    EXPECT_TRUE(lora.unmatched().empty());
  }
}

TEST(LoraFile, KohyaNamesFindLayersBehindPrefixes) {
  const OpenedLora file({{"lora_unet_blocks_0_attn_q_k.lora_down.weight", at::ones({2, 8})},
                   {"lora_unet_blocks_0_attn_q_k.lora_up.weight", at::ones({4, 2})},
                   {"lora_unet_blocks_0_attn_q_k.alpha", at::full({}, 3.)}});
  expect_error(ErrorKind::input, {"lora.safetensors", "blocks_0_attn_q_k", "blocks.0.attn.q_k", "blocks.0.attn_q.k"}, [&] { file.open(); });
  const OpenedLora clear({{"lora_unet_blocks_0_attn_q.lora_down.weight", at::ones({2, 8})},
                    {"lora_unet_blocks_0_attn_q.lora_up.weight", at::ones({4, 2})},
                    {"lora_unet_blocks_0_attn_q.alpha", at::full({}, 3.)}});
  const LoraFile lora = clear.open();
  ASSERT_EQ(lora.entries().size(), 1u);
  EXPECT_EQ(layers().bases()[lora.entries()[0].place.layer], "model.diffusion_model.blocks.0.attn.q");
  ASSERT_TRUE(lora.entries()[0].has(AdapterPart::alpha));
  EXPECT_EQ(lora.matrix(lora.entries()[0], AdapterPart::alpha).item<float>(), 3);
}

TEST(LoraFile, WhatMatchesNothingIsListed) {
  const OpenedLora file({{"blocks.0.ffn.0.lora_A.weight", at::ones({2, 8})},
                   {"blocks.0.ffn.0.lora_B.weight", at::ones({4, 2})},
                   {"blocks.9.lora_A.weight", at::ones({2, 8})},
                   {"blocks.9.lora_B.weight", at::ones({4, 2})},
                   {"blocks.0.ffn.0.strange", at::ones({4})},
                   {"blocks.9.alpha", at::ones({})}});
  EXPECT_EQ(file.open().unmatched().size(), 4u);
}

TEST(LoraFile, IncompleteAndContradictoryFilesAreErrors) {
  const at::Tensor a = at::ones({2, 8});
  const at::Tensor b = at::ones({4, 2});
  const auto expect = [](std::initializer_list<std::string_view> parts, const std::vector<testing::NamedTensor>& tensors) {
    const OpenedLora file(tensors);
    expect_error(ErrorKind::input, parts, [&] { file.open(); });
  };
  expect({"lora.safetensors", "'blocks.0.ffn.0.lora_A.weight'", "no partner"}, {{"blocks.0.ffn.0.lora_A.weight", a}});
  expect({"'blocks.0.ffn.0.lora_B.weight'", "no partner"}, {{"blocks.0.ffn.0.lora_B.weight", b}});
  expect({"2 x 8", "4 x 3", "low-rank"}, {{"blocks.0.ffn.0.lora_A.weight", a}, {"blocks.0.ffn.0.lora_B.weight", at::ones({4, 3})}});
  expect({"I32"}, {{"blocks.0.ffn.0.lora_A.weight", a.to(at::kInt)}, {"blocks.0.ffn.0.lora_B.weight", b}});
  expect({"both the layer 'blocks.0.ffn.0'"}, {{"blocks.0.ffn.0.lora_A.weight", a},
                                               {"blocks.0.ffn.0.lora_B.weight", b},
                                               {"transformer.blocks.0.ffn.0.lora_A.weight", a},
                                               {"transformer.blocks.0.ffn.0.lora_B.weight", b}});
  expect({"the same matrix"}, {{"blocks.0.ffn.0.lora_A.one.weight", a}, {"blocks.0.ffn.0.lora_A.two.weight", a}});
}

TEST(LoraFile, EveryEndingIsAPartOfItsOwn) {
  using enum AdapterPart;
  const std::pair<const char*, AdapterPart> endings[] = {{".alpha", alpha},
                                                         {".lora_A.weight", down},
                                                         {".lora_B.x.weight", up},
                                                         {".lora_mid.weight", mid},
                                                         {".dora_scale", magnitude},
                                                         {".lora_magnitude_vector", magnitude},
                                                         {".lora_magnitude_vector.default.weight", magnitude},
                                                         {".hada_w1_a", hada_w1_a},
                                                         {".hada_w1_b", hada_w1_b},
                                                         {".hada_w2_a", hada_w2_a},
                                                         {".hada_w2_b", hada_w2_b},
                                                         {".hada_t1", hada_t1},
                                                         {".hada_t2", hada_t2},
                                                         {".lokr_w1", lokr_w1},
                                                         {".lokr_w1_a", lokr_w1_a},
                                                         {".lokr_w1_b", lokr_w1_b},
                                                         {".lokr_w2", lokr_w2},
                                                         {".lokr_w2_a", lokr_w2_a},
                                                         {".lokr_w2_b", lokr_w2_b},
                                                         {".lokr_t2", lokr_t2},
                                                         {".diff", diff},
                                                         {".diff_b", diff_b},
                                                         {".w_norm", diff},
                                                         {".lora_B.bias", unsupported},
                                                         {".oft_blocks", unsupported},
                                                         {".reshape_weight", unsupported}};
  for (const auto& [ending, part] : endings) {
    const auto name = parse_adapter_name(std::string("a.b.0") + ending);
    ASSERT_TRUE(name) << ending;
    EXPECT_EQ(name->layer, "a.b.0") << ending;
    EXPECT_EQ(name->part, part) << ending;
    EXPECT_FALSE(parse_adapter_name(ending)) << "no layer is left";
  }
  for (const char* other : {"", ".", "a", "a.weight", "a.lora_A.x.y.weight", "a.lora_Ax", "a.alphabet", "lora_A.weight"})
    EXPECT_FALSE(parse_adapter_name(other)) << other;
}

TEST(LoraFile, APartDoesNotFitABiasOfOneValue) {
  const BlockNames parts = {{}, {{"qkv", {{"to_q", 0}, {"to_k", 0}, {"to_v", 0}}, false}}};
  const LayerNames fused({{"qkv", 12, 4}}, {ModelKind::diffusion, {&parts}, {}});
  const auto found = [&](std::int64_t values, const TensorInfo& bias) {
    const OpenedLora file({{"to_q.diff_b", at::ones({values})}});
    const LoraFile lora(file.dir / "lora.safetensors", host().open(file.dir / "lora.safetensors"), fused);
    return misfit(lora, lora.entries().at(0), true, bias).value_or("nothing");
  };
  EXPECT_EQ(found(4, {"qkv.bias", DType::f32, {12}}), "nothing");
  const std::string wrong = found(1, {"qkv.bias", DType::f32, {}});
  EXPECT_NE(wrong.find("'to_q.diff_b'"), std::string::npos) << wrong;
  EXPECT_NE(wrong.find("rows 0 to 3 of 'qkv.bias'"), std::string::npos) << wrong;
}

TEST(LoraFile, ValuesThatAreNotFiniteAreErrors) {
  const OpenedLora file({{"blocks.0.ffn.0.lora_A.weight", at::full({2, 8}, std::numeric_limits<double>::quiet_NaN())},
                   {"blocks.0.ffn.0.lora_B.weight", at::ones({4, 2})}});
  const LoraFile lora = file.open();
  expect_error(ErrorKind::input, {"lora.safetensors", "'blocks.0.ffn.0.lora_A.weight'", "finite"},
               [&] { lora.matrix(lora.entries()[0], AdapterPart::down); });
}

}  // namespace
}  // namespace qmill
