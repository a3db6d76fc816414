// Shapes that a writer of GGUF files changed, changed back.
#pragma once

#include "header.h"

#include <map>
#include <string>
#include <vector>

namespace gguf {

// Where quantization needed longer rows, a tensor was folded: comfy.gguf.orig_shape.NAME has its true shape. Keys that name other tensors
// say nothing. Throws Error(input) that names the tensor and both shapes where the true one is too large or has another number of values.
void restore_folded(Entry& entry, const std::map<std::string, Shape>& original_shapes);

// stable-diffusion.cpp makes 1x1 convolutions of the linear layers around the attention of SDXL. Its files have no
// general.architecture; those of other writers do. Returns how many were changed back; readers would not recognise the model.
std::size_t restore_linear(std::vector<Entry>& entries, const std::map<std::string, std::string>& metadata);

}  // namespace gguf
