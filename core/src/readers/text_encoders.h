// The text encoders that ComfyUI loads from files of their own: by which names and widths it finds them, and whether it reads markers.
#pragma once

#include "readers/model_parts.h"

namespace qmill {

// Why a part that ComfyUI loads with float layers alone cannot be quantized.
inline constexpr const char* kReadsNoMarkers = "ComfyUI loads it without quantized layers and takes codes for values";

// Nothing: `architecture` is no text encoder. The name's prefix is empty.
std::optional<ModelPart> text_encoder_of(const std::vector<TensorInfo>& tensors, std::string_view architecture);

// The tensor from which ComfyUI reads the tokenizer of this text encoder; empty: it needs none in the file.
std::string_view tokenizer_tensor(std::string_view architecture);

// The part `name` of a checkpoint ("t5xxl" of "text_encoders.t5xxl.transformer..."), which holds the diffusion model `architecture`, too.
ModelPart text_encoder_in_checkpoint(std::string_view name, std::string_view architecture);

}  // namespace qmill
