#include "readers/text_encoders.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace qmill {
namespace {

struct KnownEncoder {
  std::string_view architecture;
  std::string_view name;
  std::array<std::string_view, 2> keys;  // vectors of the model's width; ComfyUI finds the model by such names, without a prefix
  std::array<std::int64_t, 6> widths;    // those that it has a configuration for; all 0: any
};

constexpr std::string_view kT5 = "encoder.block.0.layer.0.layer_norm.weight";
constexpr std::string_view kLlama = "model.layers.0.input_layernorm.weight";
constexpr std::string_view kNested = "model.language_model.layers.0.input_layernorm.weight";

// ComfyUI passes the markers of these on (t5_quantization_metadata, llama_quantization_metadata).
constexpr KnownEncoder kReadQuantized[] = {
    {"t5xxl", "the T5-XXL text encoder", {kT5}, {4096}},
    {"umt5xxl", "the UMT5-XXL text encoder", {kT5}, {4096}},
    {"gemma2", "the Gemma 2 text encoder", {kLlama}, {2304}},
    {"gemma3", "the Gemma 3 text encoder", {kLlama}, {2560, 3840}},
    {"gemma4", "the Gemma 4 text encoder", {kNested}, {}},
    {"qwen25", "the Qwen2.5 text encoder", {kLlama}, {2048, 3584}},
    {"qwen25_vl", "the Qwen2.5-VL text encoder", {kLlama}, {2048, 3584}},
    {"qwen3", "the Qwen3 text encoder", {kLlama}, {1024, 2048, 2560, 4096, 5120}},
    {"qwen3_vl", "the Qwen3-VL text encoder", {kLlama}, {2048, 2560, 4096, 5120}},
    {"qwen35", "the Qwen3.5 text encoder", {kNested}, {1024, 2048, 2560, 4096, 5120}},
    {"mistral3", "the Mistral 3 text encoder", {kLlama, kNested}, {5120}},
    {"ministral3", "the Ministral 3 text encoder", {kLlama, kNested}, {3072}},
    {"llama", "the Llama text encoder", {kLlama}, {4096}},
    {"gpt_oss", "the GPT-OSS text encoder", {kLlama}, {2880}},
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

// In checkpoints, by what follows "text_encoders.".
constexpr std::string_view kReadInCheckpoints[] = {"t5xxl", "umt5xxl", "llama", "gemma*", "qwen*", "mistral*", "ministral*", "gpt_oss*"};
constexpr IgnoringEncoder kIgnoringInCheckpoints[] = {
    {"clip_l", "the CLIP-L text encoder"},        {"clip_g", "the CLIP-G text encoder"},      {"clip_h", "the CLIP-H text encoder"},
    {"t5base", "the T5-base text encoder"},       {"umt5base", "the UMT5-base text encoder"}, {"pile_t5xl", "the Pile-T5-XL text encoder"},
    {"mt5xl", "the mT5-XL text encoder"},         {"hydit_clip", "the CLIP text encoder"},    {"byt5_small", "the ByT5 text encoder"},
    {"jina_clip_2", "the Jina CLIP text encoder"}};
// Diffusion models whose checkpoints are loaded with a text encoder that reads no markers, whichever it is.
constexpr std::string_view kIgnoringCheckpoints[] = {"pixart_alpha", "pixart_sigma", "aura_flow",
                                                     "stable_audio", "hunyuan_dit",  "ace_step"};

const TensorInfo* find(const std::vector<TensorInfo>& tensors, std::string_view name) {
  const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const TensorInfo& tensor) { return tensor.name == name; });
  return found == tensors.end() ? nullptr : &*found;
}

bool fits(std::string_view pattern, std::string_view name) {
  return pattern.ends_with('*') ? name.starts_with(pattern.substr(0, pattern.size() - 1)) : name == pattern;
}

ModelPart judged(const KnownEncoder& known, const std::vector<TensorInfo>& tensors) {
  ModelPart part{"", std::string(known.name), std::nullopt, ""};
  for (const std::string_view key : known.keys) {
    const TensorInfo* vector = key.empty() ? nullptr : find(tensors, key);
    if (vector == nullptr || vector->shape.size() != 1) continue;
    const std::int64_t width = vector->shape[0];
    if (known.widths[0] == 0 || std::find(known.widths.begin(), known.widths.end(), width) != known.widths.end())
      part.loads_quantized = true;
    else
      part.because = fmt::format("ComfyUI has no such text encoder of width {}", width);
    return part;
  }
  part.because = fmt::format("ComfyUI finds it by the name '{}', which the file does not have", known.keys[0]);
  return part;
}

ModelPart judged_t5(const std::vector<TensorInfo>& tensors) {
  ModelPart part{"", "the T5 text encoder", std::nullopt, ""};
  const TensorInfo* vector = find(tensors, kT5);
  const std::int64_t width = vector == nullptr || vector->shape.empty() ? 0 : vector->shape[0];
  if (std::find(std::begin(kIgnoringT5), std::end(kIgnoringT5), width) != std::end(kIgnoringT5)) {
    part.loads_quantized = false;
    part.because = kReadsNoMarkers;
  } else {
    part.because = fmt::format("ComfyUI has no T5 text encoder of width {}", width);
  }
  return part;
}

}  // namespace

std::optional<ModelPart> text_encoder_of(const std::vector<TensorInfo>& tensors, std::string_view architecture) {
  for (const KnownEncoder& known : kReadQuantized)
    if (known.architecture == architecture) return judged(known, tensors);
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
  const auto is_read = [&](std::string_view pattern) { return fits(pattern, name); };
  if (std::any_of(std::begin(kReadInCheckpoints), std::end(kReadInCheckpoints), is_read)) return {prefix, title, true, ""};
  return {prefix, title, std::nullopt, "it is not known how ComfyUI loads it from a checkpoint"};
}

}  // namespace qmill
