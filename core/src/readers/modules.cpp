#include "readers/modules.h"

#include <qmill/pattern_filter.h>

#include <algorithm>
#include <string>

namespace qmill {
namespace {

constexpr std::string_view kEmbeddings[] = {"embed_tokens",
                                            "embed_tokens_per_layer",
                                            "token_embedding",
                                            "position_embedding",
                                            "tok_embeddings",
                                            "word_embeddings",
                                            "position_embeddings",
                                            "token_type_embeddings",
                                            "shared",
                                            "wte",
                                            "wpe",
                                            "relative_attention_bias",
                                            "style_embedder",
                                            "trainable_cond_mask",
                                            "lyric_embs",
                                            "cond_type_embedding",
                                            "token_embd"};

// Patterns as in segments_match, on whole names: HiDream's and Hunyuan3D's routers, and the motion encoder of Wan Animate.
constexpr std::string_view kParameters[] = {"ff_i.gate.weight", "moe.gate.weight", "motion_encoder.enc", "motion_encoder.dec"};

}  // namespace

ModuleKind module_kind(std::string_view base) {
  const std::size_t dot = base.rfind('.');
  const std::string_view last = dot == std::string_view::npos ? base : base.substr(dot + 1);
  if (std::find(std::begin(kEmbeddings), std::end(kEmbeddings), last) != std::end(kEmbeddings)) return ModuleKind::embedding;
  const std::string weight = std::string(base) + ".weight";
  const auto is_this = [&](std::string_view pattern) { return segments_match(pattern, weight); };
  return std::any_of(std::begin(kParameters), std::end(kParameters), is_this) ? ModuleKind::parameter : ModuleKind::linear;
}

bool reads_format(ModuleKind kind, std::string_view format) {
  switch (kind) {
    case ModuleKind::linear:
      return true;
    case ModuleKind::embedding:
      return format.starts_with("float8_") || format == "int8_tensorwise";
    case ModuleKind::parameter:
      return false;
  }
  return false;
}

}  // namespace qmill
