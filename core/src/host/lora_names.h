// The part of a pack of filters that says how LoRA files call the layers of its models.
#pragma once

#include "host/pack_text.h"

#include <qmill/core/lora_names.h>

namespace qmill {

// Throws Error(input) that says what is wrong for which architecture.
std::vector<LoraNames> parse_lora_names(const pack::Json& json);

}  // namespace qmill
