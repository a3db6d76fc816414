// The parts of a model file, and which of them ComfyUI loads with quantized layers.
#pragma once

#include <qmill/tensor_info.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

// A part of a model that a reader loads with code of its own.
struct ModelPart {
  std::string prefix;                   // of the names of its tensors; empty: what no other part has
  std::string name;                     // "the CLIP-L text encoder"
  std::optional<bool> loads_quantized;  // whether ComfyUI reads markers there; nothing: not known
  std::string because;                  // why not, or why that is not known
};

// Sources, in ComfyUI: sd.py (detect_te_model, load_text_encoder_state_dicts, load_state_dict_guess_config), sd1_clip.py (SDClipModel),
// supported_models.py (clip_target), controlnet.py (controlnet_config). Immutable. [any-thread]
class ModelParts {
 public:
  // `architecture` and `prefix` are what recognise() finds; empty: nothing. Reads names and shapes only.
  ModelParts(const std::vector<TensorInfo>& tensors, std::string_view architecture, std::string_view prefix);

  const ModelPart& of(std::string_view tensor) const;

 private:
  std::map<std::string, ModelPart, std::less<>> text_encoders_;  // of a checkpoint, by what follows "text_encoders."
  std::vector<ModelPart> parts_;                                 // longer prefixes first; the last one has none
};

}  // namespace qmill
