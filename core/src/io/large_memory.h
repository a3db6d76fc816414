// Large blocks of memory, on large pages where the system has them: a tenth of the time goes into faulting in small ones.
#pragma once

#include <cstddef>

namespace qmill {

// Bytes are a multiple of this.
inline constexpr std::size_t kLargePage = 2 << 20;

// Null when there is not enough memory.
std::byte* allocate_large(std::size_t bytes);
void free_large(std::byte* memory);

}  // namespace qmill
