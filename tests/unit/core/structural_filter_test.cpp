// What the structural filter keeps of a model that nobody described.
#include "rules/structural_filter.h"

#include <gtest/gtest.h>

namespace qmill {
namespace {

struct Model {
  explicit Model(const std::vector<std::string>& names) {
    for (const std::string& name : names) tensors.push_back({name, DType::bf16, {64, 64}});
  }
  std::string reason(const std::string& name) const { return StructuralFilter(tensors).classify({name, DType::bf16, {64, 64}}).reason; }

  std::vector<TensorInfo> tensors;
};

TEST(StructuralFilter, KeepsWhatLiesOutsideTheBlocks) {
  const Model model({"first.weight", "blocks.0.attn.q.weight", "blocks.1.attn.q.weight", "last.weight", "time.0.weight", "time.2.weight"});
  EXPECT_EQ(model.reason("first.weight"), "outside the blocks");
  EXPECT_EQ(model.reason("last.weight"), "outside the blocks");
  EXPECT_EQ(model.reason("time.2.weight"), "outside the blocks") << "a number before the parameter is no block";
  EXPECT_EQ(model.reason("blocks.0.attn.q.weight"), "");
  EXPECT_EQ(model.reason("model.diffusion_model.blocks.17.mlp.0.weight"), "");
}

TEST(StructuralFilter, KeepsEmbeddingsModulationAndNormsAnywhere) {
  const Model model({"blocks.0.attn.q.weight"});
  EXPECT_EQ(model.reason("blocks.0.rel_pos_embed.x.weight"), "an embedding");
  EXPECT_EQ(model.reason("blocks.0.img_mod.1.weight"), "modulation");
  EXPECT_EQ(model.reason("blocks.0.adaLN_modulation.1.weight"), "modulation");
  EXPECT_EQ(model.reason("blocks.0.norm1.linear.weight"), "a norm");
  EXPECT_EQ(model.reason("language_model.blocks.0.model_proj.x.weight"), "") << "'model' is no modulation";
  EXPECT_EQ(model.reason("blocks.0.shared_experts.w1.weight"), "");
  EXPECT_EQ(model.reason("shared.weight"), "an embedding");
}

TEST(StructuralFilter, InAModelWithoutBlocksWordsAloneDecide) {
  const Model model({"q.weight", "k.weight", "token_embedding.weight"});
  EXPECT_EQ(model.reason("q.weight"), "");
  EXPECT_EQ(model.reason("token_embedding.weight"), "an embedding");
  EXPECT_EQ(model.reason("lm_head.weight"), "a last layer");
}

}  // namespace
}  // namespace qmill
