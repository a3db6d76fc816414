// Shapes that a writer of GGUF files changed, changed back.
#pragma once

#include "header.h"

#include <map>
#include <string>
#include <vector>

namespace gguf {

// Where quantization needed longer rows, a tensor was folded: comfy.gguf.orig_shape.NAME has its true shape. A key that names no tensor
// says nothing. Throws Error(input) that names the tensor and both shapes where they have different numbers of values.
void restore_folded(std::vector<Entry>& entries, const std::map<std::string, Shape>& original_shapes);

// stable-diffusion.cpp makes 1x1 convolutions of the linear layers around the attention of SDXL. It is told from other writers by the
// missing general.architecture. Returns how many were changed back; readers would not recognise the model.
std::size_t restore_linear(std::vector<Entry>& entries, const std::map<std::string, std::string>& metadata);

}  // namespace gguf
