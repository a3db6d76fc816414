#include "readers/text_encoders.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

namespace qmill {
namespace {

// One that ComfyUI reads quantized layers of; those of other widths or names are lines of their own.
struct KnownEncoder {
  std::string_view architecture;
  std::string_view name;
  std::string_view key;                // a vector of the model's width
  std::array<std::int64_t, 6> widths;  // those that ComfyUI has a configuration for
  std::string_view other_key = {};     // a tensor that must be there, too, for ComfyUI to find it; empty: none
};

constexpr std::string_view kT5 = "encoder.block.0.layer.0.layer_norm.weight";
constexpr std::string_view kLlama = "model.layers.0.input_layernorm.weight";
constexpr std::string_view kNested = "model.language_model.layers.0.input_layernorm.weight";
constexpr std::string_view kBare = "layers.0.input_layernorm.weight";

// ComfyUI passes the markers of these on (t5_quantization_metadata, llama_quantization_metadata). Names and widths: sd.py, detect_te_model.
constexpr KnownEncoder kReadQuantized[] = {
    {"t5xxl", "the T5-XXL text encoder", kT5, {4096}},
    {"umt5xxl", "the UMT5-XXL text encoder", kT5, {4096}},
    {"gemma2", "the Gemma 2 text encoder", kLlama, {2304}},
    {"gemma3", "the Gemma 3 text encoder", kLlama, {2560}},
    {"gemma3", "the Gemma 3 text encoder", kLlama, {3840}, "model.layers.47.self_attn.q_norm.weight"},
    {"gemma4", "the Gemma 4 text encoder", kLlama, {1536}, "model.layers.34.self_attn.q_norm.weight"},
    {"gemma4", "the Gemma 4 text encoder", kLlama, {2560}, "model.layers.41.self_attn.q_norm.weight"},
    {"gemma4", "the Gemma 4 text encoder", kLlama, {3840}, "model.layers.47.self_attn.q_norm.weight"},
    {"gemma4", "the Gemma 4 text encoder", kLlama, {5376}, "model.layers.59.self_attn.q_norm.weight"},
    {"qwen25", "the Qwen2.5 text encoder", kLlama, {2048, 3584}},
    {"qwen25_vl", "the Qwen2.5-VL text encoder", kLlama, {2048, 3584}},
    {"qwen3", "the Qwen3 text encoder", kLlama, {1024, 2048, 2560, 4096}},
    {"qwen3_vl", "the Qwen3-VL text encoder", kNested, {2560, 4096}, "model.visual.deepstack_merger_list.0.norm.weight"},
    {"qwen3_vl", "the Qwen3-VL text encoder", kLlama, {5120}, "model.layers.49.self_attn.q_proj.weight"},
    {"qwen35", "the Qwen3.5 text encoder", kNested, {1024, 2048, 2560, 4096, 5120}, "model.language_model.layers.0.linear_attn.A_log"},
    {"mistral3", "the Mistral 3 text encoder", kLlama, {5120}},
    {"ministral3", "the Ministral 3 text encoder", kLlama, {3072}},
    {"llama", "the Llama text encoder", kLlama, {4096}},
    {"gpt_oss", "the GPT-OSS text encoder", kBare, {2880}, "layers.0.mlp.experts.gate_up_proj.weight"},
};

struct IgnoringEncoder {
  std::string_view architecture;
  std::string_view name;
};

constexpr IgnoringEncoder kIgnoring[] = {{"clip_l", "the CLIP-L text encoder"},
                                         {"clip_g", "the CLIP-G text encoder"},
                                         {"clip_h", "the CLIP-H text encoder"},
                                         {"jina_clip", "the Jina CLIP text encoder"}};

// Widths of T5 models that ComfyUI loads without quantized layers: T5-base and UMT5-base, ByT5-small, Pile-T5-XL.
constexpr std::int64_t kIgnoringT5[] = {768, 1472, 2048};

// The T5 of Cosmos 1, the only one of the first version that ComfyUI has (T5_XXL_OLD).
constexpr std::string_view kOldT5 = "encoder.block.23.layer.1.DenseReluDense.wi.weight";
constexpr std::int64_t kOldT5Width = 1024;

// In checkpoints, by what follows "text_encoders.".
constexpr std::string_view kReadInCheckpoints[] = {"t5xxl", "umt5xxl", "llama", "gemma*", "qwen*", "mistral*", "ministral*", "gpt_oss*"};
constexpr IgnoringEncoder kIgnoringInCheckpoints[] = {
    {"clip_l", "the CLIP-L text encoder"},        {"clip_g", "the CLIP-G text encoder"},      {"clip_h", "the CLIP-H text encoder"},
    {"t5base", "the T5-base text encoder"},       {"umt5base", "the UMT5-base text encoder"}, {"pile_t5xl", "the Pile-T5-XL text encoder"},
    {"mt5xl", "the mT5-XL text encoder"},         {"hydit_clip", "the CLIP text encoder"},    {"byt5_small", "the ByT5 text encoder"},
    {"jina_clip_2", "the Jina CLIP text encoder"}};
// Diffusion models whose checkpoints are loaded with a text encoder that reads no markers, whichever it is.
constexpr std::string_view kIgnoringCheckpoints[] = {"pixart_alpha", "pixart_sigma", "aura_flow", "stable_audio",
                                                     "hunyuan_dit",  "ace_step",     "pixel_dit", "pid"};
// Diffusion models from whose checkpoints no text encoder is loaded (supported_models.py: clip_target makes none; that of CogVideoX fails).
constexpr std::string_view kCheckpointsWithout[] = {"cogvideox",  "hidream",    "hidream_o1", "hunyuan3d", "hunyuan3d_21",
                                                    "seedvr2_3b", "seedvr2_7b", "trellis2",   "triposplat"};

const TensorInfo* find(const std::vector<TensorInfo>& tensors, std::string_view name) {
  const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const TensorInfo& tensor) { return tensor.name == name; });
  return found == tensors.end() ? nullptr : &*found;
}

bool fits(std::string_view pattern, std::string_view name) {
  return pattern.ends_with('*') ? name.starts_with(pattern.substr(0, pattern.size() - 1)) : name == pattern;
}

// 0: the file has no such vector.
std::int64_t length_of(const std::vector<TensorInfo>& tensors, std::string_view name) {
  const TensorInfo* vector = find(tensors, name);
  return vector == nullptr || vector->shape.size() != 1 ? 0 : vector->shape[0];
}

bool has_width(const KnownEncoder& known, std::int64_t width) {
  return width != 0 && std::find(known.widths.begin(), known.widths.end(), width) != known.widths.end();
}

// `lines`: all of one architecture. A file of another layout is told what ComfyUI looks for at its width.
ModelPart judged(std::span<const KnownEncoder> lines, const std::vector<TensorInfo>& tensors) {
  ModelPart part{"", std::string(lines.front().name), std::nullopt, ""};
  std::int64_t width = 0;
  for (const KnownEncoder& known : lines) width = std::max(width, length_of(tensors, known.key));
  const auto fitting = std::find_if(lines.begin(), lines.end(), [&](const KnownEncoder& known) { return has_width(known, width); });
  if (width != 0 && fitting == lines.end()) {
    part.because = fmt::format("ComfyUI has no such text encoder of width {}", width);
    return part;
  }
  const KnownEncoder& known = fitting == lines.end() ? lines.front() : *fitting;
  for (const std::string_view key : {known.other_key, known.key})
    if (!key.empty() && find(tensors, key) == nullptr) {
      part.because = fmt::format("ComfyUI finds it by the name '{}', which the file does not have", key);
      return part;
    }
  part.loads_quantized = true;
  return part;
}

ModelPart judged_t5(const std::vector<TensorInfo>& tensors) {
  ModelPart part{"", "the T5 text encoder", std::nullopt, ""};
  const std::int64_t width = length_of(tensors, kT5);
  if (width == kOldT5Width && find(tensors, kOldT5) != nullptr) {
    part.loads_quantized = true;
  } else if (std::find(std::begin(kIgnoringT5), std::end(kIgnoringT5), width) != std::end(kIgnoringT5)) {
    part.loads_quantized = false;
    part.because = kReadsNoMarkers;
  } else {
    part.because = fmt::format("ComfyUI has no T5 text encoder of width {}", width);
  }
  return part;
}

}  // namespace

std::optional<ModelPart> text_encoder_of(const std::vector<TensorInfo>& tensors, std::string_view architecture) {
  const auto is_of = [&](const KnownEncoder& known) { return known.architecture == architecture; };
  const auto first = std::find_if(std::begin(kReadQuantized), std::end(kReadQuantized), is_of);
  const auto last = std::find_if_not(first, std::end(kReadQuantized), is_of);
  if (first != last) return judged({first, last}, tensors);
  for (const IgnoringEncoder& known : kIgnoring)
    if (known.architecture == architecture) return ModelPart{"", std::string(known.name), false, kReadsNoMarkers};
  if (architecture == "t5") return judged_t5(tensors);
  return std::nullopt;
}

std::string_view tokenizer_tensor(std::string_view architecture) {
  if (architecture == "umt5xxl" || architecture == "gemma2" || architecture == "gemma3") return "spiece_model";
  return architecture == "mistral3" ? "tekken_model" : "";
}

ModelPart text_encoder_in_checkpoint(std::string_view name, std::string_view architecture) {
  const std::string prefix = fmt::format("text_encoders.{}.", name);
  for (const IgnoringEncoder& known : kIgnoringInCheckpoints)
    if (known.architecture == name) return {prefix, std::string(known.name), false, kReadsNoMarkers};
  const std::string title = fmt::format("the text encoder '{}'", name);
  if (std::find(std::begin(kIgnoringCheckpoints), std::end(kIgnoringCheckpoints), architecture) != std::end(kIgnoringCheckpoints))
    return {prefix, title, false, kReadsNoMarkers};
  if (std::find(std::begin(kCheckpointsWithout), std::end(kCheckpointsWithout), architecture) != std::end(kCheckpointsWithout))
    return {prefix, title, false, "ComfyUI loads no text encoder from the checkpoint of this model"};
  const auto is_read = [&](std::string_view pattern) { return fits(pattern, name); };
  if (std::any_of(std::begin(kReadInCheckpoints), std::end(kReadInCheckpoints), is_read)) return {prefix, title, true, ""};
  return {prefix, title, std::nullopt, "it is not known how ComfyUI loads it from a checkpoint"};
}

}  // namespace qmill
