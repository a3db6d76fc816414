#include "readers/detection_layers.h"

#include <qmill/pattern_filter.h>

namespace qmill {

std::span<const DetectionLayer> detection_layers() {
  static constexpr DetectionLayer kLayers[] = {
      {"context_embedder.weight", "SD3"},
      {"y_embedder.mlp.0.weight", "SD3"},
      {"cond_seq_linear.weight", "AuraFlow"},
      {"txt_in.input_embedder.weight", "HunyuanVideo"},
      {"img_in.weight", "Flux, Lens, Qwen-Image"},
      {"txt_in.weight", "Flux"},
      {"vector_in.in_layer.weight", "Flux"},
      {"transformer_blocks.0.attn2.to_k.weight", "LTX, SD, SDXL", true, true},
      {"label_emb.0.0.weight", "SD, SDXL"},
      {"condition_proj.weight", "MiniMax-H3"},
      {"time_embedder.proj_in.weight", "MiniMax-H3"},
      {"cap_embedder.1.weight", "Lumina2, Z-Image"},
      {"x_embedder.weight", "Lumina2, Z-Image"},
      {"blocks.0.norm1.linear.weight", "CogVideoX"},
      {"patch_embed.*.weight", "CogVideoX"},
      {"x_embedder.proj.1.weight", "Cosmos, Anima"},
      {"input_proj.weight", "Ideogram4"},
      {"first.weight", "Krea2"},
      {"txtfusion.projector.weight", "Krea2"},
      {"visual_embeddings.in_layer.weight", "Kandinsky5"},
      {"latent_in.weight", "Hunyuan3D"},
      {"cond_in.weight", "Hunyuan3D"},
      {"to_global_embed.0.weight", "Stable Audio"},
      {"project_in.weight", "Stable Audio"},
      {"blocks.0.ffn.0.weight", "Wan", false, true},
      {"head.head.weight", "Wan", false, true},
      {"final_layer.linear.weight", "SD3, Cosmos, Lumina2, Z-Image", false, true},
      {"blocks.0.attn.wq.weight", "Krea2", false, true},
      {"blocks.0.attn.wk.weight", "Krea2", false, true},
      {"blocks.0.attn.qkv_proj.weight", "MiniMax-H3", false, true},
      {"blocks.0.mlp.fc1.weight", "MiniMax-H3", false, true},
      {"proj_out.weight", "Lens, Qwen-Image 2.1, Mage-Flow", false, true},
  };
  return kLayers;
}

const DetectionLayer* find_detection_layer(std::string_view weight_name, Side side) {
  for (const DetectionLayer& layer : detection_layers())
    if ((side == Side::rows ? layer.reads_rows : layer.reads_columns) && segments_match(layer.pattern, weight_name)) return &layer;
  return nullptr;
}

}  // namespace qmill
