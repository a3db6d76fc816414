#include "readers/model_parts.h"

#include "readers/text_encoder_names.h"
#include "readers/text_encoders.h"

#include <qmill/pattern_filter.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

constexpr std::string_view kTextEncoders = "text_encoders.";
// Where ComfyUI looks for a diffusion model (model_detection.py, unet_prefix_from_state_dict).
constexpr std::string_view kDiffusionPrefixes[] = {"", "model.diffusion_model.", "model.model.", "net.", "model."};

struct KnownPart {
  std::string_view prefix;
  std::string_view name;
};

// Parts of checkpoints that are loaded without quantized layers.
constexpr KnownPart kFloatParts[] = {
    {"conditioner.embedders.0.transformer.", "the CLIP-L text encoder"},
    {"conditioner.embedders.0.model.", "the CLIP-G text encoder"},
    {"conditioner.embedders.1.", "the CLIP-G text encoder"},
    {"conditioner.", "the text encoder"},
    {"cond_stage_model.", "the CLIP text encoder"},
    {"first_stage_model.", "the VAE"},
    {"vae.", "the VAE"},
    {"audio_vae.", "the audio VAE"},
    {"vocoder.", "the vocoder"},
    {"pretransform.", "the VAE"},
    {"control_model.", "the ControlNet"},
    {"clip_vision.", "the vision encoder"},
    {"model_ema.", "the averaged weights, which ComfyUI does not load"},
};

struct KnownFile {
  std::string_view key;  // a run of segments, as in segments_match, that is in the name of one tensor
  std::string_view name;
};

// Files of one part that is loaded without quantized layers. Before diffusion models: a ControlNet has the blocks of one.
constexpr KnownFile kFloatFiles[] = {
    {"^input_hint_block", "the ControlNet"},
    {"^controlnet_cond_embedding", "the ControlNet"},
    {"^controlnet_blocks", "the ControlNet"},
    {"^controlnet_x_embedder", "the ControlNet"},
    {"^zero_convs", "the ControlNet"},
    {"^redux_up", "the style model"},
    {"^style_embedding", "the style model"},
    {"^vision_model.encoder.layers.0", "the vision encoder"},
    {"^visual.transformer.resblocks.0", "the vision encoder"},
    {"^vision_tower.vision_model.encoder.layers.0", "the vision encoder"},
    {"^model.encoder.layers.0.pre_self_attn_layernorm", "the T5Gemma text encoder"},
    {"^decoder.conv_in", "the VAE"},
    {"^decoder.middle.0", "the VAE"},
    {"^decoder.up_blocks.0", "the VAE"},
};

// In names of matrices of LoRAs, which ComfyUI multiplies as they are (lora.py, weight_adapter).
constexpr std::string_view kLoraMatrices[] = {".lora_A", ".lora_B", ".lora_down", ".lora_up", ".lora.", ".lora_linear_layer.",
                                              ".hada_w", ".lokr_w"};

bool is_lora(const std::vector<TensorInfo>& tensors) {
  const auto is_of_lora = [](const TensorInfo& tensor) {
    return std::any_of(std::begin(kLoraMatrices), std::end(kLoraMatrices),
                       [&](std::string_view part) { return tensor.name.find(part) != std::string::npos; });
  };
  return 2 * static_cast<std::size_t>(std::count_if(tensors.begin(), tensors.end(), is_of_lora)) > tensors.size();
}

// ComfyUI builds the linear layers of these with the operations that read markers (model_base.py; ops.py, pick_operations).
constexpr std::string_view kDiffusionModels[] = {
    "ace_step",
    "ace_step15",
    "anima",
    "aura_flow",
    "boogu",
    "chroma",
    "cogvideox",
    "cosmos1",
    "cosmos_predict2",
    "ernie_image",
    "flux1",
    "flux2",
    "hidream",
    "hidream_o1",
    "hunyuan3d",
    "hunyuan3d_21",
    "hunyuan_dit",
    "hunyuan_image",
    "hunyuan_video",
    "hunyuan_video15",
    "ideogram4",
    "joy_image",
    "kandinsky5",
    "kandinsky6",
    "krea2",
    "lens",
    "longcat_image",
    "ltx2",
    "ltxv",
    "lumina2",
    "mage_flow",
    "ming_image",
    "minimax_h3",
    "minimax_music3",
    "mochi",
    "newbie",
    "omnigen2",
    "ovis_image",
    "pid",
    "pixart_alpha",
    "pixart_sigma",
    "pixel_dit",
    "qwen_image",
    "qwen_image_21",
    "qwen_image_edit",
    "qwen_image_layered",
    "radiance",
    "sd1",
    "sd2",
    "sd3",
    "sdxl",
    "sdxl_refiner",
    "seedvr2_3b",
    "seedvr2_7b",
    "sensenova_u15",
    "stable_audio",
    "stable_cascade_b",
    "stable_cascade_c",
    "trellis2",
    "triposplat",
    "unet",
    "wan_animate",
    "wan_camera",
    "wan_dancer",
    "wan_humo",
    "wan_i2v",
    "wan_s2v",
    "wan_scail",
    "wan_scail2",
    "wan_t2v",
    "wan_vace",
    "yue2",
    "z_image",
    "z_image_pixel",
};

// The names of layers that ComfyUI makes of several while it loads them (diffusers_convert.py, model_detection.py).
constexpr std::string_view kRenamed = "_diffusers";

ModelPart diffusion_model(std::string_view architecture, std::string_view prefix) {
  ModelPart part{std::string(prefix), fmt::format("the diffusion model {}", architecture), std::nullopt, ""};
  const auto is_in = [](const auto& list, std::string_view text) {
    return std::find(std::begin(list), std::end(list), text) != std::end(list);
  };
  if (!is_in(kDiffusionPrefixes, prefix)) {
    part.because = fmt::format(
        "it is below '{}', but ComfyUI looks for it without a prefix or below model.diffusion_model, model.model, net or model", prefix);
  } else if (is_in(kDiffusionModels, architecture)) {
    part.loads_quantized = true;
  } else if (architecture.ends_with(kRenamed)) {
    part.loads_quantized = false;
    part.because = "ComfyUI renames and joins its tensors while it loads them, and leaves markers and scales behind";
  } else {
    part.because = fmt::format("it is not known whether ComfyUI loads the architecture '{}'", architecture);
  }
  return part;
}

// "t5xxl" of "text_encoders.t5xxl.transformer.shared.weight"; empty: it is no such name.
std::string_view encoder_name(std::string_view tensor) {
  if (!tensor.starts_with(kTextEncoders)) return {};
  tensor.remove_prefix(kTextEncoders.size());
  return tensor.substr(0, tensor.find('.'));
}

// The whole of a file that is one part.
ModelPart whole_file(const std::vector<TensorInfo>& tensors, std::string_view architecture) {
  if (is_lora(tensors)) return {"", "the LoRA", false, kReadsNoMarkers};
  if (has_other_names(tensors))
    return {"", "the text encoder", std::nullopt,
            "its tensors have names that ComfyUI does not look for; `rename` gives them those that it does"};
  std::optional<ModelPart> encoder = text_encoder_of(tensors, architecture);
  if (encoder) return *std::move(encoder);
  for (const KnownFile& file : kFloatFiles)
    for (const TensorInfo& tensor : tensors)
      if (segments_match(file.key, tensor.name)) return {"", std::string(file.name), false, kReadsNoMarkers};
  if (architecture.empty()) return {"", "the model", std::nullopt, "its architecture is not recognised"};
  return diffusion_model(architecture, "");
}

}  // namespace

ModelParts::ModelParts(const std::vector<TensorInfo>& tensors, std::string_view architecture, std::string_view prefix) {
  for (const KnownPart& part : kFloatParts) parts_.push_back({std::string(part.prefix), std::string(part.name), false, kReadsNoMarkers});
  for (const TensorInfo& tensor : tensors)
    if (const std::string_view name = encoder_name(tensor.name); !name.empty() && !text_encoders_.contains(name))
      text_encoders_.emplace(name, text_encoder_in_checkpoint(name, architecture));
  const bool is_checkpoint = !prefix.empty() && !text_encoder_of(tensors, architecture);
  if (is_checkpoint) parts_.push_back(diffusion_model(architecture, prefix));
  std::stable_sort(parts_.begin(), parts_.end(), [](const ModelPart& a, const ModelPart& b) { return a.prefix.size() > b.prefix.size(); });
  parts_.push_back(is_checkpoint ? ModelPart{"", "the rest of the checkpoint", false, "ComfyUI does not load it"}
                                 : whole_file(tensors, architecture));
}

const ModelPart& ModelParts::of(std::string_view tensor) const {
  if (const auto encoder = text_encoders_.find(encoder_name(tensor)); encoder != text_encoders_.end()) return encoder->second;
  return *std::find_if(parts_.begin(), parts_.end(), [&](const ModelPart& part) { return tensor.starts_with(part.prefix); });
}

}  // namespace qmill
