// Loops over the short tiles of one row, which would spend more on calls than on values.
#pragma once

#include <cstdint>

namespace qmill {

// The largest |x| of each tile of n values; not finite when any of its values is not.
void tile_magnitudes(const float* values, std::int64_t n, std::int64_t tile_columns, float* magnitudes);

}  // namespace qmill
