#include "readers/modules.h"

#include <qmill/pattern_filter.h>

#include <algorithm>
#include <span>
#include <string>

namespace qmill {
namespace {

// Patterns as in segments_match, on whole names. Embeddings of tokens, Anima's in its adapter among them.
constexpr std::string_view kTokenTables[] = {"embed_tokens.weight",  "embed_tokens_per_layer.weight",
                                             "token_embedding.weight", "tok_embeddings.weight",
                                             "word_embeddings.weight", "shared.weight",
                                             "wte.weight",             "lyric_embs.weight",
                                             "token_embd.weight",      "llm_adapter.embed.weight"};

// Embeddings of positions, and of the few kinds of something.
constexpr std::string_view kSmallTables[] = {"position_embedding.weight",  "position_embeddings.weight",
                                             "token_type_embeddings.weight", "wpe.weight",
                                             "relative_attention_bias.weight", "style_embedder.weight",
                                             "trainable_cond_mask.weight",   "cond_type_embedding.weight"};

// HiDream's and Hunyuan3D's routers, and the motion encoder of Wan Animate.
constexpr std::string_view kParameters[] = {"ff_i.gate.weight", "moe.gate.weight", "motion_encoder.enc", "motion_encoder.dec"};

bool is_one_of(std::span<const std::string_view> patterns, std::string_view base) {
  const std::string weight = std::string(base) + ".weight";
  return std::any_of(patterns.begin(), patterns.end(), [&](std::string_view pattern) { return segments_match(pattern, weight); });
}

}  // namespace

ModuleKind module_kind(std::string_view base) {
  if (is_token_table(base) || is_one_of(kSmallTables, base)) return ModuleKind::embedding;
  return is_one_of(kParameters, base) ? ModuleKind::parameter : ModuleKind::linear;
}

bool is_token_table(std::string_view base) { return is_one_of(kTokenTables, base); }

}  // namespace qmill
