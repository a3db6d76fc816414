// A model with LoRAs merged into it, for those who read its values.
#pragma once

#include "lora/merge.h"
#include "model/value_source.h"

namespace qmill {

// What `merge` changes comes changed and as F32; all else as `source` has it.
std::unique_ptr<ValueSource> merged_values(std::unique_ptr<ValueSource> source, std::shared_ptr<const Merge> merge);

}  // namespace qmill
