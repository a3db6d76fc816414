// Filters for text encoders, as data.
#include <qmill/plugin.h>

namespace filters_text {

// What every text encoder keeps: norms, token and position tables, output heads, projections into other models.
std::vector<std::string> kept_in_text_encoders() {
  return {"*norm*",
          "ln_*",
          "layernorm*",
          "embed_tokens",
          "embeddings",
          "*_embedding",
          "*_embeddings",
          "wte",
          "wpe",
          "shared",
          "lm_head",
          "patch_embed*",
          "patch_conv",
          "multi_modal_projector",
          "tekken_model",
          "relative_attention_bias",
          "text_projection"};
}

qmill::FilterData t5xxl() {
  return {{"t5xxl", "text", "T5 XXL encoders: keeps the token table, norms and position bias; removes the decoder and its head"},
          kept_in_text_encoders(),
          // The T5 decoder by its own parts, so that the decoder of an autoencoder in the same file stays.
          {"decoder.block", "decoder.embed_tokens", "decoder.final_layer_norm", "lm_head"},
          {"encoder.block.0.layer.0.SelfAttention.q", "encoder.block.0.layer.1.DenseReluDense.wi_0", "shared"}};
}

qmill::FilterData mistral() {
  return {{"mistral", "text", "Mistral text encoders: keeps the token table, norms, head and the vision projector"},
          kept_in_text_encoders(),
          {},
          {"layers.0.self_attn.q_proj", "layers.0.mlp.gate_proj", "multi_modal_projector"}};
}

qmill::FilterData visual() {
  return {{"visual", "text", "vision towers of multimodal encoders: keeps their MLPs, patch table and norms, whose sizes suit no kernel"},
          {"mlp.down_proj", "mlp.up_proj", "mlp.gate_proj", "patch_embed*", "*norm*", "merger.ln_q"},
          {},
          {"visual.patch_embed.proj", "visual.blocks.0.attn.qkv"}};
}

qmill::FilterData generic_text() {
  return {{"generic_text", "text", "any text encoder: keeps token and position tables, norms and heads"}, kept_in_text_encoders(), {}, {}};
}

}  // namespace filters_text

QMILL_PLUGIN("filters_text", "1.0", QMILL_FILTER("t5xxl", filters_text::t5xxl), QMILL_FILTER("mistral", filters_text::mistral),
             QMILL_FILTER("visual", filters_text::visual), QMILL_FILTER("generic_text", filters_text::generic_text));
