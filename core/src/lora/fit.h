// Whether the change that a LoRA makes has the size of what it is to change.
#pragma once

#include "lora/lora_file.h"

namespace qmill {

// The shape of those rows of `target` that an entry is about.
std::vector<std::int64_t> changed_shape(const LoraEntry& entry, const TensorInfo& target);

// What does not fit, in a sentence without its end; nothing: all fits. Throws Error(unsupported) for a target that holds codes.
std::optional<std::string> misfit(const LoraFile& file, const LoraEntry& entry, bool is_bias, const TensorInfo& target);

}  // namespace qmill
