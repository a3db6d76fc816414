#include <qmill/detection_layers.h>

#include <gtest/gtest.h>

using namespace qmill;

namespace {

TEST(DetectionLayers, ColumnsAreReadOfInputsAndContexts) {
  for (const char* name : {"img_in.weight", "model.diffusion_model.img_in.weight", "transformer_blocks.0.attn2.to_k.weight",
                           "x_embedder.proj.1.weight", "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", "cap_embedder.1.weight",
                           "patch_embed.text_proj.weight", "blocks.0.norm1.linear.weight", "first.weight"})
    EXPECT_NE(find_detection_layer(name), nullptr) << name;
  for (const char* name :
       {"transformer_blocks.1.attn2.to_k.weight", "transformer_blocks.0.attn1.to_k.weight", "img_in_patch.weight",
        "blocks.1.norm1.linear.weight", "head.head.weight", "final_layer.linear.weight", "blocks.0.ffn.0.weight", "proj_out.weight"})
    EXPECT_EQ(find_detection_layer(name), nullptr) << name;
}

TEST(DetectionLayers, RowsAreReadOfOutputsAndWidths) {
  for (const char* name :
       {"head.head.weight", "final_layer.linear.weight", "blocks.0.ffn.0.weight", "proj_out.weight", "blocks.0.attn.wk.weight",
        "blocks.0.attn.qkv_proj.weight", "blocks.0.mlp.fc1.weight", "transformer_blocks.0.attn2.to_k.weight"})
    EXPECT_NE(find_detection_rows(name), nullptr) << name;
  for (const char* name : {"img_in.weight", "blocks.1.ffn.0.weight", "blocks.0.ffn.2.weight", "final_layer.adaLN_modulation.1.weight"})
    EXPECT_EQ(find_detection_rows(name), nullptr) << name;
}

TEST(DetectionLayers, EveryEntryReadsSomethingAndSaysOfWhichModels) {
  for (const DetectionLayer& layer : detection_layers()) {
    EXPECT_TRUE(layer.reads_columns || layer.reads_rows) << layer.pattern;
    EXPECT_TRUE(layer.pattern.ends_with(".weight")) << layer.pattern;
    EXPECT_FALSE(layer.models.empty()) << layer.pattern;
  }
}

}  // namespace
