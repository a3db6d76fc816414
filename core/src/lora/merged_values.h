// A model with LoRAs merged into it, for those who read its values.
#pragma once

#include "lora/merge.h"
#include "model/value_source.h"

namespace qmill {

// The values that a conversion works on. What `merge` changes comes changed and as F32; all else as `source` has it. `merge`: null without
// LoRAs. `source` must outlive the result.
std::unique_ptr<ValueSource> values_of(const TensorSource& source, std::shared_ptr<const Merge> merge);

}  // namespace qmill
