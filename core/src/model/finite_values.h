// How many values of stored bytes are NaN or infinite, from their bits.
#pragma once

#include <qmill/tensor_info.h>

#include <cstddef>
#include <span>

namespace qmill {

// `bytes` hold whole values. Of types that are not floating: 0.
std::int64_t count_not_finite(std::span<const std::byte> bytes, DType dtype);

}  // namespace qmill
