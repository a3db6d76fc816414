#include "readers/text_encoder_names.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <span>
#include <string_view>

namespace qmill {
namespace {

// "{}" is the number of a block.
struct NamePair {
  std::string_view from;
  std::string_view to;
};

constexpr NamePair kLlamaCppT5[] = {
    {"token_embd", "shared"},
    {"enc.output_norm", "encoder.final_layer_norm"},
    {"enc.blk.{}.attn_rel_b", "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias"},
    {"enc.blk.{}.attn_q", "encoder.block.{}.layer.0.SelfAttention.q"},
    {"enc.blk.{}.attn_k", "encoder.block.{}.layer.0.SelfAttention.k"},
    {"enc.blk.{}.attn_v", "encoder.block.{}.layer.0.SelfAttention.v"},
    {"enc.blk.{}.attn_o", "encoder.block.{}.layer.0.SelfAttention.o"},
    {"enc.blk.{}.attn_norm", "encoder.block.{}.layer.0.layer_norm"},
    {"enc.blk.{}.ffn_gate", "encoder.block.{}.layer.1.DenseReluDense.wi_0"},
    {"enc.blk.{}.ffn_up", "encoder.block.{}.layer.1.DenseReluDense.wi_1"},
    {"enc.blk.{}.ffn_down", "encoder.block.{}.layer.1.DenseReluDense.wo"},
    {"enc.blk.{}.ffn_norm", "encoder.block.{}.layer.1.layer_norm"},
};

constexpr NamePair kLlamaCpp[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm"},
    {"blk.{}.attn_q", "model.layers.{}.self_attn.q_proj"},
    {"blk.{}.attn_k", "model.layers.{}.self_attn.k_proj"},
    {"blk.{}.attn_v", "model.layers.{}.self_attn.v_proj"},
    {"blk.{}.attn_output", "model.layers.{}.self_attn.o_proj"},
    {"blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm"},
    {"blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm"},
    {"blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm"},
    {"blk.{}.ffn_gate", "model.layers.{}.mlp.gate_proj"},
    {"blk.{}.ffn_up", "model.layers.{}.mlp.up_proj"},
    {"blk.{}.ffn_down", "model.layers.{}.mlp.down_proj"},
};

constexpr NamePair kWanT5[] = {
    {"token_embedding", "shared"},
    {"norm", "encoder.final_layer_norm"},
    {"blocks.{}.pos_embedding.embedding", "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias"},
    {"blocks.{}.attn.q", "encoder.block.{}.layer.0.SelfAttention.q"},
    {"blocks.{}.attn.k", "encoder.block.{}.layer.0.SelfAttention.k"},
    {"blocks.{}.attn.v", "encoder.block.{}.layer.0.SelfAttention.v"},
    {"blocks.{}.attn.o", "encoder.block.{}.layer.0.SelfAttention.o"},
    {"blocks.{}.norm1", "encoder.block.{}.layer.0.layer_norm"},
    {"blocks.{}.ffn.gate.0", "encoder.block.{}.layer.1.DenseReluDense.wi_0"},
    {"blocks.{}.ffn.fc1", "encoder.block.{}.layer.1.DenseReluDense.wi_1"},
    {"blocks.{}.ffn.fc2", "encoder.block.{}.layer.1.DenseReluDense.wo"},
    {"blocks.{}.norm2", "encoder.block.{}.layer.1.layer_norm"},
};

// Beginnings of names, in the layouts that newer and older transformers write.
constexpr NamePair kNestedNames[] = {{"model.language_model.", "model."}, {"model.visual.", "visual."}};
constexpr NamePair kWrappedNames[] = {{"language_model.model.", "model."}, {"language_model.lm_head.", "lm_head."}};

// Models that llama.cpp stores with the values of the original; q and k of the last ones with other rows.
constexpr std::string_view kSameValues[] = {"qwen2", "qwen2vl", "qwen3", "qwen3vl"};
constexpr std::string_view kInterleaved[] = {"llama"};

enum class Dialect { unknown, llama_cpp_t5, llama_cpp, wan_t5, wrapped, nested };

Dialect dialect_of(const std::vector<TensorInfo>& tensors) {
  std::set<std::string_view> names;
  for (const TensorInfo& tensor : tensors) names.insert(tensor.name);
  const auto has = [&](std::string_view name) { return names.contains(name); };
  if (has("enc.blk.0.attn_q.weight")) return Dialect::llama_cpp_t5;
  if (has("blk.0.attn_q.weight") && has("token_embd.weight")) return Dialect::llama_cpp;
  if (has("blocks.0.attn.q.weight") && has("blocks.0.ffn.gate.0.weight") && has("token_embedding.weight")) return Dialect::wan_t5;
  if (has("language_model.model.layers.0.input_layernorm.weight")) return Dialect::wrapped;
  // Qwen2.5-VL, Qwen3-VL 32B, Mistral and Ministral 3. Qwen3.5 and smaller Qwen3-VL have these names in ComfyUI's files, too.
  const bool is_large_qwen3 = has("model.visual.deepstack_merger_list.0.norm.weight") &&
                              has("model.language_model.layers.49.self_attn.q_proj.weight");
  const bool is_mistral = has("model.language_model.layers.0.self_attn.q_proj.weight") && has("model.vision_tower.patch_conv.weight");
  if (has("model.language_model.layers.0.self_attn.q_proj.bias") || is_large_qwen3 || is_mistral) return Dialect::nested;
  return Dialect::unknown;
}

std::string metadata_text(const TensorSource& source, const std::string& key) {
  const auto found = source.metadata().find(key);
  return found == source.metadata().end() ? "" : found->second;
}

// What `base` becomes if it is `pair.from` with a number for its "{}"; empty: it is not.
std::string replaced(std::string_view base, const NamePair& pair) {
  const std::size_t place = pair.from.find("{}");
  if (place == std::string_view::npos) return base == pair.from ? std::string(pair.to) : "";
  const std::string_view before = pair.from.substr(0, place), after = pair.from.substr(place + 2);
  if (!base.starts_with(before) || !base.ends_with(after) || base.size() <= before.size() + after.size()) return {};
  const std::string_view number = base.substr(before.size(), base.size() - before.size() - after.size());
  if (!std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; })) return {};
  std::string name(pair.to);
  return name.replace(name.find("{}"), 2, number);
}

void rename_bases(const TensorSource& source, std::span<const NamePair> pairs, Renaming& renaming) {
  for (const TensorInfo& tensor : source.tensors()) {
    const std::size_t dot = tensor.name.rfind('.');
    if (dot == std::string::npos) continue;
    for (const NamePair& pair : pairs)
      if (const std::string base = replaced(std::string_view(tensor.name).substr(0, dot), pair); !base.empty())
        renaming.names.emplace(tensor.name, base + tensor.name.substr(dot));
  }
}

void rename_beginnings(const TensorSource& source, std::span<const NamePair> pairs, Renaming& renaming) {
  for (const TensorInfo& tensor : source.tensors())
    for (const NamePair& pair : pairs)
      if (tensor.name.starts_with(pair.from)) {
        renaming.names.emplace(tensor.name, std::string(pair.to) + tensor.name.substr(pair.from.size()));
        break;
      }
}

std::int64_t heads_of(const TensorSource& source, const std::string& key) {
  const std::string text = metadata_text(source, key);
  std::int64_t heads = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), heads);
  if (error != std::errc() || end != text.data() + text.size() || heads < 1)
    throw Error(ErrorKind::input, fmt::format("`rename` needs the number of attention heads, but the metadata '{}' is '{}'", key, text),
                "use the original model");
  return heads;
}

// llama.cpp stores rows 2i and 2i+1 of a head where the original has i and i + half.
void find_interleaved(const TensorSource& source, const std::string& architecture, Renaming& renaming) {
  const std::int64_t queries = heads_of(source, architecture + ".attention.head_count");
  // Written only if it differs.
  const std::string of_keys = architecture + ".attention.head_count_kv";
  const std::int64_t keys = source.metadata().contains(of_keys) ? heads_of(source, of_keys) : queries;
  for (const TensorInfo& tensor : source.tensors()) {
    const auto found = renaming.names.find(tensor.name);
    if (found == renaming.names.end()) continue;
    const bool is_query = found->second.find(".q_proj.") != std::string::npos;
    if (!is_query && found->second.find(".k_proj.") == std::string::npos) continue;
    const std::int64_t heads = is_query ? queries : keys;
    if (tensor.shape.empty() || heads > tensor.shape[0] / 2 || tensor.shape[0] % (2 * heads) != 0)
      throw Error(ErrorKind::input,
                  fmt::format("tensor '{}' is {}, expected rows for {} attention heads", tensor.name, tensor.shape_text(), heads),
                  "use the original model");
    renaming.heads.emplace(tensor.name, heads);
  }
}

void rename_llama_cpp(const TensorSource& source, Renaming& renaming) {
  const std::string architecture = metadata_text(source, "general.architecture");
  const auto is_in = [&](const auto& list) { return std::find(std::begin(list), std::end(list), architecture) != std::end(list); };
  if (!is_in(kSameValues) && !is_in(kInterleaved))
    throw Error(ErrorKind::unsupported,
                fmt::format("`rename` does not know the values of llama.cpp's architecture '{}'; known: qwen2, qwen2vl, qwen3, qwen3vl, "
                            "llama, t5",
                            architecture),
                "use the original model");
  renaming.dialect = fmt::format("llama.cpp ({})", architecture);
  rename_bases(source, kLlamaCpp, renaming);
  if (is_in(kInterleaved)) find_interleaved(source, architecture, renaming);
}

void require_unique(const TensorSource& source, const Renaming& renaming) {
  std::set<std::string> names;
  for (const TensorInfo& tensor : source.tensors()) {
    const auto found = renaming.names.find(tensor.name);
    const std::string& name = found == renaming.names.end() ? tensor.name : found->second;
    if (!names.insert(name).second)
      throw Error(ErrorKind::input, fmt::format("`rename` would give two tensors the name '{}'", name), "leave `rename` out");
  }
}

}  // namespace

bool has_other_names(const std::vector<TensorInfo>& tensors) { return dialect_of(tensors) != Dialect::unknown; }

Renaming renaming_of(const TensorSource& source) {
  Renaming renaming;
  switch (dialect_of(source.tensors())) {
    case Dialect::unknown:
      return renaming;
    case Dialect::llama_cpp_t5:
      renaming.dialect = "llama.cpp (t5)";
      rename_bases(source, kLlamaCppT5, renaming);
      break;
    case Dialect::llama_cpp:
      rename_llama_cpp(source, renaming);
      break;
    case Dialect::wan_t5:
      renaming.dialect = "Wan (UMT5)";
      rename_bases(source, kWanT5, renaming);
      break;
    case Dialect::wrapped:
      renaming.dialect = "transformers (language_model.model)";
      rename_beginnings(source, kWrappedNames, renaming);
      break;
    case Dialect::nested:
      renaming.dialect = "transformers (model.language_model)";
      rename_beginnings(source, kNestedNames, renaming);
      break;
  }
  require_unique(source, renaming);
  return renaming;
}

}  // namespace qmill
