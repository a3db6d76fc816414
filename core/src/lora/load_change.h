// The change that an entry of a LoRA file makes, read.
#pragma once

#include "lora/lora_file.h"
#include "lora/weight_change.h"

namespace qmill {

// A change as the file has it, and its magnitude if it has one.
struct LoadedChange {
  std::unique_ptr<WeightChange> change;
  std::optional<Magnitude> magnitude;
};

// `shape` is that of the weight, or of those of its rows that the entry is about. Throws Error(input) for values that are not finite.
LoadedChange load_change(const LoraFile& file, const LoraEntry& entry, const std::vector<std::int64_t>& shape);

// The change of a bias of this many values, or of those that the entry is about.
std::unique_ptr<WeightChange> load_bias_change(const LoraFile& file, const LoraEntry& entry, std::int64_t values);

}  // namespace qmill
