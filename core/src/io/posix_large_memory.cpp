#include "io/large_memory.h"

#include <cstdlib>

#include <sys/mman.h>

namespace qmill {

std::byte* allocate_large(std::size_t bytes) {
  void* memory = std::aligned_alloc(kLargePage, bytes);
#if defined(MADV_HUGEPAGE)
  if (memory != nullptr) ::madvise(memory, bytes, MADV_HUGEPAGE);  // a hint: without large pages it is merely slower
#endif
  return static_cast<std::byte*>(memory);
}

void free_large(std::byte* memory) { std::free(memory); }

}  // namespace qmill
