// The sizes of changes and weights, from headers.
#pragma once

#include "lora/lora_file.h"

namespace qmill {

// Of a tensor seen as a matrix: its first dimension, and all others.
std::int64_t rows_of(const std::vector<std::int64_t>& shape);
std::int64_t columns_of(const std::vector<std::int64_t>& shape);

// Rows and columns of the change of a weight that an entry makes; {0, 0}: it makes none.
std::pair<std::int64_t, std::int64_t> change_shape(const LoraFile& file, const LoraEntry& entry);

// Whether both factors of a Hadamard product have the shape of the change.
bool halves_agree(const LoraFile& file, const LoraEntry& entry);

// Whether a magnitude of this shape is of rows; nothing: of neither. PEFT stores norms of rows only.
std::optional<bool> magnitude_of_rows(const TensorInfo& magnitude, const std::vector<std::int64_t>& shape);

}  // namespace qmill
