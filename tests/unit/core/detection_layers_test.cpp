#include "readers/detection_layers.h"

#include <gtest/gtest.h>

#include <string>

namespace qmill {
namespace {

TEST(DetectionLayers, ColumnsAreReadOfInputsAndContextsAtAnyDepth) {
  for (const char* prefix : {"", "model.diffusion_model.", "net.", "input_blocks.4.1."})
    for (const char* name :
         {"img_in", "txt_in", "vector_in.in_layer", "context_embedder", "y_embedder.mlp.0", "cond_seq_linear", "txt_in.input_embedder",
          "transformer_blocks.0.attn2.to_k", "label_emb.0.0", "condition_proj", "time_embedder.proj_in", "cap_embedder.1", "x_embedder",
          "blocks.0.norm1.linear", "patch_embed.text_proj", "x_embedder.proj.1", "input_proj", "first", "txtfusion.projector",
          "visual_embeddings.in_layer", "latent_in", "cond_in", "to_global_embed.0", "project_in"}) {
      const std::string weight = std::string(prefix) + name + ".weight";
      EXPECT_NE(find_detection_layer(weight, Side::columns), nullptr) << weight;
    }
}

TEST(DetectionLayers, TheirNeighboursAndThoseWhoseRowsAreReadAreNot) {
  for (const char* name :
       {"transformer_blocks.1.attn2.to_k.weight", "transformer_blocks.0.attn1.to_k.weight", "transformer_blocks.0.attn2.to_q.weight",
        "transformer_blocks.10.attn2.to_k.weight", "my_img_in.weight", "img_in.lora_A.weight", "img_in.individual_token_refiner.weight",
        "label_emb.0.2.weight", "blocks.10.norm1.linear.weight", "final_layer.linear.weight", "cap_embedder.0.weight", "img_in_patch.weight",
        "head.head.weight", "blocks.0.ffn.0.weight", "proj_out.weight"})
    EXPECT_EQ(find_detection_layer(name, Side::columns), nullptr) << name;
}

TEST(DetectionLayers, EveryEntryReadsSomethingAndSaysOfWhichModels) {
  for (const DetectionLayer& layer : detection_layers()) {
    EXPECT_TRUE(layer.reads_columns || layer.reads_rows) << layer.pattern;
    EXPECT_TRUE(layer.pattern.ends_with(".weight")) << layer.pattern;
    EXPECT_FALSE(layer.models.empty()) << layer.pattern;
  }
}

}  // namespace
}  // namespace qmill
