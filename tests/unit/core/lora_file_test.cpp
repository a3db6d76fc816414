#include "lora/lora_file.h"
#include "core_support.h"

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

struct File {
  explicit File(const std::vector<testing::NamedTensor>& tensors) { write_model(dir / "lora.safetensors", tensors); }
  LoraFile open() const { return LoraFile(host(), dir / "lora.safetensors", layers()); }
  TempDir dir;
};

TEST(LayerNames, PrefixesAreStrippedAsOftenAsThereIsOne) {
  EXPECT_EQ(without_prefixes("model.diffusion_model.blocks.0"), "blocks.0");
  EXPECT_EQ(without_prefixes("base_model.model.transformer.blocks.0"), "blocks.0");
  EXPECT_EQ(without_prefixes("modeling.blocks"), "modeling.blocks");
  EXPECT_EQ(without_prefixes("model."), "model.") << "nothing would be left";
}

TEST(LoraFile, EverySpellingFindsItsLayer) {
  const std::pair<const char*, const char*> spellings[] = {
      {"blocks.0.ffn.0.lora_A.weight", "blocks.0.ffn.0.lora_B.weight"},
      {"blocks.0.ffn.0.lora_A.default.weight", "blocks.0.ffn.0.lora_B.default.weight"},
      {"diffusion_model.blocks.0.ffn.0.lora_down.weight", "diffusion_model.blocks.0.ffn.0.lora_up.weight"},
      {"transformer.blocks.0.ffn.0.lora.down.weight", "transformer.blocks.0.ffn.0.lora.up.weight"},
      {"base_model.model.blocks.0.ffn.0.lora_A.weight", "base_model.model.blocks.0.ffn.0.lora_B.weight"},
      {"lora_unet_blocks_0_ffn_0.lora_down.weight", "lora_unet_blocks_0_ffn_0.lora_up.weight"},
  };
  for (const auto& [down, up] : spellings) {
    const File file({{down, at::ones({2, 8})}, {up, at::ones({4, 2})}});
    const LoraFile lora = file.open();
    ASSERT_EQ(lora.pairs().size(), 1u) << down;
    EXPECT_EQ(layers().bases()[lora.pairs()[0].layer], "blocks.0.ffn.0");
    EXPECT_EQ(lora.source().tensors()[lora.pairs()[0].down].name, down);
    EXPECT_EQ(lora.source().tensors()[lora.pairs()[0].up].name, up);
    EXPECT_EQ(lora.pair_of(lora.pairs()[0].layer), 0u);
    EXPECT_TRUE(lora.unmatched().empty());
  }
}

TEST(LoraFile, KohyaNamesFindLayersBehindPrefixes) {
  const File file({{"lora_unet_blocks_0_attn_q_k.lora_down.weight", at::ones({2, 8})},
                   {"lora_unet_blocks_0_attn_q_k.lora_up.weight", at::ones({4, 2})},
                   {"lora_unet_blocks_0_attn_q_k.alpha", at::full({}, 3.)}});
  expect_error(ErrorKind::input, {"lora.safetensors", "blocks_0_attn_q_k", "blocks.0.attn.q_k", "blocks.0.attn_q.k"}, [&] { file.open(); });
  const File clear({{"lora_unet_blocks_0_attn_q.lora_down.weight", at::ones({2, 8})},
                    {"lora_unet_blocks_0_attn_q.lora_up.weight", at::ones({4, 2})},
                    {"lora_unet_blocks_0_attn_q.alpha", at::full({}, 3.)}});
  const LoraFile lora = clear.open();
  ASSERT_EQ(lora.pairs().size(), 1u);
  EXPECT_EQ(layers().bases()[lora.pairs()[0].layer], "model.diffusion_model.blocks.0.attn.q");
  ASSERT_TRUE(lora.pairs()[0].alpha);
  EXPECT_EQ(lora.matrix(*lora.pairs()[0].alpha).item<float>(), 3);
}

TEST(LoraFile, WhatMatchesNothingIsListed) {
  const File file({{"blocks.0.ffn.0.lora_A.weight", at::ones({2, 8})},
                   {"blocks.0.ffn.0.lora_B.weight", at::ones({4, 2})},
                   {"blocks.9.lora_A.weight", at::ones({2, 8})},
                   {"blocks.9.lora_B.weight", at::ones({4, 2})},
                   {"blocks.0.ffn.0.dora_scale", at::ones({4})},
                   {"blocks.9.alpha", at::ones({})}});
  EXPECT_EQ(file.open().unmatched().size(), 4u);
}

TEST(LoraFile, IncompleteAndContradictoryFilesAreErrors) {
  const at::Tensor a = at::ones({2, 8});
  const at::Tensor b = at::ones({4, 2});
  const auto expect = [](std::initializer_list<std::string_view> parts, const std::vector<testing::NamedTensor>& tensors) {
    const File file(tensors);
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

TEST(LoraFile, ValuesThatAreNotFiniteAreErrors) {
  const File file({{"blocks.0.ffn.0.lora_A.weight", at::full({2, 8}, std::numeric_limits<double>::quiet_NaN())},
                   {"blocks.0.ffn.0.lora_B.weight", at::ones({4, 2})}});
  const LoraFile lora = file.open();
  expect_error(ErrorKind::input, {"lora.safetensors", "'blocks.0.ffn.0.lora_A.weight'", "finite"},
               [&] { lora.matrix(lora.pairs()[0].down); });
}

}  // namespace
}  // namespace qmill
